"""The send buffer of an HTTP/2 stream, with a limit."""

from __future__ import annotations

from hypercorn.protocol.h2 import BUFFER_HIGH_WATER, BUFFER_LOW_WATER, BufferCompleteError, StreamBuffer

__all__ = ["BoundedBuffer"]


class BoundedBuffer(StreamBuffer):
    """Make a sender wait while the buffer holds 32 KiB or more, until less than 16 KiB are left.

    Hypercorn's own buffer wakes the sender at every check of the stream, even if the client's flow-control window
    is closed and nothing was sent. The buffer of a client that does not read then grows without limit.
    """

    async def push(self, data: bytes) -> None:
        if self._complete:
            raise BufferCompleteError
        self.buffer.extend(data)
        await self._is_empty.clear()
        while len(self.buffer) >= BUFFER_HIGH_WATER and not self._complete:
            await self._paused.clear()
            await self._paused.wait()

    async def pop(self, max_length: int) -> bytes:
        data = bytes(self.buffer[:max_length])
        del self.buffer[:max_length]
        if len(self.buffer) < BUFFER_LOW_WATER:
            await self._paused.set()
        if not self.buffer:
            await self._is_empty.set()
        return data
