"""How requests end: by the client, by the response, by the server, by a failure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
import trio

Start = Callable[..., Awaitable[Any]]

DISCONNECTS = ("close", "reset", "half-close")


class H2Client:
    """HTTP/2 by prior knowledge, over one of conftest's connections."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.events: list[h2.events.Event] = []
        self.connection.initiate_connection()

    async def flush(self) -> None:
        await self.stream.send_all(self.connection.data_to_send())

    async def get(self, path: str) -> int:
        number = self.connection.get_next_available_stream_id()
        headers = [(":method", "GET"), (":path", path), (":scheme", "http"), (":authority", "test")]
        self.connection.send_headers(number, headers, end_stream=True)
        await self.flush()
        return number

    async def read_until(self, kind: type[h2.events.Event], seconds: float = 8) -> None:
        with trio.fail_after(seconds):
            while not any(isinstance(event, kind) for event in self.events):
                data = await self.stream.receive_some(65536)
                if not data:
                    raise AssertionError(f"EOF after {self.events}")
                self.events += self.connection.receive_data(data)
                await self.flush()

    @property
    def body(self) -> bytes:
        received = (event for event in self.events if isinstance(event, h2.events.DataReceived))
        return b"".join(event.data for event in received)


@pytest.fixture(params=["launcher", "hypercorn"])
def under(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Both ways of serving; the arguments for `start_server`."""
    return ("--workers", "0", "--keep-alive", "1") if request.param == "hypercorn" else ()


async def test_finished_responses_close_or_recycle_the_connection(
    start_server: Start, under: tuple[str, ...]
) -> None:
    """Three ways to EOF, and the reuse in between."""
    server = await start_server(*under, server={"keep_alive_timeout": 1.0})
    async with server.connect() as client:
        await client.get("/plain", "Connection: close")
        assert (await client.read_to_eof(2)).endswith(b"hello")
    async with server.connect() as client:
        await client.get("/plain", version="1.0")
        assert (await client.read_to_eof(2)).endswith(b"hello")
    async with server.connect() as client:
        for count in (1, 2):
            await client.get("/plain")
            await client.read_until(b"hello", count)
        await client.read_to_eof(4)  # the keep-alive time-out, 1 s
    async with server.connect() as client:
        await client.get("/plain")
        await client.read_until(b"hello")
        started = trio.current_time()
        server.signal()
        assert await server.wait_exit() == 0
        assert trio.current_time() - started < 2.5, "an idle connection cost the graceful time-out"


@pytest.mark.parametrize("middleware", [False, True])
@pytest.mark.parametrize("how", DISCONNECTS)
@pytest.mark.parametrize(
    ("path", "begun", "ended"),
    [("/slow", "slow view entered", "slow view cancelled"), ("/stream", "body entered", "body cut")],
)
async def test_a_client_that_hangs_up_cancels_the_request(
    start_server: Start, how: str, path: str, begun: str, ended: str, middleware: bool
) -> None:
    """Whether the server passes messages to the request, or the request waits for them behind a middleware."""
    server = await start_server(middleware=middleware)
    async with server.connect() as client:
        await client.get(path)
        await server.wait_traced(begun)
        match how:
            case "close":
                await client.stream.aclose()
            case "reset":
                client.reset()
            case _:
                await client.stream.send_eof()
        await server.wait_traced(ended, seconds=1)
    assert "wind_down" not in server.trace


async def test_http2_streams_and_resets(start_server: Start) -> None:
    server = await start_server()
    async with server.connect() as client:
        h2_client = H2Client(client.stream)
        number = await h2_client.get("/stream")
        await h2_client.read_until(h2.events.DataReceived)
        h2_client.connection.reset_stream(number)
        await h2_client.flush()
        await server.wait_traced("body cut", seconds=1)
        await h2_client.get("/plain")
        await h2_client.read_until(h2.events.StreamEnded)
        assert h2_client.body.endswith(b"hello")


async def test_response_timeout_does_not_cut_streams(start_server: Start) -> None:
    """It still cuts a plain generator, which its client can see."""
    server = await start_server(response_timeout=0.3)
    async with server.connect() as client, server.connect() as other:
        await client.get("/stream")
        await other.get("/generator")
        assert not (await other.read_to_eof()).endswith(b"0\r\n\r\n")
        await client.read_until(b"tick", 50)


@pytest.mark.parametrize("path", ["/broken", "/generator"])
async def test_a_failure_half_way_ends_an_http2_stream(start_server: Start, path: str) -> None:
    """Both an exception and the response time-out."""
    server = await start_server(response_timeout=0.3)
    async with server.connect() as client:
        h2_client = H2Client(client.stream)
        await h2_client.get(path)
        await h2_client.read_until(h2.events.StreamEnded, seconds=3)
        assert h2_client.body.startswith((b"first", b"tick"))
    if path == "/broken":
        await server.wait_logged("ZeroDivisionError: broken body")
        assert "Error in ASGI Framework" not in server.log


async def test_a_failure_half_way_is_seen_over_http1(start_server: Start) -> None:
    server = await start_server()
    async with server.connect() as client:
        await client.get("/broken")
        answer = await client.read_to_eof()
        assert b"first" in answer
        assert not answer.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("workers", ["0", "1"])
async def test_hypercorn_sigterm_lets_streams_say_goodbye(start_server: Start, workers: str) -> None:
    """Without `http.disconnect` a cancel is the server leaving: the body winds down, its last frame is out."""
    server = await start_server("--workers", workers, "--graceful-timeout", "1", drain_timeout=0)
    async with server.connect() as client:
        await client.get("/stream?cleanup=0.5")
        await client.read_until(b"tick", 2)
        server.signal()
        answer = await client.read_to_eof()
        assert answer.endswith(b"goodbye\n\r\n0\r\n\r\n")
        assert await server.wait_exit() == 0
    assert server.trace.count("wind_down") == 1
    assert "body left" in server.trace


@pytest.mark.parametrize("middleware", [False, True])
@pytest.mark.parametrize("how", ["goodbye", "too slow"])
async def test_a_cancel_without_disconnect_winds_the_stream_down(
    start_server: Start, how: str, middleware: bool
) -> None:
    """The cancel of Hypercorn's own graceful time-out: its worker gets no signal, so no drain comes first."""
    server = await start_server(
        "--workers", "1", "--graceful-timeout", "0", wind_down_timeout=2, middleware=middleware
    )
    async with server.connect() as client:
        cleanup = "0.5" if how == "goodbye" else "60"
        await client.get(f"/stream?cleanup={cleanup}")
        await client.read_until(b"tick", 2)
        server.signal()
        await server.wait_traced("wind_down")
        started = trio.current_time()
        if how == "goodbye":
            assert (await client.read_to_eof()).endswith(b"goodbye\n\r\n0\r\n\r\n")
            await server.wait_traced("body left")
        else:
            await server.wait_traced("body cut")
            assert trio.current_time() - started > 1, "cut before the wind-down time-out"
    assert await server.wait_exit() == 0
    assert server.trace.count("wind_down") == 1


async def test_hypercorn_over_http2_does_not_wait_in_vain(start_server: Start) -> None:
    """Hypercorn cancels the HTTP/2 sender together with the request: the body is told, and not waited for."""
    server = await start_server("--workers", "1", "--graceful-timeout", "0")
    async with server.connect() as client:
        h2_client = H2Client(client.stream)
        await h2_client.get("/stream?cleanup=60")
        await h2_client.read_until(h2.events.DataReceived)
        server.signal()
        await server.wait_traced("body cut", seconds=3)
        assert "wind_down" in server.trace
        assert await server.wait_exit(5) == 0


async def test_expect_100_continue(start_server: Start) -> None:
    server = await start_server()
    async with server.connect() as client:
        head = "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        await client.stream.send_all(head.encode())
        await client.read_until(b"HTTP/1.1 100")
        await client.stream.send_all(b"ping")
        assert (await client.read_until(b"ping")).count(b"HTTP/1.1 200") == 1


async def test_a_body_in_parts_is_complete(start_server: Start) -> None:
    """Also behind a middleware, which receives the parts one by one."""
    for middleware in (False, True):
        server = await start_server(middleware=middleware)
        async with server.connect() as client:
            await client.stream.send_all(
                b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 500006\r\nConnection: close\r\n\r\n"
            )
            for number in range(5):
                await client.stream.send_all(b"%d" % number * 100_000)
            await client.stream.send_all(b"at end")
            answer = await client.read_to_eof()
        body = answer.partition(b"\r\n\r\n")[2]
        assert body == b"".join(b"%d" % number * 100_000 for number in range(5)) + b"at end"


async def test_pipelined_requests_get_their_answers(start_server: Start) -> None:
    server = await start_server()
    async with server.connect() as client:
        request = b"GET /plain HTTP/1.1\r\nHost: test\r\n\r\n"
        await client.stream.send_all(request * 3)
        assert (await client.read_until(b"hello", 3)).count(b"HTTP/1.1 200") == 3


async def test_a_pipelined_request_does_not_hide_a_disconnect_for_ever(start_server: Start) -> None:
    """A request behind the first one blocks Hypercorn's reader."""
    server = await start_server()
    async with server.connect() as client:
        await client.get("/stream")
        await client.get("/plain")
        await client.read_until(b"tick", 2)
        client.reset()
        await server.wait_traced("body cut", seconds=3)


async def test_an_early_answer_to_a_long_upload(start_server: Start) -> None:
    """The view does not read: what is uploaded must not block the end of the response."""
    server = await start_server()
    async with server.connect() as client:
        head = "GET /plain HTTP/1.1\r\nHost: test\r\nContent-Length: 900000\r\nConnection: close\r\n\r\n"
        with suppress(trio.BrokenResourceError):  # the server need not wait for the rest
            await client.stream.send_all(head.encode() + b"x" * 900_000)
            await client.read_to_eof(3)
    async with server.connect() as client:
        await client.get("/plain")
        await client.read_until(b"hello")


async def test_a_websocket_upgrade_with_a_trailing_byte_harms_nobody(start_server: Start) -> None:
    server = await start_server()
    upgrade = (
        "GET /ws HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    async with server.connect() as bystander, server.connect() as client:
        await bystander.get("/stream")
        await bystander.read_until(b"tick")
        await client.stream.send_all(upgrade.encode() + b"x")
        assert (await client.read_to_eof()).startswith(b"HTTP/1.1 400")
        seen = bystander.seen.count(b"tick")
        await bystander.read_until(b"tick", seen + 5)
