"""Reads on while a request is handled, so that a client that hangs up is noticed."""

from __future__ import annotations

import logging
import os
from typing import Any

import trio
from hypercorn.protocol.h11 import H11Protocol

__all__ = ["MAX_RECEIVED", "ClientLeft", "ReadAhead"]

log = logging.getLogger("trio_agentapp.server")

MAX_AHEAD = 1024 * 1024
"""Bytes after a request that are kept until it is answered. A client that sends more is disconnected: while they
stay unread, the end of the stream behind them cannot be seen."""

MAX_RECEIVED = 64 * 1024
"""Bytes that are read at once."""


class ClientLeft(Exception):
    """The client has hung up, or was disconnected, while its request is handled."""


class ReadAhead:
    """Replaces `H11Protocol.can_read`, the event for which Hypercorn waits until a request is answered.

    Hypercorn stops reading when anything follows a request (a second request, an empty line) or when the request
    offers an upgrade. The end of the stream is behind those bytes, so it would not see that the client hangs up.
    Only the connection's reading task waits here, so no other task reads at the same time.
    """

    def __init__(self, protocol: H11Protocol, stream: Any) -> None:
        self._protocol = protocol
        self._stream = stream
        self._plain = isinstance(stream, trio.SocketStream)
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
                    if self._plain:
                        # Without the four frames of Trio that a call of `receive_some` keeps while it waits.
                        await trio.lowlevel.wait_readable(self._stream.socket)
                        data = os.read(self._stream.socket.fileno(), MAX_RECEIVED)
                    else:
                        data = await self._stream.receive_some(MAX_RECEIVED)
                except BlockingIOError:
                    continue
                except (OSError, trio.ClosedResourceError, trio.BrokenResourceError):
                    data = b""
                if not data:
                    raise ClientLeft
                self._protocol.connection.receive_data(bytes(data))
            if len(self._protocol.connection.trailing_data[0]) > MAX_AHEAD:
                log.info(
                    "A client was disconnected: it sent more than %d bytes before its request was answered",
                    MAX_AHEAD,
                )
                raise ClientLeft
