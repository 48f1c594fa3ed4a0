"""A listener that accepts several waiting connections in each turn of the event loop."""

from __future__ import annotations

import socket
from collections import deque

import trio

from .turns import Turns

__all__ = ["EagerListener"]

ACCEPTED_BEYOND = 1
"""How many more connections one turn of the loop accepts than `Turns` lets send a request.

`trio.serve_listeners` accepts one per turn. At 20 ms a turn, the last of 1,000 clients that connect together would
wait 20 s. Each start costs about 1.5 ms, spread over a few turns, so a burst of starts makes each turn about four
times that long, and running streams wait for it. With 16 they were 2.4 times as late as with 4 in one comparison,
and the last of 500 clients was not served earlier.
"""


class EagerListener(trio.abc.Listener[trio.SocketStream]):
    """Replaces `trio.SocketListener`, which is final. `accept` does not wait while any are left."""

    def __init__(self, sock: socket.socket, turns: Turns) -> None:
        """`sock` is non-blocking and listens."""
        self.socket = trio.socket.from_stdlib_socket(sock)
        self._listener = trio.SocketListener(self.socket)
        self._sock = sock
        self._turns = turns
        self._accepted: deque[trio.SocketStream] = deque()

    async def accept(self) -> trio.SocketStream:
        if self._accepted:
            return self._accepted.popleft()
        stream = await self._listener.accept()
        while len(self._accepted) < self._turns.limit + ACCEPTED_BEYOND - 1:
            try:
                accepted, _ = self._sock.accept()
            except OSError:
                # No more connections wait, or the next call raises the same error.
                break
            self._accepted.append(trio.SocketStream(trio.socket.from_stdlib_socket(accepted)))
        return stream

    async def aclose(self) -> None:
        # No accepted connection is lost: `accept` waits only while its queue is empty, and is cancelled only there.
        await self._listener.aclose()
