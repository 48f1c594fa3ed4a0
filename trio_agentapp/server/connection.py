"""One HTTP request: who may end it, and when.

Four parties can want it to end. The client hangs up: the handling is cancelled at once. The response is
complete: from its last message on nobody may cancel, because that message closes or recycles the connection
(Hypercorn posts `http.disconnect` to the very task that is closing it). The server leaves: Hypercorn cancels
without a word, so a cancel without a disconnect is taken for what it is, and a stream may still say goodbye.
The body fails: that is logged here, for over HTTP/2 Hypercorn would leave the client waiting for ever.

Everything that touches quart-trio 0.12's request-body API is in `HTTPConnection._receive`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, NoReturn

import trio
from hypercorn.typing import (
    ASGIReceiveCallable,
    ASGISendCallable,
    HTTPResponseBodyEvent,
    HTTPResponseStartEvent,
    HTTPScope,
)
from outcome import Error
from quart import Quart
from quart.typing import ResponseTypes
from quart.utils import encode_headers
from quart.wrappers import Request, Response
from quart.wrappers.response import DataBody
from quart_trio.asgi import TrioASGIHTTPConnection
from werkzeug.wrappers import Response as WerkzeugResponse

from ..runs.containment import contain, unwrap
from ..runs.failures import is_cancelled
from .direct import direct_writer_of
from .guard import ABORT
from .problems import failure_of, name_request
from .stream_body import StreamBody

__all__ = ["HTTPConnection"]

log = logging.getLogger(__name__)

WIND_DOWN_TIMEOUT = 35.0
"""For apps that do not say: a cleanup budget of 30 s and a margin for the last frames."""

CUT_PATIENCE = 0.1
"""For saying that a stream is over. That it has been taken is not waited for: nobody reads."""

CLOSING_PATIENCE = 5.0
"""Once the peer is gone, closing is local work; only a TLS goodbye or a dead HTTP/2 stream takes longer."""


class HTTPConnection(TrioASGIHTTPConnection):
    """The `asgi_http_class` of the app.

    The view and the sending of its response run in the request's own task; one child task watches what comes
    in.
    """

    def __init__(self, app: Quart, scope: HTTPScope, answer: Callable[[], Response] | None = None) -> None:
        """`answer`: makes the answer in place of the app."""
        super().__init__(app, scope)
        self._answer = answer
        self._responding = trio.CancelScope()
        self._receiving = trio.CancelScope()
        self._stream: StreamBody | None = None
        self._started = False
        self._ending = False
        self._left = False
        self._was_cut = False

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        name_request(self.app)
        request = self.request_from_scope(send)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, request, receive)
            try:
                with self._responding:
                    await self._respond(request, send)
                if self._was_cut and self.scope["http_version"] == "2":
                    await self._end_cut(send)
            finally:
                self._receiving.cancel(reason="the response is over")

    def request_from_scope(self, send: ASGISendCallable) -> Request:
        return self._create_request_from_scope(send)

    async def _watch(self, request: Request, receive: ASGIReceiveCallable) -> None:
        """Feed the request's body, and learn of both ways in which others end this request."""
        with self._receiving:
            try:
                await self._receive(request, receive)
            except trio.Cancelled:
                if self._receiving.cancel_called:
                    raise
                self._left = True
                if not self._responding.shield:
                    raise
                self._say_goodbye()
                # The client may still hang up before the goodbye is out.
                self._receiving.shield = True
                await self._receive(request, receive)

    async def _receive(self, request: Request, receive: ASGIReceiveCallable) -> NoReturn:
        while True:
            message = await receive()
            if message["type"] == "http.request":
                request.body.append(message.get("body", b""))
                if not message.get("more_body", False):
                    request.body.set_complete()
            elif message["type"] == "http.disconnect":
                if self._ending:
                    self._bound(CLOSING_PATIENCE)
                else:
                    self._responding.cancel(reason="the client disconnected")
                # Nothing follows; stay to see a cancel from outside.
                await trio.sleep_forever()

    async def _respond(self, request: Request, send: ASGISendCallable) -> None:
        response = await self._handle(request)
        stream = response.response if isinstance(response, Response) else None
        if isinstance(stream, StreamBody):
            # Nothing raises Cancelled between the view's return and this: a body that was made is always entered
            # and left.
            self._stream = stream
            stream.bind(self._cut)
            self._responding.shield = True
            if self._left:
                self._say_goodbye()
        complete = False
        try:
            with trio.move_on_after(self._timeout(response)):
                await self._send_answer(send, response)
                complete = True
        except* Exception:
            if not self._started:
                raise
            log.exception("The response to %s %r failed half-way", request.method, request.path)
        # HTTP/1.1 shows an incomplete answer by closing; over HTTP/2 Hypercorn tells nothing, so the client
        # would wait for ever: end the stream in order instead.
        if complete or (self._started and self.scope["http_version"] == "2"):
            await self._send_end(send)

    async def _handle(self, request: Request) -> ResponseTypes:
        """The app's answer. Views and hooks are user code, and have a task of their own."""
        if self._answer is not None:
            return self._answer()
        handled = await contain(self.app.handle_request, request, name=f"{request.method} {request.path}")
        if isinstance(handled, Error) and not is_cancelled(handled.error):
            # Views that fail are answered by the app; this is an error handler of the user's, or the like.
            log.error("%s %r could not be handled", request.method, request.path, exc_info=handled.error)
            return failure_of(request)
        return handled.unwrap()

    def _timeout(self, response: ResponseTypes) -> float:
        timeout: float | None
        if isinstance(response, Response) and not isinstance(response.timeout, type(Ellipsis)):
            timeout = response.timeout
        elif self._stream is not None:
            timeout = None
        else:
            timeout = self.app.config["RESPONSE_TIMEOUT"]
        return inf if timeout is None else timeout

    async def _send_answer(self, send: ASGISendCallable, response: ResponseTypes) -> None:
        if isinstance(response, WerkzeugResponse) or isinstance(response.response, DataBody | StreamBody):
            await self._send_body(send, response)
        else:
            # Perhaps a generator of the user's.
            unwrap(await contain(self._send_body, send, response))

    async def _send_body(self, send: ASGISendCallable, response: ResponseTypes) -> None:
        if isinstance(response, WerkzeugResponse):
            await self._send_start(send, response)
            for data in response.response:
                await self._send_data(send, data)
        else:
            # Entered before anything is sent, so that it is left whatever happens to the sending.
            async with response.response as body:
                await self._send_start(send, response)
                if isinstance(body, StreamBody) and self.scope["method"] != "HEAD":
                    body.writer = direct_writer_of(self.scope, send)
                # Nobody gets what a stream says to HEAD, and it could take for ever.
                if self.scope["method"] != "HEAD" or isinstance(body, DataBody):
                    async for data in body:
                        await self._send_data(send, data)

    async def _send_start(self, send: ASGISendCallable, response: ResponseTypes) -> None:
        start: HTTPResponseStartEvent = {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": encode_headers(response.headers),
        }
        self._started = True
        await send(start)

    async def _send_data(self, send: ASGISendCallable, data: bytes | str) -> None:
        body = data.encode() if isinstance(data, str) else data
        message: HTTPResponseBodyEvent = {"type": "http.response.body", "body": body, "more_body": True}
        await send(message)

    async def _send_end(self, send: ASGISendCallable) -> None:
        end: HTTPResponseBodyEvent = {"type": "http.response.body", "body": b"", "more_body": False}
        self._ending = True
        self._responding.shield = True
        if self._left:
            self._say_goodbye()
        await send(end)

    def _say_goodbye(self) -> None:
        """The server leaves: bound what is shielded, and have the stream end by itself."""
        if self._responding.cancel_called:
            return
        if self._stream is not None and not self._ending:
            stream, self._stream = self._stream, None
            try:
                stream.wind_down()
            except Exception:
                log.exception("%s.wind_down() failed; the response is cut", type(stream).__name__)
                self._bound(0)
        self._bound(self._wind_down_timeout())

    def _wind_down_timeout(self) -> float:
        if self.scope["http_version"] == "2" and not getattr(self.app, "launched", False):
            # Hypercorn's own server has cancelled the connection's sending task together with us: nothing
            # that is said from here on would leave the process. Our server cancels the requests only.
            return 0
        timeout: float = getattr(self.app, "wind_down_timeout", WIND_DOWN_TIMEOUT)
        return timeout

    def _cut(self) -> None:
        """Break the response off. Over HTTP/1.1 a write that is stuck in the kernel ends with its socket only."""
        log.info("A client does not read, and is cut off: %s %r", self.scope["method"], self.scope["path"])
        self._was_cut = True
        self._responding.cancel(reason="the client does not read")
        extensions: Mapping[str, Any] = self.scope.get("extensions") or {}
        if ABORT in extensions and self.scope["http_version"] != "2":
            extensions[ABORT]()

    async def _end_cut(self, send: ASGISendCallable) -> None:
        """Behind what is on its way the stream ends: its client may yet read that, and must not wait for more."""
        end: HTTPResponseBodyEvent = {"type": "http.response.body", "body": b"", "more_body": False}
        with trio.move_on_after(CUT_PATIENCE):
            await send(end)

    def _bound(self, seconds: float) -> None:
        self._responding.deadline = min(self._responding.deadline, trio.current_time() + seconds)
