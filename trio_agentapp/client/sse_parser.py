"""A parser for event streams (the format: WHATWG HTML, section 9.2)."""

from __future__ import annotations

from typing import Any

from ..errors import UnexpectedAnswer
from .responses import json_of
from .subscription import Batch, Gap

__all__ = ["SSEParser"]

MAX_FRAME = 256 * 1024 * 1024
"""Bytes of one frame. The last event of a run repeats its whole output, so frames can be large."""


class SSEParser:
    """Turns the bytes of a stream into events. Each byte is looked at once, in however many pieces it arrives."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._searched = 0
        self._half = b""

    def feed(self, data: bytes) -> Batch:
        """Return the events that are now complete. Raises UnexpectedAnswer for data that is not a run's event."""
        data, self._half = self._half + data, b""
        if b"\r" in data:
            if data.endswith(b"\r"):
                # It may be the first half of a CRLF.
                data, self._half = data[:-1], b"\r"
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self._rest += data
        end = self._rest.rfind(b"\n\n", max(self._searched - 1, 0))
        frames: list[bytes] = []
        if end >= 0:
            frames = bytes(self._rest[:end]).split(b"\n\n")
            del self._rest[: end + 2]
        self._searched = len(self._rest)
        if self._searched > MAX_FRAME:
            raise UnexpectedAnswer(f"the server sent a frame of more than {MAX_FRAME} bytes")
        return [event for frame in frames if (event := _event(frame)) is not None]


def _event(frame: bytes) -> dict[str, Any] | Gap | None:
    data: list[bytes] = []
    name = b""
    for line in frame.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    if not data or data == [b"[DONE]"]:
        return None
    event = json_of(b"\n".join(data))
    if name == b"gap" and isinstance(event, dict):
        return Gap(int(event["from"]), int(event["to"]))
    if name or not isinstance(event, dict) or not isinstance(event.get("sequence_number"), int):
        raise UnexpectedAnswer("the server sent something that is not an event of a run")
    return event
