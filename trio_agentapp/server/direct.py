"""Writes parts of a response from other tasks than its own, if the socket accepts them at once."""

from __future__ import annotations

from typing import Protocol

from hypercorn.typing import ASGISendCallable, HTTPScope

from .extensions import DIRECT_WRITER, extension

__all__ = ["DirectConnection", "DirectWriter", "direct_writer_of"]


class DirectConnection(Protocol):
    """A connection whose socket can be written to without waiting."""

    unsent: bytes
    """The rest of a direct write that the socket has not accepted. It is sent before anything else."""

    def write_now(self, data: bytes) -> bool:
        """Write `data` to the socket; returns False if it accepted nothing."""

    async def send_unsent(self) -> None: ...


class DirectWriter:
    """Sends chunks of an HTTP/1.1 response whose head was sent and whose end was not.

    h11 frames the head and the end of a response and counts nothing between them, so chunks may bypass it. A chunk
    then costs one system call, in place of a task switch, a lock, a shield and two checkpoints.
    """

    def __init__(self, connection: DirectConnection, send: ASGISendCallable) -> None:
        self.send = send
        self._connection = connection

    @property
    def pending(self) -> bool:
        """Whether a part of the last chunk waits for `flush`."""
        return bool(self._connection.unsent)

    def write(self, data: bytes) -> bool:
        """Send `data` as one chunk, without blocking. Returns False if nothing was sent; use `send` then."""
        return self._connection.write_now(b"%x\r\n%b\r\n" % (len(data), data))

    async def flush(self) -> None:
        """Wait until the socket has accepted the rest of the last chunk."""
        await self._connection.send_unsent()


def direct_writer_of(scope: HTTPScope, send: ASGISendCallable) -> DirectWriter | None:
    """Return the writer of a request; None if the server offers none, or if middleware may change the bytes."""
    writer: DirectWriter | None = extension(scope, DIRECT_WRITER)
    return writer if writer is not None and writer.send is send else None
