"""The serve loop: what it puts up with from clients, and how it ends."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import pytest
import trio

from trio_agentapp.server.config import BindError, ServerConfig

Start = Callable[..., Awaitable[Any]]


def h2_request(path: str) -> bytes:
    """All that an HTTP/2 client says that knows what it talks to, and does not listen."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration())
    connection.initiate_connection()
    headers = [(":method", "GET"), (":path", path), (":scheme", "http"), (":authority", "test")]
    connection.send_headers(1, headers, end_stream=True)
    return connection.data_to_send()


async def test_slow_headers_are_cut(start_server: Start) -> None:
    server = await start_server(read_timeout=0.5)
    async with server.connect() as slow, server.connect() as silent, server.connect() as quick:
        started = trio.current_time()
        await quick.get("/stream")
        await slow.stream.send_all(b"GET /plain HTTP/1.1\r\nHost: te")
        assert await silent.read_to_eof(3) == b""
        assert await slow.read_to_eof(3) == b""
        assert 0.3 < trio.current_time() - started < 2
        await quick.read_until(b"tick", 5)


async def test_later_requests_have_the_keep_alive_timeout(start_server: Start) -> None:
    server = await start_server(read_timeout=0.3, server={"keep_alive_timeout": 3.0})
    async with server.connect() as client:
        await client.get("/plain")
        await client.read_until(b"hello")
        with trio.move_on_after(0.8) as idle:
            await client.read_to_eof()
        assert idle.cancelled_caught, "closed by the time-out of the first headers"
        await client.get("/plain")
        await client.read_until(b"hello", 2)


async def test_a_client_that_stops_reading_does_not_hold_up_the_exit(start_server: Start) -> None:
    """Hypercorn shields the blocked write, without a bound."""
    options = {"graceful_timeout": 0.5, "force_close_after": 0.5}
    server = await start_server(server=options)
    async with server.connect() as client, server.connect() as healthy:
        client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await client.get("/flood")
        await client.read_until(b"HTTP/1.1 200")
        await healthy.get("/stream?cleanup=0.2")
        await healthy.read_until(b"tick", 30)  # long enough for the buffers of the other to be full
        server.signal()
        assert (await healthy.read_to_eof()).endswith(b"goodbye\n\r\n0\r\n\r\n")
        assert await server.wait_exit(8) == 0
    assert "Closing 1 connections by force" in server.log


async def test_it_does_not_hold_up_a_crash_either(start_server: Start) -> None:
    server = await start_server(server={"graceful_timeout": 0.3, "force_close_after": 0.3})
    async with server.connect() as client, server.connect() as other:
        client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await client.get("/flood")
        await client.read_until(b"HTTP/1.1 200")
        await other.get("/crash")
        assert await server.wait_exit(8) == 1


async def test_accepted_sockets_inherit_the_tcp_user_timeout() -> None:
    """T2 while serving: a peer that acknowledges nothing is found without our writing."""
    config = ServerConfig()
    config.bind = ["127.0.0.1:0"]
    config.tcp_user_timeout = 7.5
    [listener] = config.create_sockets().insecure_sockets
    try:
        listener.listen()
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7500
    finally:
        config.close_sockets()


async def test_sockets_are_bound_once() -> None:
    config = ServerConfig()
    config.bind = ["127.0.0.1:0"]
    try:
        assert config.create_sockets() is config.create_sockets()
    finally:
        config.close_sockets()


async def test_a_bind_error_names_the_address() -> None:
    config = ServerConfig()
    config.bind = ["192.0.2.1:8090"]  # a documentation address: nobody's
    with pytest.raises(BindError, match=r"Cannot listen on 192\.0\.2\.1:8090: Cannot assign"):
        config.create_sockets()


async def test_read_timeout_stays_off() -> None:
    """It would cut streams whose client has nothing to say."""
    assert ServerConfig().read_timeout is None


