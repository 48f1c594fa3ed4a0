"""Requests to agents over HTTP, with bounds: an agent may be broken, or hostile."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import httpx
import trio

from ...errors import A2AError, AgentAppError, ConfigurationError, ConnectionLost, UnexpectedAnswer
from ...protocol.exact_json import exact_loads
from ...protocol.payload import json_bytes
from ...protocol.sse_reader import FrameTooLarge, SSEReader
from .bindings import Binding, Call

__all__ = ["MAYBE", "Bounds", "Http", "Results", "StreamBroken", "was_sent"]

MAX_REFUSAL = 64 * 1024
"""Bytes that are read of the body of a refusal."""

CLOSE_WITHIN = 2.0
"""Seconds for closing a connection."""

NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)

MAYBE = "; the request may have been executed"

WAITING = 1
"""Pieces of a stream that wait for their reader. The connection is not read further."""


class StreamBroken(Exception):
    """A stream ended in its middle, or no byte came for too long. Users see ConnectionLost.

    `sent`: the agent may have got the request, so its task may go on.
    """

    def __init__(self, reason: str, *, sent: bool = True) -> None:
        super().__init__(reason)
        self.sent = sent


@attrs.frozen(kw_only=True)
class Bounds:
    """What an agent may cost. Bytes and seconds."""

    max_body: int
    max_stream: int
    connect_timeout: float
    silence: float


class Results:
    """The results of one streamed answer, in pieces as they arrived. A task of the client reads the connection."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[list[Any]](WAITING)
        self._scope = trio.CancelScope(shield=True)
        self._closed = trio.Event()
        self._failure: Exception | None = None

    async def receive(self) -> list[Any]:
        """Return the next results; an empty list after the last.

        Raises StreamBroken, and A2AError or UnexpectedAnswer.
        """
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            if self._failure is not None:
                raise self._failure from None
            return []

    async def aclose(self) -> None:
        """End the task that reads, and wait for its end."""
        self._scope.cancel(reason="the reader of this stream left")
        with trio.CancelScope(shield=True):
            await self._closed.wait()
        self._receive.close()

    async def fill(self, read: Callable[[Callable[[list[Any]], Awaitable[object]]], Awaitable[object]]) -> None:
        """Pass on what `read(send)` sends. Shielded: only `aclose` ends it."""
        try:
            with self._scope:
                await read(self._send.send)
        except (StreamBroken, AgentAppError) as error:
            self._failure = error
        finally:
            self._send.close()
            self._closed.set()


