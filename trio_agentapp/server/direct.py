"""Writing parts of a response from outside its task, where the socket takes them at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from hypercorn.typing import ASGISendCallable, HTTPScope

__all__ = ["DIRECT", "DirectWriter", "direct_writer_of"]

DIRECT: Any = "trio_agentapp.direct"
"""The extension of an ASGI scope that holds the `DirectWriter` of its response."""


class DirectConnection(Protocol):
    """A connection whose socket can be written to without waiting."""

    unsent: bytes
    """What the socket has not taken of a direct write. It goes out before anything else."""

    def write_now(self, data: bytes) -> bool:
        """Hand `data` to the socket; False: nothing was taken."""

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
        """Send `data` as one chunk, without blocking; False: nothing was sent, and `send` is to be used."""
        return self._connection.write_now(b"%x\r\n%b\r\n" % (len(data), data))

    async def flush(self) -> None:
        """Wait until the socket has taken the rest of the last chunk."""
        await self._connection.send_unsent()


def direct_writer_of(scope: HTTPScope, send: ASGISendCallable) -> DirectWriter | None:
    """The writer of a request, if its server offers one, and no middleware that may change bytes is between."""
    offered: Mapping[str, Any] = scope.get("extensions") or {}
    writer: DirectWriter | None = offered.get(DIRECT)
    return writer if writer is not None and writer.send is send else None