async def test_no_server_header(start_server: Start) -> None:
    server = await start_server()
    async with server.connect() as client:
        await client.get("/plain")
        assert b"hypercorn" not in await client.read_until(b"hello")


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made += ["-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost"]
    try:
        subprocess.run(made, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs the openssl command")
    return cert, key


@pytest.mark.parametrize("alpn", ["h2", "http/1.1"])
async def test_tls_with_both_protocols(start_server: Start, certificate: tuple[str, str], alpn: str) -> None:
    cert, key = certificate
    server = await start_server(certfile=cert, keyfile=key, server={"force_close_after": 1.0})
    assert f"https://127.0.0.1:{server.port}" in server.log
    context = ssl.create_default_context(cafile=cert)
    context.check_hostname = False
    context.set_alpn_protocols([alpn])
    async with server.connect() as client:
        stream = trio.SSLStream(client.stream, context, server_hostname="localhost", https_compatible=True)
        await stream.do_handshake()
        assert stream.selected_alpn_protocol() == alpn
        seen = b""
        if alpn == "h2":
            await stream.send_all(h2_request("/stream"))
        else:
            await stream.send_all(b"GET /stream HTTP/1.1\r\nHost: test\r\n\r\n")
        with trio.fail_after(8):
            while b"tick" not in seen:
                seen += await stream.receive_some(65536)
            server.signal()
            async for data in stream:
                seen += data
        assert b"goodbye" in seen
        assert await server.wait_exit() == 0


async def test_http2_streams_say_goodbye_under_our_server(start_server: Start) -> None:
    """The requests are cancelled, the connection that sends for them is not."""
    server = await start_server(server={"graceful_timeout": 0.2})
    async with server.connect() as client:
        await client.stream.send_all(h2_request("/watcher?cleanup=0.5"))
        await client.read_until(b"tick")
        server.signal()
        assert b"goodbye" in await client.read_to_eof()
        assert await server.wait_exit() == 0
    assert server.trace.count("wind_down") == 1


@pytest.mark.parametrize("pipelined", [False, True])  # the reader of a pipelined request sees no closing
async def test_a_stream_that_does_not_end_is_cut(start_server: Start, pipelined: bool) -> None:
    """Long before its own wind-down time-out, for the server is about to leave."""
    server = await start_server(server={"graceful_timeout": 0.2, "force_close_after": 0.3})
    async with server.connect() as client:
        await client.get("/watcher?cleanup=60")
        if pipelined:
            await client.get("/plain")
        await client.read_until(b"tick")
        started = trio.current_time()
        server.signal()
        await server.wait_traced("wind_down")
        await server.wait_traced("body cut")
        assert trio.current_time() - started < 3
        assert await server.wait_exit() == 0


async def test_a_stalled_http2_client_does_not_hold_up_the_exit(start_server: Start) -> None:
    """Its flow control window is shut: nothing is blocked in a write, the response waits."""
    server = await start_server(server={"graceful_timeout": 0.3, "force_close_after": 0.3})
    async with server.connect() as client:
        await client.stream.send_all(h2_request("/flood"))
        await client.read_until(b"x" * 1000)
        with trio.move_on_after(0.5):
            await client.read_to_eof()
        server.signal()
        assert await server.wait_exit(8) == 0


async def test_the_process_has_no_descriptors_left_over(start_server: Start) -> None:
    """After many connections of all kinds of ends, the server holds what it held before."""
    if not sys.platform.startswith("linux"):
        pytest.skip("counts in /proc")
    server = await start_server()
    folder = f"/proc/{server.process.pid}/fd"
    before = len(os.listdir(folder))
    for _ in range(10):
        for path in ("/plain", "/stream", "/slow", "/broken"):
            async with server.connect() as client:
                await client.get(path)
                if path == "/plain":
                    await client.read_until(b"hello")
                client.reset()
    with server.deadline(5):
        while len(os.listdir(folder)) > before:  # another process's state
            await trio.sleep(0.02)