class Http:
    """Sends requests, and reads no more of an answer than the bounds allow. Redirects are not followed.

    `headers`: of every request. They may have credentials, so they are sent to the agent alone.
    """

    def __init__(
        self, bounds: Bounds, headers: Mapping[str, str], *, ssl_context: ssl.SSLContext | None, direct: bool
    ) -> None:
        self._bounds = bounds
        try:
            self._client = httpx.AsyncClient(
                headers={"Accept-Encoding": "identity", **headers},
                timeout=httpx.Timeout(bounds.silence, connect=bounds.connect_timeout, pool=None),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
                verify=True if ssl_context is None else ssl_context,
                follow_redirects=False,
                # A proxy would connect to its own loopback address.
                trust_env=not direct,
            )
        except (ImportError, ValueError, OSError, httpx.InvalidURL) as error:
            raise ConfigurationError(
                f"the proxies or certificates that the environment names cannot be used: {error}"
            ) from error

    async def __aenter__(self) -> Http:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        with trio.move_on_after(CLOSE_WITHIN, shield=True):
            await self._client.aclose()

    async def document(self, call: Call, headers: Mapping[str, str], binding: Binding | None = None) -> Any:
        """Send a request, and return the JSON of its answer.

        Raises:
            A2AError: refused. ConnectionLost: no answer. UnexpectedAnswer: it is not JSON, or too large.
        """
        try:
            async with self._sent(call, {"Accept": "application/json", **headers}) as response:
                await _check_status(response, binding)
                return _json(await _body(response, self._bounds.max_body))
        except httpx.TransportError as error:
            sent = MAYBE if was_sent(error) else ""
            raise ConnectionLost(f"{call.url}: {_reason(error)}{sent}") from error

    async def stream(
        self,
        call: Call,
        headers: Mapping[str, str],
        binding: Binding,
        send: Callable[[list[Any]], Awaitable[object]],
    ) -> None:
        """Send a request, and pass on the results of its stream as they arrive; an answer in one piece has one.

        Raises:
            A2AError, UnexpectedAnswer: as `document`. StreamBroken: the connection failed.
        """
        try:
            async with self._sent(call, {"Accept": "text/event-stream", **headers}) as response:
                await _check_status(response, binding)
                kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
                if kind == "text/event-stream":
                    await self._read(response, binding, send)
                else:
                    await send([binding.result(_json(await _body(response, self._bounds.max_body)))])
        except httpx.TransportError as error:
            raise StreamBroken(f"{call.url}: {_reason(error)}", sent=was_sent(error)) from error

    async def _read(
        self, response: httpx.Response, binding: Binding, send: Callable[[list[Any]], Awaitable[object]]
    ) -> None:
        reader = SSEReader(self._bounds.max_body)
        size = 0
        async with _pieces(response) as pieces:
            async for piece in pieces:
                size += len(piece)
                if size > self._bounds.max_stream:
                    raise UnexpectedAnswer(
                        f"the agent sent more than {self._bounds.max_stream} bytes in one stream"
                    )
                found, failure = _results(reader, piece, binding)
                if found:
                    await send(found)
                if failure is not None:
                    raise failure

    @asynccontextmanager
    async def _sent(self, call: Call, headers: Mapping[str, str]) -> AsyncIterator[httpx.Response]:
        content = None if call.body is None else json_bytes(call.body)
        try:
            request = self._client.build_request(
                call.method,
                call.url,
                params=call.query or None,
                content=content,
                headers={**headers, **({} if content is None else {"Content-Type": "application/json"})},
            )
        except (httpx.InvalidURL, UnicodeError) as error:
            # UnicodeError: what looks like the name of a host is none in IDNA.
            raise UnexpectedAnswer(f"the agent's URL {call.url!r:.200} cannot be used: {error}") from error
        response = await self._client.send(request, stream=True)
        try:
            if response.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
                raise UnexpectedAnswer("the agent compressed its answer, which the client did not allow")
            yield response
        finally:
            with trio.move_on_after(CLOSE_WITHIN, shield=True), suppress(httpx.TransportError):
                await response.aclose()


def was_sent(error: BaseException | None) -> bool:
    """Whether a request may have arrived although it failed with this error of httpx."""
    return not isinstance(error, NEVER_SENT)


def _results(reader: SSEReader, piece: bytes, binding: Binding) -> tuple[list[Any], AgentAppError | None]:
    """The results that are complete with a piece, and the error behind them, if there is one."""
    found: list[Any] = []
    try:
        for frame in reader.feed(piece):
            found.append(binding.result(_json(frame.data)))
    except FrameTooLarge as error:
        return found, UnexpectedAnswer(str(error))
    except (A2AError, UnexpectedAnswer) as error:
        return found, error
    return found, None


@asynccontextmanager
async def _pieces(response: httpx.Response) -> AsyncIterator[AsyncIterator[bytes]]:
    pieces = response.aiter_raw()
    try:
        yield pieces
    finally:
        # httpx has generators in generators, and closing the outer one leaves the inner ones to the garbage
        # collector. A read that is cancelled ends all of them.
        with trio.CancelScope(shield=True) as scope, suppress(httpx.HTTPError):
            scope.cancel(reason="nothing more is read")
            async for _ in pieces:
                pass


async def _check_status(response: httpx.Response, binding: Binding | None) -> None:
    if response.status_code == 200:
        return
    if response.is_redirect:
        place = response.headers.get("location", "")[:200]
        raise UnexpectedAnswer(f"{response.url} redirects to {place!r}, and redirects are not followed")
    failure = None
    if binding is not None:
        with suppress(UnexpectedAnswer):
            failure = binding.failure(_json(await _body(response, MAX_REFUSAL)))
    status = response.status_code
    if failure is None:
        failure = A2AError(f"{response.url} answered {status} {response.reason_phrase:.100}".rstrip())
    failure.status = status
    raise failure


async def _body(response: httpx.Response, limit: int) -> bytes:
    body = bytearray()
    async with _pieces(response) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) > limit:
                raise UnexpectedAnswer(f"{response.url} answered with more than {limit} bytes")
    return bytes(body)


def _json(raw: bytes) -> Any:
    try:
        return exact_loads(raw)
    except ValueError as error:
        raise UnexpectedAnswer(f"the agent sent something that is not JSON: {error}") from error


def _reason(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "no connection in time" if isinstance(error, NEVER_SENT) else "no answer in time"
    return str(error) or type(error).__name__
