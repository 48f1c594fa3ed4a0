"""Heads of HTTP/1.1 responses are those of h11, byte for byte."""

from __future__ import annotations

from itertools import product

import h11
import pytest
from hypercorn.config import Config
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from trio_agentapp.server.http1_protocol import HTTP11

PLAIN = [(b"content-type", b"text/event-stream"), (b"x-run-id", b"r1")]
FRAMED = ([], [(b"Content-Length", b"3")], [(b"Connection", b"Keep-Alive")], [(b"Transfer-Encoding", b"chunked")])


def connection_of(protocol: type[H11Protocol]) -> h11.Connection:
    made = protocol(None, Config(), WorkerContext(None), None, ConnectionState({}), False, None, None, None)  # type: ignore[arg-type]
    assert isinstance(made.connection, h11.Connection)
    return made.connection


def sent(connection: h11.Connection, request: bytes, status: int, headers: list[tuple[bytes, bytes]]) -> object:
    """The head, what h11 makes of a part of the body, and how the connection stands after the end."""
    connection.receive_data(request)
    while connection.next_event() not in (h11.PAUSED, h11.NEED_DATA):
        pass
    head = connection.send(h11.Response(status_code=status, headers=headers))
    try:
        body = connection.send(h11.Data(data=b"abc"))
        end = connection.send(h11.EndOfMessage())
    except h11.LocalProtocolError as error:
        body, end = str(error).encode(), b""
    return head, body, end, connection.our_state


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "DELETE"])
def test_a_head_is_what_h11_makes_of_it(method: str) -> None:
    for version, close, status, framed in product(("1.0", "1.1"), (False, True), (200, 204, 304, 500), FRAMED):
        head = f"{method} / HTTP/{version}\r\nHost: a\r\n{'Connection: close' if close else 'X-A: b'}\r\n\r\n"
        expected = sent(connection_of(H11Protocol), head.encode(), status, PLAIN + framed)
        assert sent(connection_of(HTTP11), head.encode(), status, PLAIN + framed) == expected


def test_a_header_that_would_forge_another_one_is_refused() -> None:
    with pytest.raises(h11.LocalProtocolError):
        sent(connection_of(HTTP11), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200, [(b"x-a", b"b\r\nx-c: d")])
