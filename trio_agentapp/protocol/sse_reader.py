"""Parses event streams (the format: WHATWG HTML, section 9.2)."""

from __future__ import annotations

import attrs

__all__ = ["FrameTooLarge", "SSEFrame", "SSEReader"]


class FrameTooLarge(ValueError):
    """A frame has more bytes than the reader accepts."""


@attrs.frozen
class SSEFrame:
    """One frame that has data. `name` is empty without an `event` line; several `data` lines are joined with LF."""

    name: bytes
    data: bytes


class SSEReader:
    """Turns the bytes of a stream into frames. Each byte is looked at once, in however many pieces it arrives.

    `max_frame`: bytes of one frame.
    """

    def __init__(self, max_frame: int) -> None:
        self._max_frame = max_frame
        self._rest = bytearray()
        self._searched = 0
        self._half = b""

    def feed(self, data: bytes) -> list[SSEFrame]:
        """Return the frames that are now complete. Raises FrameTooLarge."""
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
        if self._searched > self._max_frame:
            raise FrameTooLarge(f"the server sent a frame of more than {self._max_frame} bytes")
        return [read for frame in frames if (read := _frame(frame)) is not None]


def _frame(frame: bytes) -> SSEFrame | None:
    data: list[bytes] = []
    name = b""
    for line in frame.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return SSEFrame(name, b"\n".join(data)) if data else None
