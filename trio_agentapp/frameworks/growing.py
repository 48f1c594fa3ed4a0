"""A model's answer that is being streamed, as messages that grow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from ..protocol.message import Message

__all__ = ["GrowingAnswer"]


@attrs.define
class GrowingAnswer:
    """Text and reasoning that have been streamed so far. Each is sent again when it grows, and once complete."""

    id: str
    metadata: Mapping[str, Any]
    text: str = ""
    reasoning: str = ""

    def say(self, delta: str) -> Iterator[tuple[Message, bool]]:
        if delta:
            self.text += delta
            yield (self._text(), False)

    def reason(self, delta: str | None) -> Iterator[tuple[Message, bool]]:
        if delta:
            self.reasoning += delta
            yield (self._reasoning(), False)

    def complete(self) -> Iterator[tuple[Message, bool]]:
        if self.reasoning:
            yield (self._reasoning(), True)
        if self.text:
            yield (self._text(), True)

    def _text(self) -> Message:
        return Message("assistant", "message", self.text, self.id, metadata=self.metadata)

    def _reasoning(self) -> Message:
        return Message("assistant", "reasoning", self.reasoning, f"{self.id}-reasoning", metadata=self.metadata)
