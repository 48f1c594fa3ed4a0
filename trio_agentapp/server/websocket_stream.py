"""Hypercorn's WebSocket stream, from the upgrade to the last frame, with its faults corrected.

Hypercorn's own has these faults:

- It sends pings and does not check the pongs.
- It offers compression, which takes some 300 KiB of memory for each socket.
- It does not tell the app that a message was too large.
- It answers a frame that breaks the protocol by hanging up, without a close frame.
- It waits for ever to pass a message to an app that has returned.
- It closes the TCP connection right after its close frame, which the peer then may never see.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import trio
from hypercorn.protocol.events import Body, Data, Request, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.ws_stream import ASGIWebsocketState, FrameTooLargeError, WSStream
from hypercorn.typing import AppWrapper, ASGISendEvent, WebsocketAcceptEvent
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Event, Message, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError

from .direct import DirectConnection, text_frame
from .extensions import WEBSOCKET_STREAM, add_extension

__all__ = ["PING_INTERVAL", "WebSocketStream"]

PING_INTERVAL = 20.0
"""Seconds between two pings."""

MAX_SILENT_INTERVALS = 4
"""Ping intervals in a row without a byte after which the peer counts as gone."""

CLOSE_TIMEOUT = 2.0
"""Seconds that the peer has to answer a close frame."""


class WebSocketStream(WSStream):
    """Replaces Hypercorn's `WSStream`, for HTTP/1.1 and HTTP/2."""

    def __init__(self, app: AppWrapper, *args: Any) -> None:
        async def app_with_stream(scope: Any, *rest: Any) -> None:
            add_extension(scope, WEBSOCKET_STREAM, self)
            await app(scope, *rest)

        super().__init__(app_with_stream, *args)  # type: ignore[arg-type]  # it only passes its arguments on
        self.direct: DirectConnection | None = None
        """The connection, if its socket can be written to directly: not over TLS or HTTP/2."""
        self._disconnected = trio.Event()
        self._received_any = False
        self._refused = False
        self._app_returned = False
        self._deliveries: set[trio.CancelScope] = set()

    def limit(self, max_message: int) -> None:
        """Refuse messages of more than `max_message` characters (or bytes, if they are binary) with 1009."""
        self.buffer.max_length = max_message

    async def send_texts(self, texts: Sequence[str]) -> None:
        """Send messages in one write. Does nothing if the peer has gone."""
        if self.closed or self.connection.state is not ConnectionState.OPEN:
            return
        await self._send_bytes(b"".join([self.connection.send(TextMessage(data=text)) for text in texts]))

    def write_texts(self, texts: Sequence[bytes]) -> bool:
        """Write messages to the socket from any task, without blocking. Returns False if nothing was written.

        Compression is never negotiated, so a frame needs no state. The parts of a frame stay together: what the
        socket does not accept is sent before anything else (`pending`). Nothing is written while another task
        sends, or after a close frame.
        """
        if self.direct is None or self.closed or self.connection.state is not ConnectionState.OPEN:
            return False
        return self.direct.write_now(b"".join(map(text_frame, texts)))

    @property
    def pending(self) -> bool:
        """Whether the rest of a message waits to be sent. Call `send_texts`, with nothing if there is nothing."""
        return self.direct is not None and bool(self.direct.unsent)

    async def _send_bytes(self, data: bytes) -> None:
        try:
            await self.send(Data(stream_id=self.stream_id, data=data))
        except trio.BusyResourceError:
            # Another task is closing the connection. It does not take the lock for that.
            await trio.lowlevel.checkpoint()

    async def _send_wsproto_event(self, event: Event) -> None:
        with suppress(LocalProtocolError):  # the close handshake no longer allows this event
            await self._send_bytes(self.connection.send(event))

    async def handle(self, event: StreamEvent) -> None:
        if isinstance(event, Request):
            kept = [field for field in event.headers if field[0].lower() != b"sec-websocket-extensions"]
            await super().handle(replace(event, headers=kept))
        elif isinstance(event, Body | Data) and self.handshake.accepted and not self.closed:
            self._received_any = True
            if self.connection.state is not ConnectionState.CLOSED:
                self.connection.receive_data(event.data)
                await self._handle_events()
        elif isinstance(event, StreamClosed) and not self.closed:
            self.closed = True
            self._disconnected.set()
            usual = self.state in (ASGIWebsocketState.CLOSED, ASGIWebsocketState.HTTPCLOSED)
            code = CloseReason.NORMAL_CLOSURE if usual else CloseReason.ABNORMAL_CLOSURE
            await self._deliver({"type": "websocket.disconnect", "code": code.value})
        else:
            await super().handle(event)

    async def app_send(self, message: ASGISendEvent | None) -> None:
        if message is not None and self._refused:
            # The socket was closed because of a fault of the peer. What the app sends before it notices that has no
            # effect.
            return
        if message is None:
            self._app_returned = True
            for delivery in self._deliveries:
                delivery.cancel(reason="the app has returned")
        if message is None and self.handshake.accepted and not self.closed:
            if self.state is ASGIWebsocketState.CONNECTED:
                self.state = ASGIWebsocketState.CLOSED
                await self._send_wsproto_event(CloseConnection(code=CloseReason.INTERNAL_ERROR))
            # Closing TCP with unread data resets the connection, and the peer may then not see the close frame.
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await self._disconnected.wait()
        await super().app_send(message)

    async def _handle_events(self) -> None:
        for event in self.connection.events():
            if isinstance(event, Message):
                if not self._refused:
                    await self._receive_message(event)
            elif isinstance(event, Ping):
                await self._send_wsproto_event(event.response())
            elif isinstance(event, CloseConnection):
                if self.connection.state is ConnectionState.OPEN:
                    # The peer did not send this. wsproto has found a fault in the data of the peer.
                    await self._refuse(event.code)
                    continue
                if self.connection.state is ConnectionState.REMOTE_CLOSING:
                    await self._send_wsproto_event(event.response())
                await self.send(StreamClosed(stream_id=self.stream_id))

    async def _receive_message(self, event: Message[Any]) -> None:
        try:
            self.buffer.extend(event)
        except FrameTooLargeError:
            await self._refuse(CloseReason.MESSAGE_TOO_BIG)
            return
        if event.message_finished:
            message = self.buffer.to_message()
            self.buffer.clear()
            await self._deliver(message)

    async def _refuse(self, code: int) -> None:
        """Close because of a fault of the peer, and report a disconnect to the app. Drop all further messages."""
        if self._refused:
            return
        self._refused = True
        self.buffer.clear()
        self.state = ASGIWebsocketState.CLOSED
        await self._send_wsproto_event(CloseConnection(code=code))
        await self._deliver({"type": "websocket.disconnect", "code": int(code)})

    async def _deliver(self, message: dict[str, Any]) -> None:
        """Pass a message to the app, and do not wait for an app that has returned, or returns meanwhile."""
        if self.app_put is not None and not self._app_returned:
            with trio.CancelScope() as delivery:
                self._deliveries.add(delivery)
                try:
                    await self.app_put(message)
                finally:
                    self._deliveries.discard(delivery)

    async def _accept(self, message: WebsocketAcceptEvent) -> None:
        await super()._accept(message)
        if self.config.websocket_ping_interval is None:
            self.task_group.spawn(self._send_pings)

    async def _send_pings(self) -> None:
        interval = self.config.websocket_ping_interval or PING_INTERVAL
        unanswered = 0
        while unanswered < MAX_SILENT_INTERVALS:
            self._received_any = False
            with trio.move_on_after(interval):
                await self._disconnected.wait()
                return
            unanswered = 0 if self._received_any else unanswered + 1
            await self._send_wsproto_event(Ping())
        await self.send(StreamClosed(stream_id=self.stream_id))
