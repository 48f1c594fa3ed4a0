"""Prints the events of a run: the answer on stdout, reasoning and tool calls on stderr."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from .terminal import write

__all__ = ["Transcript"]

SHOWN = 200
"""Characters of a tool call's arguments that are printed."""


class Transcript:
    """The output of one run. With `aside` it includes reasoning and tool calls, dimmed."""

    def __init__(self, *, aside: bool) -> None:
        self._aside = aside
        self._types: dict[str, str] = {}
        self._open: bool | None = None
        """Whether the current line is on stderr; None if no line has begun."""
        self._streamed: set[str] = set()

    def show(self, event: Mapping[str, Any]) -> None:
        if event["object"] == "message":
            self._types[event["id"]] = event["type"]
        if event["object"] != "content":
            return
        kind = self._types.get(event["msg_id"], "message")
        if event["type"] == "text" and (kind == "message" or (self._aside and kind == "reasoning")):
            self._text(event, aside=kind != "message")
        elif self._aside and kind.endswith("_call") and event["type"] == "data" and not event["delta"]:
            data = event["data"] or {}
            self.end()
            write(f"[{data.get('name', kind)} {str(data.get('arguments', ''))[:SHOWN]}]", dim=True, err=True)

    def prompt(self, text: str) -> None:
        """Print a question on stderr. At a terminal the answer is typed behind it."""
        self.end()
        write(text, err=True, end=" " if sys.stdin.isatty() else "\n")
        self._open = True if sys.stdin.isatty() else None

    def typed(self) -> None:
        """The user has ended the line."""
        self._open = None

    def end(self) -> None:
        """End the current line."""
        if self._open is not None:
            write("", err=self._open)
        self._open = None

    def _text(self, event: Mapping[str, Any], *, aside: bool) -> None:
        # A part that comes as a whole has no deltas before it.
        part = f"{event['msg_id']}/{event['index']}"
        if event["delta"]:
            self._streamed.add(part)
        elif part in self._streamed:
            return
        text = str(event["text"] or "")
        if not text:
            return
        if self._open is not aside:
            self.end()
        write(text, dim=aside, err=aside, end="")
        self._open = None if text.endswith("\n") else aside
