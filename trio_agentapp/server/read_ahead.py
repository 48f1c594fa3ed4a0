"""Continues to read while a request is handled, so that a client that hangs up is noticed."""

from __future__ import annotations

import logging
import os
import weakref
from typing import Any

import trio
from hypercorn.protocol.h11 import H11Protocol

from ..refusals import note_refusal

__all__ = ["MAX_RECEIVED", "ClientLeft", "ReadAhead", "receive"]

log = logging.getLogger("trio_agentapp.server")

MAX_AHEAD = 1024 * 1024
"""Bytes after a request that are kept until it is answered.

A client that sends more is disconnected. If the bytes stayed unread, the end of the stream after them could not be
seen.
"""

MAX_RECEIVED = 64 * 1024
"""Bytes that are read at once."""


async def receive(stream: Any) -> bytes:
    """Receive the next bytes; b"" at the end of the stream.

    It avoids the frames that `receive_some` of a plain socket keeps while it waits: 1 KiB for each idle chat.

    Raises trio.ClosedResourceError, trio.BrokenResourceError.
    """
    if not isinstance(stream, trio.SocketStream):
        return bytes(await stream.receive_some(MAX_RECEIVED))
    while True:
        if stream.socket.fileno() < 0:
            raise trio.ClosedResourceError("the connection was closed")
        try:
            await trio.lowlevel.wait_readable(stream.socket)
            # Ask for the descriptor again: if the socket was closed meanwhile, another connection may have its
            # number.
            return os.read(stream.socket.fileno(), MAX_RECEIVED)
        except BlockingIOError:
            continue
        except OSError as error:
            raise trio.BrokenResourceError from error


class ClientLeft(Exception):
    """The client has hung up, or was disconnected, while its request is handled."""


class ReadAhead:
    """Replaces `H11Protocol.can_read`, the event for which Hypercorn waits until a request is answered.

    Hypercorn stops reading when anything follows a request (a second request, an empty line) or when the request
    offers an upgrade. The end of the stream comes after those bytes, so it would not notice that the client hangs
    up. Only the connection's reading task waits here, so no other task reads at the same time.
    """

    def __init__(self, protocol: H11Protocol, stream: Any) -> None:
        # The protocol refers to this object. A weak reference avoids a cycle, so both are freed at once.
        self._protocol = weakref.proxy(protocol)
        self._stream = stream
        self._is_turn = False
        self._reading = trio.CancelScope()

    async def clear(self) -> None:
        self._is_turn = False

    async def set(self) -> None:
        self._is_turn = True
        self._reading.cancel(reason="it is the next request's turn")

    def is_set(self) -> bool:
        return self._is_turn

    async def wait(self) -> None:
        """Read until the request is answered, as Hypercorn's event does. Raises ClientLeft."""
        while not self._is_turn:
            with trio.CancelScope() as self._reading:
                try:
                    data = await receive(self._stream)
                except (trio.ClosedResourceError, trio.BrokenResourceError):
                    data = b""
                if not data:
                    raise ClientLeft
                self._protocol.connection.receive_data(data)
            if len(self._protocol.connection.trailing_data[0]) > MAX_AHEAD:
                note_refusal("bytes_ahead")
                log.info(
                    "A client was disconnected: it sent more than %d bytes before its request was answered",
                    MAX_AHEAD,
                )
                raise ClientLeft
