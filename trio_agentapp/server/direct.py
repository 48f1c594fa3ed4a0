"""Writes parts of a response from tasks other than its own, if the socket accepts them at once."""

from __future__ import annotations

from typing import Protocol

from hypercorn.typing import ASGISendCallable, HTTPScope

from .extensions import DIRECT_WRITER, extension

__all__ = ["DirectConnection", "DirectWriter", "direct_writer_of", "text_frame"]


class DirectConnection(Protocol):
    """A connection whose socket can be written to without waiting."""

    unsent: bytes
    """The rest of a direct write that the socket has not accepted. It is sent before anything else."""

    def write_now(self, data: bytes) -> bool:
        """Write `data` to the socket; returns False if it accepted nothing."""

    def hold(self) -> None:
        """Keep the next bytes until more bytes follow, and send both in one write."""

    async def send(self, data: bytes) -> None:
        """Send `unsent`, and then `data`."""


class DirectWriter:
    """Sends chunks of an HTTP/1.1 response that has not ended.

    h11 writes the head and the end of a chunked response, and keeps no state about the chunks between them. So
    chunks may bypass it. Such a chunk costs one system call, in place of a task switch, a lock, a shield and two
    checkpoints.
    """

    def __init__(self, connection: DirectConnection, send: ASGISendCallable) -> None:
        self.send = send
        self._connection = connection

    @property
    def pending(self) -> bool:
        """Whether a part of the last chunk waits for `flush`."""
        return bool(self._connection.unsent)

    def hold_head(self) -> None:
        """Send the head together with the next chunk, in one write.

        Call this before the head, if a chunk follows at once.
        """
        self._connection.hold()

    def write(self, data: bytes) -> bool:
        """Send `data` as one chunk, without blocking. Returns False if nothing was sent; use `write_all` then."""
        return self._connection.write_now(_chunk(data))

    async def write_all(self, data: bytes) -> None:
        """Send `data` as one chunk. Waits if the socket does not accept it at once."""
        await self._connection.send(_chunk(data))

    async def flush(self) -> None:
        """Wait until the socket has accepted the rest of the last chunk."""
        await self._connection.send(b"")


def _chunk(data: bytes) -> bytes:
    # An empty chunk would be the end of the response.
    return data and b"%x\r\n%b\r\n" % (len(data), data)


def text_frame(text: bytes) -> bytes:
    """Return a whole text message as one WebSocket frame of a server (RFC 6455, section 5.2). `text` is UTF-8."""
    size = len(text)
    if size < 126:
        head = bytes((0x81, size))
    elif size < 65536:
        head = b"\x81\x7e" + size.to_bytes(2, "big")
    else:
        head = b"\x81\x7f" + size.to_bytes(8, "big")
    return head + text


def direct_writer_of(scope: HTTPScope, send: ASGISendCallable) -> DirectWriter | None:
    """Return the writer of a request; None if the server offers none, or if middleware may change the bytes."""
    writer: DirectWriter | None = extension(scope, DIRECT_WRITER)
    return writer if writer is not None and writer.send is send else None
