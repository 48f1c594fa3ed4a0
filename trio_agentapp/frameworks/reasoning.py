"""Separates reasoning in a `<think>` tag from the text of a model."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Parts", "parts_of"]

BEGIN, END = "<think>", "</think>"


class Parts(NamedTuple):
    """The reasoning and the text that a model has written so far."""

    reasoning: str
    text: str


def parts_of(written: str, *, last: bool = True) -> Parts:
    """Split `written` into reasoning and text. If more will follow, an incomplete tag at the end is left out."""
    if not written.startswith(BEGIN):
        return Parts("", "" if not last and BEGIN.startswith(written) else written)
    reasoning, closed, text = written.removeprefix(BEGIN).lstrip().partition(END)
    if not closed and not last:
        cut = next((size for size in range(len(END) - 1, 0, -1) if reasoning.endswith(END[:size])), 0)
        reasoning = reasoning[: len(reasoning) - cut]
    return Parts(reasoning, text.lstrip())
