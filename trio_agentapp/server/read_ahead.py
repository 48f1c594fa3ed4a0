"""Reading on while a request is answered, so that a client that hangs up is seen.

Hypercorn's HTTP/1.1 stops reading when anything follows a request (a second request, an empty line), or when the
request offers an upgrade, until it has answered. The end of the stream is behind those bytes.
"""

from __future__ import annotations

import logging
from typing import Any

import trio
from hypercorn.protocol.h11 import H11Protocol

__all__ = ["ClientLeft", "ReadAhead"]

log = logging.getLogger(__name__)

MAX_AHEAD = 1024 * 1024
"""Bytes behind a request that wait for its answer. A client that sends more is cut: unread, they would hide a
hang-up."""

MAX_RECEIVED = 64 * 1024


class ClientLeft(Exception):
    """The client has hung up, or is cut, while its request is answered."""


class ReadAhead:
    """In place of the event for which an `H11Protocol` waits before it parses what follows a request.

    Only the connection's reading task waits, so no other one reads meanwhile.
    """

    def __init__(self, protocol: H11Protocol, stream: Any) -> None:
        self._protocol = protocol
        self._stream = stream
        self._turn = trio.Event()
        self._reading = trio.CancelScope()

    async def clear(self) -> None:
        self._turn = trio.Event()

    async def set(self) -> None:
        self._turn.set()
        self._reading.cancel(reason="it is the next request's turn")

    def is_set(self) -> bool:
        return self._turn.is_set()

    async def wait(self) -> None:
        """Raises ClientLeft."""
        while not self._turn.is_set():
            with trio.CancelScope() as self._reading:
                try:
                    data = await self._stream.receive_some(MAX_RECEIVED)
                except (trio.ClosedResourceError, trio.BrokenResourceError):
                    data = b""
                if not data:
                    raise ClientLeft
                self._protocol.connection.receive_data(bytes(data))
            if len(self._protocol.connection.trailing_data[0]) > MAX_AHEAD:
                log.info("A client is cut: it sent more than %d bytes behind a request that is answered", MAX_AHEAD)
                raise ClientLeft
