"""A tool call while its arguments arrive, and what of it was sent on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ..protocol.payload import json_text

__all__ = ["GrowingCall"]


@attrs.define
class GrowingCall:
    """The arguments are kept in pieces: the cost of a long call grows with its length, not with its square."""

    id: str = ""
    name: str = ""
    begun: bool = False
    """The client has seen it begin."""
    _sent: list[str] = attrs.field(factory=list)
    _waiting: list[str] = attrs.field(factory=list)

    def grow(self, data: Mapping[str, Any]) -> bool:
        """Take the next piece. Return whether the call can be sent: its id and its name are known."""
        self.id = self.id or json_text(data.get("call_id") or "")
        self.name = self.name or json_text(data.get("name") or "")
        if isinstance(piece := data.get("arguments"), str):
            self._waiting.append(piece)
        return bool(self.id and self.name)

    def complete(self, arguments: str) -> None:
        """Take the whole arguments. What was sent stays; if they do not begin with it, nothing more is sent."""
        sent = self.sent
        self._waiting = [arguments[len(sent) :]] if arguments.startswith(sent) else []

    def take(self) -> str:
        """Return the arguments that were not sent yet. They count as sent from now on."""
        piece = "".join(self._waiting)
        self._waiting.clear()
        if piece:
            self._sent.append(piece)
        return piece

    @property
    def sent(self) -> str:
        return "".join(self._sent)
