"""A WebSocket between the server and its view: which side ends it, and with which close code.

Quart-trio closes with 1000, as if all was well, when a view fails, and sends nothing when the server shuts down.
Here the codes are 1011 and 1001. A view can ask to be notified of the shutdown and to close by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio
from hypercorn.typing import (
    ASGIReceiveCallable,
    ASGISendCallable,
    WebsocketResponseBodyEvent,
    WebsocketResponseStartEvent,
    WebsocketScope,
)
from quart.utils import encode_headers
from quart.wrappers import Response, Websocket
from quart_trio.asgi import TrioASGIWebsocketConnection
from werkzeug.wrappers import Response as WerkzeugResponse

from ..runs.containment import contain, unwrap
from .extensions import SHUTDOWN_NOTICE, add_extension
from .problems import assign_request_id
from .stream_body import WIND_DOWN_TIMEOUT

if TYPE_CHECKING:
    from quart_trio import QuartTrio

__all__ = ["ShutdownNotice", "WebSocketConnection"]

NORMAL, GOING_AWAY, INTERNAL_ERROR = 1000, 1001, 1011

CLOSE_TIMEOUT = 2.0
"""Seconds for a close frame when the server shuts down."""


class ShutdownNotice:
    """Lets a view close its WebSocket by itself when the server shuts down, in place of being cancelled."""

    def __init__(self, view: trio.CancelScope) -> None:
        self.received = trio.Event()
        """Set when the server shuts down and the client is still connected."""
        self.wanted = False
        self.too_late = False
        self._view = view

    def request(self) -> None:
        """Ask for the notice: the view is not cancelled at once, and must end soon after `received` is set."""
        if not self.too_late:
            self.wanted = self._view.shield = True


class WebSocketConnection(TrioASGIWebsocketConnection):
    """The `asgi_websocket_class` of the app."""

    def __init__(
        self, app: QuartTrio, scope: WebsocketScope, refusal: Callable[[], Response] | None = None
    ) -> None:
        """`refusal` makes the response to the upgrade in place of the app."""
        super().__init__(app, scope)
        self._refusal = refusal
        self._responding = trio.CancelScope()
        self._notice = ShutdownNotice(self._responding)
        self._receiving = trio.CancelScope()

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        assign_request_id(self.app)
        add_extension(self.scope, SHUTDOWN_NOTICE, self._notice)
        websocket = self._create_websocket_from_scope(send)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, receive)
            try:
                with self._responding:
                    await self._respond(websocket, send)
            finally:
                self._receiving.cancel(reason="the WebSocket is closed")
                await self._close(send, GOING_AWAY)

    async def _watch(self, receive: ASGIReceiveCallable) -> None:
        """Pass messages to the view one at a time, and notice when the client or the server leaves."""
        with self._receiving:
            try:
                await self._receive(receive)
            except trio.Cancelled:
                self._notice.too_late = True
                if self._receiving.cancel_called or not self._notice.wanted:
                    raise
                self._notice.received.set()
                timeout: float = getattr(self.app, "wind_down_timeout", WIND_DOWN_TIMEOUT)
                self._responding.deadline = trio.current_time() + timeout
                # The client may still hang up before the view has closed.
                self._receiving.shield = True
                await self._receive(receive)

    async def _receive(self, receive: ASGIReceiveCallable) -> None:
        while True:
            event = await receive()
            if event["type"] == "websocket.receive":
                text = event.get("text")
                await self.send_channel.send(text if text is not None else event.get("bytes") or b"")
            elif event["type"] == "websocket.disconnect":
                self._closed = True
                self._responding.cancel(reason="the client disconnected")
                # No message follows. Wait here, to notice when the server cancels this task.
                await trio.sleep_forever()

    async def _respond(self, websocket: Websocket, send: ASGISendCallable) -> None:
        if self._refusal is not None:
            await self._reject(self._refusal(), send)
            return
        try:
            response = unwrap(
                await contain(self.app.handle_websocket, websocket, name=f"WebSocket {websocket.path}")
            )
        except Exception:
            # The server logs the exception when the app raises it.
            await self._close(send, INTERNAL_ERROR)
            raise
        if response is not None and not self._accepted:
            await self._reject(response, send)
        else:
            await self._close(send, NORMAL if response is None else INTERNAL_ERROR)

    async def _close(self, send: ASGISendCallable, code: int) -> None:
        if not self._closed:
            self._closed = True
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await send({"type": "websocket.close", "code": code, "reason": ""})

    async def _reject(self, response: Response | WerkzeugResponse, send: ASGISendCallable) -> None:
        """Answer the upgrade with an HTTP response."""
        self._closed = True
        start: WebsocketResponseStartEvent = {
            "type": "websocket.http.response.start",
            "status": response.status_code,
            "headers": encode_headers(response.headers),
        }
        data = response.get_data() if isinstance(response, WerkzeugResponse) else await response.get_data()
        body: WebsocketResponseBodyEvent = {
            "type": "websocket.http.response.body",
            "body": data if isinstance(data, bytes) else data.encode(),
            "more_body": False,
        }
        await send(start)
        await send(body)
