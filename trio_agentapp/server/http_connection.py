"""One HTTP request: sends its response, and decides what may end it, and when. Four things can end a request:

- The client hangs up. The handling is cancelled at once.
- The response is complete. Its last message closes or recycles the connection, and must not be cancelled; but
  Hypercorn reports `http.disconnect` to the very task that is sending it, and quart-trio then cancels that task.
  So from the last message on a disconnect cancels nothing (perhaps issue 330 of github.com/pgjones/hypercorn).
- The server shuts down. Hypercorn cancels the request without a message. A cancel without a disconnect therefore
  means shutdown, and a stream may still send its last frames.
- The body raises. The error is logged here. Over HTTP/2 Hypercorn would not end the stream, and the client would
  wait.

Only `HTTPConnection.take` uses quart-trio 0.12's API for request bodies, which 0.13 changes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, NoReturn

import trio
from hypercorn.typing import (
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    HTTPResponseBodyEvent,
    HTTPResponseStartEvent,
    HTTPScope,
)
from outcome import Error
from quart import Quart
from quart.typing import ResponseTypes
from quart.wrappers import Request, Response
from quart.wrappers.response import DataBody
from quart_trio.asgi import TrioASGIHTTPConnection
from werkzeug.wrappers import Response as WerkzeugResponse

from ..refusals import note_refusal
from ..runs.containment import contain, unwrap
from ..runs.failures import is_cancelled
from .direct import direct_writer_of
from .extensions import ABORT, extension
from .messages import messages_of
from .problems import assign_request_id, internal_error
from .stream_body import WIND_DOWN_TIMEOUT, StreamBody

__all__ = ["HTTPConnection"]

log = logging.getLogger("trio_agentapp.server")
access = logging.getLogger("trio_agentapp.access")

CHOSEN_IDS = frozenset({"session_id", "chat_id", "user_id"})
"""Parameters of paths that are not logged. Clients choose their values, which may be names of people."""

CUT_TIMEOUT = 0.1
"""Seconds to send the end of an HTTP/2 stream that was cut off because its client does not read."""

CLOSE_TIMEOUT = 5.0
"""Seconds to close when the peer has gone. This is local work, except for TLS and for a reset HTTP/2 stream."""

MAX_NAMES = 256
"""Names and values of headers that are encoded once and shared by all responses, at most."""

_encoded_name = lru_cache(MAX_NAMES)(lambda name: name.lower().encode())

_encoded_value = lru_cache(MAX_NAMES)(str.encode)

LIMITS = {408: "body_time", 413: "body"}
"""Statuses that mean that one limit was reached, with the name of the limit.

