"""Writes the messages of several tasks to one WebSocket, one after the other."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import orjson
import trio
from quart.wrappers import Websocket

from ...refusals import note_refusal
from ...server.extensions import ABORT, WEBSOCKET_STREAM, extension
from ...server.websocket_stream import WebSocketStream

__all__ = ["SocketWriter"]

log = logging.getLogger(__name__)

SEND_TIMEOUT = 60.0
"""Seconds that one write may take. A client that reads nothing for so long is disconnected."""


class SocketWriter:
    """Lets tasks write in turn, one batch each. So a run with many events does not delay one with few."""

    def __init__(self, websocket: Websocket, *, max_message: int) -> None:
        self._websocket = websocket
        self._stream: WebSocketStream | None = extension(websocket.scope, WEBSOCKET_STREAM)
        self._abort: Callable[[], None] | None = extension(websocket.scope, ABORT)
        if self._stream is not None:
            self._stream.limit(max_message)
        self._turn = trio.StrictFIFOLock()
        self._writing_since = math.inf

    async def send(self, message: Mapping[str, Any]) -> None:
        await self.write([orjson.dumps(message).decode()])

    async def write(self, texts: list[str]) -> None:
        """Send text messages without those of other tasks between them."""
        async with self._turn:
            self._writing_since = trio.current_time()
            try:
                if self._stream is not None:
                    await self._stream.send_texts(texts)
                else:
                    for text in texts:
                        await self._websocket.send(text)
            finally:
                self._writing_since = math.inf
            # Sending to a client that has gone returns at once. The checkpoint lets the disconnect be noticed.
            await trio.lowlevel.checkpoint()

    def write_now(self, texts: list[bytes]) -> bool:
        """Write text messages from any task, if the socket accepts them at once; False: nothing was written.

        The socket may accept only a part of the last message. Call `flush` then; the rest is sent before anything
        else.
        """
        return self._stream is not None and not self._turn.locked() and self._stream.write_texts(texts)

    @property
    def pending(self) -> bool:
        """Whether a part of a message waits for `flush`."""
        return self._stream is not None and self._stream.pending

    async def flush(self) -> None:
        """Wait until the socket has accepted the rest of the last message."""
        await self.write([])

    async def watch(self) -> None:
        """Abort the connection when a write takes too long.

        A write cannot be cancelled: it is shielded, because half a frame would break the connection.
        """
        while self._abort is not None:
            await trio.sleep(SEND_TIMEOUT / 4)
            if trio.current_time() - self._writing_since > SEND_TIMEOUT:
                log.info("a WebSocket is cut: the client has read nothing for %g s", SEND_TIMEOUT)
                note_refusal("unread_time")
                self._abort()
