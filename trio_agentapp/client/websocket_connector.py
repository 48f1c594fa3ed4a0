"""Opens WebSockets to nodes, and translates the errors if that fails."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson
import trio
from trio_websocket import CloseReason, ConnectionRejected, WebSocketConnection, wrap_client_stream

from ..errors import AgentAppError, Forbidden, NotFound, RequestError, Unauthorized, UnexpectedAnswer
from ..protocol.trace_context import trace_headers
from .failures import ConnectionFailed, connection_failed
from .nodes import Nodes
from .responses import error_of_problem

__all__ = ["SUBPROTOCOL", "WebSocketConnector", "close_text", "error_of_close", "error_of_exception"]

SUBPROTOCOL = "trio-agentapp.v1"

MAX_FRAME = 256 * 1024 * 1024
"""Bytes of one message. The last event of a run repeats its whole output, so messages can be large."""

REFUSALS: dict[int, type[RequestError]] = {4401: Unauthorized, 4403: Forbidden}
STATUSES: dict[int, type[RequestError]] = {401: Unauthorized, 403: Forbidden, 404: NotFound}


class WebSocketConnector:
    """Opens WebSockets to nodes.

    Args:
        silence: seconds without a message, pongs included, after which a socket counts as failed.

    `needs_init`: without `Authorization`, a server with an `authenticate` hook waits for the first message, and the
    client for `ready`.
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
        self.nodes = nodes
        self.connect_timeout = connect_timeout
        self.silence = silence
        self._path = path
        self._headers = _encoded(headers)
        self.needs_init = not any(name.lower() == "authorization" for name in headers)
        self._ssl_context = ssl_context

    async def open_stream(self, node: int) -> trio.abc.Stream:
        """Open a TCP or TLS connection to a node."""
        parts = urlsplit(self.nodes.urls[node])
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
        """Open a WebSocket over a stream. The caller closes the stream: trio-websocket does not close a stream
        whose server has closed the socket.
        """
        parts = urlsplit(self.nodes.urls[node])
        upgrading = _UpgradingStream(stream)
        socket = await wrap_client_stream(
            nursery,
            upgrading,  # type: ignore[arg-type]  # any stream will do
            parts.netloc.rpartition("@")[2],
            parts.path + self._path,
            subprotocols=[SUBPROTOCOL],
            extra_headers=[*self._headers, *_encoded(trace_headers())],
            message_queue_size=64,
            max_message_size=MAX_FRAME,
            receive_buffer_size=None,
        )
        upgrading.upgraded = True
        return socket


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


class _UpgradingStream(trio.abc.Stream):
    """A stream that raises if it ends before its upgrade: trio-websocket would wait for an answer forever."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.upgraded = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError as error:
            if self.upgraded:
                raise
            # It is most likely a TLS alert, which trio-websocket would treat as a close.
            raise connection_failed(error) from error
        if not data and not self.upgraded:
            raise ConnectionFailed("the server closed the connection", sent=False)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


def error_of_exception(error: BaseException) -> ConnectionFailed | AgentAppError:
    """Translate an exception of trio-websocket or of the network.

    Exceptions of this package are returned unchanged.
    """
    if isinstance(error, ConnectionFailed | AgentAppError):
        return error
    if not isinstance(error, ConnectionRejected):
        return connection_failed(error)
    document = _problem(error.body)
    if document is not None:
        return error_of_problem(document)
    if (refusal := STATUSES.get(error.status_code)) is not None:
        return refusal()
    if error.status_code >= 500:
        return ConnectionFailed(f"the server answered {error.status_code}", sent=False)
    return UnexpectedAnswer(f"the server answered {error.status_code} to a WebSocket")


def _problem(body: bytes | None) -> dict[str, Any] | None:
    try:
        document = orjson.loads(body or b"")
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) and "code" in document else None


def error_of_close(reason: CloseReason | None) -> RequestError | ConnectionFailed:
    """Return the error of a socket that was closed before it was ready."""
    if reason is not None and (refusal := REFUSALS.get(reason.code)) is not None:
        return refusal(reason.reason or "")
    return ConnectionFailed(close_text(reason), sent=False)


def close_text(reason: CloseReason | None) -> str:
    if reason is None:
        return "the socket was closed"
    text = f": {reason.reason}" if reason.reason else ""
    return f"the socket was closed with {reason.code}{text}"