They are counted here, because each protocol makes its own responses.
"""

END: HTTPResponseBodyEvent = {"type": "http.response.body", "body": b"", "more_body": False}


class HTTPConnection(TrioASGIHTTPConnection):
    """The `asgi_http_class` of the app.

    The view runs, and its response is sent, in the request's own task. This server passes it the messages of ASGI.
    Under a server that does not, a child task receives them.
    """

    def __init__(self, app: Quart, scope: HTTPScope, answer: Callable[[], Response] | None = None) -> None:
        """`answer` makes the response in place of the app."""
        super().__init__(app, scope)
        self._answer = answer
        self._responding = trio.CancelScope()
        self._stream: StreamBody | None = None
        self._started = False
        self._status = 0
        self._ending = False
        self._shutting_down = False
        self._was_cut = False
        self._received_all = False

    # Not `async`, like some functions below: the frame of a coroutine would take memory as long as a stream lasts.
    def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> Coroutine[Any, Any, None]:
        assign_request_id(self.app)
        self._request = self.request_from_scope(send)
        messages = messages_of(self.scope, receive)
        if messages is None:
            answering = self._respond_and_watch(receive, send)
        else:
            messages.pass_to(self)
            answering = self._respond_in_scope(send)
        return self._logged(answering) if getattr(self.app, "access_log", False) else answering

    async def _logged(self, answering: Coroutine[Any, Any, None]) -> None:
        """Log the request at its end. The query and `CHOSEN_IDS` in the path may be private, and are left out."""
        began_at = trio.current_time()
        request = self._request
        try:
            await answering
        finally:
            client = self.scope.get("client")
            access.info(
                "%s %s from %s: %s in %.3f s",
                self.scope["method"],
                self._shown_path(request),
                client[0] if client else "?",
                self._status or "no answer",
                trio.current_time() - began_at,
            )

    def _shown_path(self, request: Request) -> str:
        """Return the path for the log. It is the pattern of the route if the path has an id that clients choose."""
        rule, values = request.url_rule, request.view_args or {}
        return rule.rule if rule is not None and not CHOSEN_IDS.isdisjoint(values) else self.scope["path"]

    async def _respond_and_watch(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        async with trio.open_nursery() as nursery:
            receiving = trio.CancelScope()
            nursery.start_soon(self._watch, receive, receiving)
            try:
                await self._respond_in_scope(send)
            finally:
                receiving.cancel(reason="the response is over")

    def request_from_scope(self, send: ASGISendCallable) -> Request:
        return self._create_request_from_scope(send)

    async def _watch(self, receive: ASGIReceiveCallable, receiving: trio.CancelScope) -> None:
        """Receive messages in a task. Used if the server does not pass them to a `Listener` (see `messages`)."""
        with receiving:
            try:
                await self._receive(receive)
            except trio.Cancelled:
                if receiving.cancel_called:
                    raise
                self.shut_down()
                if not self._responding.shield:
                    raise
                # The client may still hang up before the response is complete.
                receiving.shield = True
                await self._receive(receive)

    async def _receive(self, receive: ASGIReceiveCallable) -> NoReturn:
        message = None
        while message is None or message["type"] != "http.disconnect":
            message = await receive()
            self.take(message)
        # No message follows. Wait here, to notice when the server cancels this request.
        await trio.sleep_forever()

    def take(self, message: ASGIReceiveEvent) -> None:
        """Receive a part of the request's body, or the disconnect of the client. Implements `Listener`."""
        if message["type"] == "http.request":
            self._request.body.append(message.get("body", b""))
            if not message.get("more_body", False):
                self._received_all = True
                self._request.body.set_complete()
        elif message["type"] == "http.disconnect":
            if self._ending:
                self._limit(CLOSE_TIMEOUT)
            else:
                self._responding.cancel(reason="the client disconnected")

    def shut_down(self) -> None:
        """Wind the response down, because the server cancels this request. Implements `Listener`."""
        self._shutting_down = True
        if self._responding.shield:
            self._wind_down()

    async def _respond_in_scope(self, send: ASGISendCallable) -> None:
        try:
            with self._responding:
                await self._respond(self._request, send)
            if self._was_cut and self.scope["http_version"] == "2":
                await self._end_cut(send)
        finally:
            # The request and the body refer to this connection. Without these cycles, memory is freed at once.
            del self._request
            self._stream = None

    async def _respond(self, request: Request, send: ASGISendCallable) -> None:
        response = await self._handle(request)
        stream = response.response if isinstance(response, Response) else None
        if isinstance(stream, StreamBody):
            # There is no checkpoint between the view's return and this, so a body that was made is always entered
            # and left.
            self._stream = stream
            stream.bind(self._cut)
            self._responding.shield = True
            if self._shutting_down:
                self._wind_down()
        complete = False
        try:
            with self._limit_of(response):
                await self._send_answer(send, response)
                complete = True
        except* Exception:
            if not self._started:
                raise
            log.exception("The response to %s %r failed half-way", request.method, request.path)
        # HTTP/1.1 shows an incomplete response by closing. Over HTTP/2 Hypercorn sends nothing, and the client
        # would wait for ever, so the stream is ended normally.
        if complete or (self._started and self.scope["http_version"] == "2"):
            await self._send_end(send)

    async def _handle(self, request: Request) -> ResponseTypes:
        """Let the app make the response. Views and hooks are user code, and run in a task of their own."""
        if self._answer is not None:
            return self._answer()
        handled = await contain(self.app.handle_request, request, name=f"{request.method} {request.path}")
        if isinstance(handled, Error) and not is_cancelled(handled.error):
            # The app turns errors of views into responses. So this error comes from elsewhere, such as a user's
            # error handler.
            log.error("%s %r could not be handled", request.method, request.path, exc_info=handled.error)
            return internal_error(self.scope["path"])
        return handled.unwrap()

    def _limit_of(self, response: ResponseTypes) -> AbstractContextManager[object]:
        """Return the scope with the time-out of a response."""
        timeout: float | None
        if isinstance(response, Response) and not isinstance(response.timeout, type(Ellipsis)):
            timeout = response.timeout
        elif self._stream is not None:
            timeout = None  # a stream lasts as long as its run; Quart would cut it after a minute, without an error
        else:
            timeout = self.app.config["RESPONSE_TIMEOUT"]
        return nullcontext() if timeout is None else trio.move_on_after(timeout)

    def _send_answer(self, send: ASGISendCallable, response: ResponseTypes) -> Coroutine[Any, Any, None]:
        if isinstance(response, WerkzeugResponse) or isinstance(response.response, DataBody | StreamBody):
            return self._send_body(send, response)
        # The body may be a generator of the user.
        return self._send_contained(send, response)

    async def _send_contained(self, send: ASGISendCallable, response: Response) -> None:
        unwrap(await contain(self._send_body, send, response))

    async def _send_body(self, send: ASGISendCallable, response: ResponseTypes) -> None:
        if isinstance(response, WerkzeugResponse):
            await self._send_start(send, response)
            for data in response.response:
                await self._send_data(send, data)
        else:
            # Enter the body before anything is sent, so that it is left also if sending fails.
            async with response.response as body:
                head_only = self.scope["method"] == "HEAD"
                stream = body if isinstance(body, StreamBody) and not head_only else None
                writer = None if stream is None else direct_writer_of(self.scope, send)
                if stream is not None and writer is not None and stream.begins_at_once:
                    writer.hold_head()
                start = await self._send_start(send, response)
                if stream is not None:
                    stream.writer = writer
                if writer is not None:
                    # The headers are sent. The response and `start` live as long as the stream, and would keep a
                    # KiB of headers.
                    response.headers.clear()
                    start["headers"] = ()
                del start
                # A response to HEAD has no body, and a stream could last for ever.
                if head_only and not isinstance(body, DataBody):
                    return
                async for data in body:
                    if writer is not None:
                        await writer.write_all(data)
                    else:
                        await self._send_data(send, data)

    async def _send_start(self, send: ASGISendCallable, response: ResponseTypes) -> HTTPResponseStartEvent:
        headers = [(_encoded_name(name), _encoded_value(value)) for name, value in response.headers.items()]
        if not self._received_all and self.scope["http_version"] != "2" and self._has_body():
            # The connection will be closed, because the rest of the body comes before the next request. Without
            # this header a proxy would send its next request on this connection, and answer 502.
            headers.append((b"connection", b"close"))
        start: HTTPResponseStartEvent = {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": headers,
        }
        self._started = True
        self._status = response.status_code
        if self._status in LIMITS:
            note_refusal(LIMITS[self._status])
        await send(start)
        return start

    def _has_body(self) -> bool:
        headers = self._request.headers
        return "Transfer-Encoding" in headers or headers.get("Content-Length", "0") != "0"

    async def _send_data(self, send: ASGISendCallable, data: bytes | str) -> None:
        body = data.encode() if isinstance(data, str) else data
        message: HTTPResponseBodyEvent = {"type": "http.response.body", "body": body, "more_body": True}
        await send(message)

    async def _send_end(self, send: ASGISendCallable) -> None:
        self._ending = True
        self._responding.shield = True
        if self._shutting_down:
            self._wind_down()
        await send(END)

    def _wind_down(self) -> None:
        """Limit the time of the response, and ask a stream to end, because the server shuts down."""
        if self._responding.cancel_called:
            return
        if self._stream is not None and not self._ending:
            stream, self._stream = self._stream, None
            try:
                stream.wind_down()
            except Exception:
                log.exception("%s.wind_down() failed; the response is cut off", type(stream).__name__)
                self._limit(0)
        self._limit(self._wind_down_timeout())

    def _wind_down_timeout(self) -> float:
        if self.scope["http_version"] == "2" and not getattr(self.app, "launched", False):
            # Hypercorn's own server cancels the sending task of the connection together with this request, so no
            # more bytes can be sent. The server of this package cancels only the requests.
            return 0
        timeout: float = getattr(self.app, "wind_down_timeout", WIND_DOWN_TIMEOUT)
        return timeout

    def _cut(self) -> None:
        """Cut the response off. Over HTTP/1.1 only closing the socket ends a write that is blocked."""
        log.info(
            "A client does not read its response and is disconnected: %s %r",
            self.scope["method"],
            self.scope["path"],
        )
        note_refusal("unread_time")
        self._was_cut = True
        self._responding.cancel(reason="the client does not read")
        abort = extension(self.scope, ABORT)
        if abort is not None and self.scope["http_version"] != "2":
            abort()

    async def _end_cut(self, send: ASGISendCallable) -> None:
        """End the HTTP/2 stream after the bytes in its buffer: a client that reads again must not wait for more."""
        with trio.move_on_after(CUT_TIMEOUT):
            await send(END)

    def _limit(self, seconds: float) -> None:
        self._responding.deadline = min(self._responding.deadline, trio.current_time() + seconds)
