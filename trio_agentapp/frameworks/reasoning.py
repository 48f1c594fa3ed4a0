"""Reasoning that comes as a part of the text, in a `<think>` tag."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Parts", "parts_of"]

BEGIN, END = "<think>", "</think>"


class Parts(NamedTuple):
    """What a model has written so far."""

    reasoning: str
    text: str


def parts_of(written: str, *, last: bool = True) -> Parts:
    """Take apart what a model has written. Before the last of it, a part of a tag at its end is left out."""
    if not written.startswith(BEGIN):
        return Parts("", "" if not last and BEGIN.startswith(written) else written)
    reasoning, closed, text = written.removeprefix(BEGIN).lstrip().partition(END)
    if not closed and not last:
        cut = next((size for size in range(len(END) - 1, 0, -1) if reasoning.endswith(END[:size])), 0)
        reasoning = reasoning[: len(reasoning) - cut]
    return Parts(reasoning, text.lstrip())
