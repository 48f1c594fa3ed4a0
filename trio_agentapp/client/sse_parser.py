"""Parses the events of a run in an event stream."""

from __future__ import annotations

from typing import Any

from ..errors import UnexpectedAnswer
from ..protocol.sse_reader import FrameTooLarge, SSEFrame, SSEReader
from .responses import json_of
from .subscription import Batch, Gap

__all__ = ["SSEParser"]

MAX_FRAME = 256 * 1024 * 1024
"""Bytes of one frame. The last event of a run repeats its whole output, so frames can be large."""


class SSEParser:
    """Turns the bytes of a stream into events."""

    def __init__(self) -> None:
        self._reader = SSEReader(MAX_FRAME)

    def feed(self, data: bytes) -> Batch:
        """Return the events that are now complete. Raises UnexpectedAnswer for data that is not a run's event."""
        try:
            frames = self._reader.feed(data)
        except FrameTooLarge as error:
            raise UnexpectedAnswer(str(error)) from error
        return [event for frame in frames if (event := _event(frame)) is not None]


def _event(frame: SSEFrame) -> dict[str, Any] | Gap | None:
    if frame.data == b"[DONE]":
        return None
    event = json_of(frame.data)
    if frame.name == b"gap" and isinstance(event, dict):
        return Gap(int(event["from"]), int(event["to"]))
    if frame.name or not isinstance(event, dict) or not isinstance(event.get("sequence_number"), int):
        raise UnexpectedAnswer("the server sent something that is not an event of a run")
    return event
