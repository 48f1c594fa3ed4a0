"""Opening WebSockets: how a node is reached, and what a failure on the way means."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson
import trio
from trio_websocket import CloseReason, ConnectionRejected, WebSocketConnection, wrap_client_stream

from ..errors import AgentAppError, Forbidden, NotFound, RequestError, Unauthorized, UnexpectedAnswer
from .answers import error_of_problem, translated
from .feed import Cut
from .nodes import Nodes

__all__ = ["SUBPROTOCOL", "Dialer", "leaves", "ours", "refusal_of", "told"]

SUBPROTOCOL = "trio-agentapp.v1"

MAX_FRAME = 256 * 1024 * 1024
"""Bytes of one message. The last event of a run repeats its whole output, so they can be large."""

REFUSALS: dict[int, type[RequestError]] = {4401: Unauthorized, 4403: Forbidden}
STATUSES: dict[int, type[RequestError]] = {401: Unauthorized, 403: Forbidden, 404: NotFound}


class Dialer:
    """Opens WebSockets to nodes.

    Args:
        silence: seconds without a message, answers to our pings included, after which a socket counts as cut.
    """

    def __init__(
        self,
        nodes: Nodes,
        *,
        path: str,
        headers: Mapping[str, str],
        connect_timeout: float,
        silence: float,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self._nodes = nodes
        self._path = path
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self.connect_timeout = connect_timeout
        self.silence = silence
        self._ssl_context = ssl_context

    def url(self, node: int) -> str:
        return self._nodes.urls[node]

    async def open_stream(self, node: int) -> trio.abc.Stream:
        parts = urlsplit(self._nodes.urls[node])
        host = parts.hostname or ""
        if parts.scheme == "http":
            return await trio.open_tcp_stream(host, parts.port or 80)
        context = self._ssl_context or ssl.create_default_context()
        stream = await trio.open_ssl_over_tcp_stream(
            host, parts.port or 443, https_compatible=True, ssl_context=context
        )
        try:
            await stream.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream

    async def upgrade(self, node: int, stream: trio.abc.Stream, nursery: trio.Nursery) -> WebSocketConnection:
        """A WebSocket over a stream of ours, since trio-websocket leaves those open that the server has closed."""
        parts = urlsplit(self._nodes.urls[node])
        upgrading = _Upgrading(stream)
        socket = await wrap_client_stream(
            nursery,
            upgrading,  # type: ignore[arg-type]  # any stream will do
            parts.netloc.rpartition("@")[2],
            parts.path + self._path,
            subprotocols=[SUBPROTOCOL],
            extra_headers=list(self._headers),
            message_queue_size=64,
            max_message_size=MAX_FRAME,
            receive_buffer_size=None,
        )
        upgrading.done = True
        return socket


class _Upgrading(trio.abc.Stream):
    """A stream that does not end quietly before its upgrade: trio-websocket would go on waiting for an answer."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.done = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._stream.receive_some(max_bytes)
        if not data and not self.done:
            raise Cut("the server hung up", sent=False)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


def leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for below in error.exceptions:
            yield from leaves(below)
    else:
        yield error


def ours(error: BaseException) -> Cut | AgentAppError:
    """Nothing of trio-websocket leaves."""
    if isinstance(error, Cut | AgentAppError):
        return error
    if not isinstance(error, ConnectionRejected):
        return translated(error)
    document = _document(error.body)
    if document is not None:
        return error_of_problem(document)
    if (refusal := STATUSES.get(error.status_code)) is not None:
        return refusal()
    if error.status_code >= 500:
        return Cut(f"the server answered {error.status_code}", sent=False)
    return UnexpectedAnswer(f"the server answered {error.status_code} to a WebSocket")


def _document(body: bytes | None) -> dict[str, Any] | None:
    try:
        document = orjson.loads(body or b"")
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) and "code" in document else None


def refusal_of(reason: CloseReason | None) -> RequestError | Cut:
    """Why a socket was closed before it was ready."""
    if reason is not None and (refusal := REFUSALS.get(reason.code)) is not None:
        return refusal(reason.reason or "")
    return Cut(told(reason), sent=False)


def told(reason: CloseReason | None) -> str:
    if reason is None:
        return "the socket was closed"
    words = f": {reason.reason}" if reason.reason else ""
    return f"the socket was closed with {reason.code}{words}"
