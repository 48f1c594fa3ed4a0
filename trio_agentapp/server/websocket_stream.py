"""Hypercorn's WebSocket, mended: one stream of it, from the upgrade to the last frame.

Stock, it pings without looking for pongs, offers compression (a context of some 300 KiB for each socket), tells its
app nothing when a message was too large, answers a frame that breaks the protocol by hanging up, waits for ever to
hand a message to an app that has left, and closes the TCP connection under its own close frame, which the peer then
may never see.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import trio
from hypercorn.protocol import h2, h11
from hypercorn.protocol.events import Body, Data, Request, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.ws_stream import ASGIWebsocketState, FrameTooLargeError, WSStream
from hypercorn.typing import AppWrapper, ASGISendEvent, WebsocketAcceptEvent
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Event, Message, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError

__all__ = ["EXTENSION", "PING_INTERVAL", "WebSocketStream", "guard_websockets"]

EXTENSION = "trio_agentapp.websocket"
"""Where the ASGI scope's extensions hold the stream."""

PING_INTERVAL = 20.0
"""Seconds between two pings (WIRE, section 4)."""

VANISHED = 4
"""Intervals in a row without a byte, the first of them without a ping before it: the peer has vanished."""

CLOSING_PATIENCE = 2.0
"""Seconds the peer has for its half of the closing."""


class WebSocketStream(WSStream):
    """In place of Hypercorn's, for HTTP/1.1 and HTTP/2."""

    def __init__(self, app: AppWrapper, *args: Any) -> None:
        async def offering(scope: Any, *rest: Any) -> None:
            scope["extensions"][EXTENSION] = self
            await app(scope, *rest)

        super().__init__(offering, *args)  # type: ignore[arg-type]  # it only passes on what it is given
        self._over = trio.Event()
        self._heard = False
        self._refused = False
        self._app_has_left = False
        self._telling: set[trio.CancelScope] = set()

    def limit(self, max_message: int) -> None:
        """Refuse messages of more characters (bytes, where they are binary) than this, with 1009."""
        self.buffer.max_length = max_message

    async def send_texts(self, texts: Sequence[str]) -> None:
        """Send messages, in one write. A peer that has gone gets none."""
        if self.closed or self.connection.state is not ConnectionState.OPEN:
            return
        await self._put(b"".join([self.connection.send(TextMessage(data=text)) for text in texts]))

    async def _put(self, data: bytes) -> None:
        try:
            await self.send(Data(stream_id=self.stream_id, data=data))
        except trio.BusyResourceError:
            # Another task is closing the connection, for which it takes no lock; nobody would see this any more.
            await trio.lowlevel.checkpoint()

    async def _send_wsproto_event(self, event: Event) -> None:
        with suppress(LocalProtocolError):  # the close handshake is over, or past the point where this may be said
            await self._put(self.connection.send(event))

    async def handle(self, event: StreamEvent) -> None:
        if isinstance(event, Request):
            kept = [field for field in event.headers if field[0].lower() != b"sec-websocket-extensions"]
            await super().handle(replace(event, headers=kept))
        elif isinstance(event, Body | Data) and self.handshake.accepted and not self.closed:
            self._heard = True
            if self.connection.state is not ConnectionState.CLOSED:
                self.connection.receive_data(event.data)
                await self._handle_events()
        elif isinstance(event, StreamClosed) and not self.closed:
            self.closed = True
            self._over.set()
            usual = self.state in (ASGIWebsocketState.CLOSED, ASGIWebsocketState.HTTPCLOSED)
            code = CloseReason.NORMAL_CLOSURE if usual else CloseReason.ABNORMAL_CLOSURE
            await self._tell({"type": "websocket.disconnect", "code": code.value})
        else:
            await super().handle(event)

    async def app_send(self, message: ASGISendEvent | None) -> None:
        if message is None:
            self._app_has_left = True
            for telling in self._telling:
                telling.cancel(reason="the app has left this WebSocket")
        if message is None and self.handshake.accepted and not self.closed:
            if self.state is ASGIWebsocketState.CONNECTED:
                self.state = ASGIWebsocketState.CLOSED
                await self._send_wsproto_event(CloseConnection(code=CloseReason.INTERNAL_ERROR))
            # Closing TCP with data unread resets it, and the reset overtakes our close frame.
            with trio.move_on_after(CLOSING_PATIENCE, shield=True):
                await self._over.wait()
        await super().app_send(message)

    async def _handle_events(self) -> None:
        for event in self.connection.events():
            if isinstance(event, Message):
                if not self._refused:
                    await self._take(event)
            elif isinstance(event, Ping):
                await self._send_wsproto_event(event.response())
            elif isinstance(event, CloseConnection):
                if self.connection.state is ConnectionState.OPEN:
                    # Not the peer's, but wsproto's verdict on what the peer has sent.
                    await self._refuse(event.code)
                    continue
                if self.connection.state is ConnectionState.REMOTE_CLOSING:
                    await self._send_wsproto_event(event.response())
                await self.send(StreamClosed(stream_id=self.stream_id))

    async def _take(self, event: Message[Any]) -> None:
        try:
            self.buffer.extend(event)
        except FrameTooLargeError:
            await self._refuse(CloseReason.MESSAGE_TOO_BIG)
            return
        if event.message_finished:
            message = self.buffer.to_message()
            self.buffer.clear()
            await self._tell(message)

    async def _refuse(self, code: int) -> None:
        """Close because of what came, and have the app leave; what comes from now on is read and dropped."""
        if self._refused:
            return
        self._refused = True
        self.buffer.clear()
        self.state = ASGIWebsocketState.CLOSED
        await self._send_wsproto_event(CloseConnection(code=code))
        await self._tell({"type": "websocket.disconnect", "code": int(code)})

    async def _tell(self, message: dict[str, Any]) -> None:
        """Hand something to the app; one that has left, or leaves while its queue is full, misses nothing by it."""
        if self.app_put is not None and not self._app_has_left:
            with trio.CancelScope() as telling:
                self._telling.add(telling)
                try:
                    await self.app_put(message)
                finally:
                    self._telling.discard(telling)

    async def _accept(self, message: WebsocketAcceptEvent) -> None:
        await super()._accept(message)
        if self.config.websocket_ping_interval is None:
            self.task_group.spawn(self._send_pings)

    async def _send_pings(self) -> None:
        interval = self.config.websocket_ping_interval or PING_INTERVAL
        unanswered = 0
        while unanswered < VANISHED:
            self._heard = False
            with trio.move_on_after(interval):
                await self._over.wait()
                return
            unanswered = 0 if self._heard else unanswered + 1
            await self._send_wsproto_event(Ping())
        await self.send(StreamClosed(stream_id=self.stream_id))


def guard_websockets() -> None:
    """Have Hypercorn use it.

    Its protocols take the class from their modules when a request comes; they offer no other way in.
    """
    for module in (h11, h2):
        module.WSStream = WebSocketStream  # type: ignore[attr-defined]
