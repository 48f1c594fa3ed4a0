"""A listener that accepts what waits, not one connection per turn of the event loop."""

from __future__ import annotations

import socket
from collections import deque

import trio

__all__ = ["EagerListener"]

AT_ONCE = 16
"""Connections that one turn of the loop accepts.

`trio.serve_listeners` takes one per turn: at 20 ms a turn, the last of 1,000 clients that come together would wait
20 s. Each costs about 1.5 ms of its turn, and running streams wait for the turn: so not all are accepted at once.
"""


class EagerListener(trio.abc.Listener[trio.SocketStream]):
    """As `trio.SocketListener`, which is final; `accept` returns at once as long as connections are at hand."""

    def __init__(self, sock: socket.socket) -> None:
        """`sock`: non-blocking, and listening."""
        self.socket = trio.socket.from_stdlib_socket(sock)
        self._listener = trio.SocketListener(self.socket)
        self._sock = sock
        self._accepted: deque[trio.SocketStream] = deque()

    async def accept(self) -> trio.SocketStream:
        if self._accepted:
            return self._accepted.popleft()
        stream = await self._listener.accept()
        while len(self._accepted) < AT_ONCE - 1:
            try:
                accepted, _ = self._sock.accept()
            except OSError:
                # No more wait, or the next call meets the same error and reports it.
                break
            self._accepted.append(trio.SocketStream(trio.socket.from_stdlib_socket(accepted)))
        return stream

    async def aclose(self) -> None:
        # Nothing has been accepted and not been returned: `accept` waits only when its queue is empty.
        await self._listener.aclose()
