"""The events of a run as a person reads them: what the agent says on stdout, what it does on stderr."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .terminal import write

__all__ = ["Transcript"]

SHOWN = 200
"""Characters of a tool call's arguments."""


class Transcript:
    """One run. With `aside`, also its reasoning and its tools are shown, dimmed."""

    def __init__(self, *, aside: bool) -> None:
        self._aside = aside
        self._types: dict[str, str] = {}
        self._open: bool | None = None
        """Where a line is begun: on stderr (True), on stdout (False), nowhere."""
        self._streamed: set[str] = set()

    def show(self, event: Mapping[str, Any]) -> bool:
        """Whether something was written."""
        if event["object"] == "message":
            self._types[event["id"]] = event["type"]
            return False
        if event["object"] != "content":
            return False
        kind = self._types.get(event["msg_id"], "message")
        if event["type"] == "text" and (kind == "message" or (self._aside and kind == "reasoning")):
            return self._text(event, aside=kind != "message")
        if self._aside and kind.endswith("_call") and event["type"] == "data" and not event["delta"]:
            data = event["data"] or {}
            self.end()
            write(f"[{data.get('name', kind)} {str(data.get('arguments', ''))[:SHOWN]}]", dim=True, err=True)
            return True
        return False

    def end(self) -> None:
        """The line that is begun is ended."""
        if self._open is not None:
            write("", err=self._open)
        self._open = None

    def _text(self, event: Mapping[str, Any], *, aside: bool) -> bool:
        # A part that came as a whole has no deltas before it.
        part = f"{event['msg_id']}/{event['index']}"
        if event["delta"]:
            self._streamed.add(part)
        elif part in self._streamed:
            return False
        text = str(event["text"] or "")
        if not text:
            return False
        if self._open is not aside:
            self.end()
        write(text, dim=aside, err=aside, end="")
        self._open = None if text.endswith("\n") else aside
        return True
