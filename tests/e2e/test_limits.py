"""Limits on real sockets: messages and sockets of one user, connections, and heads of requests."""

from __future__ import annotations

import json
import re
from contextlib import AsyncExitStack, suppress

import trio
from trio_websocket import ConnectionClosed

from .conftest import Start
from .harness import Server, fresh
from .sockets import connect

BEARER = {"Authorization": "Bearer u1"}


async def counted(server: Server, limit: str) -> float:
    page = (await server.call("GET", "/metrics")).body.decode()
    found = re.search(rf'^agent_limit_refusals_total\{{limit="{limit}"\}} (\S+)$', page, re.MULTILINE)
    return 0.0 if found is None else float(found[1])


async def test_messages_per_second_on_a_websocket(start: Start) -> None:
    """Five at once, then one per second. A refused one is answered, a hundred a second at most."""
    server = start(frames_per_second=1, metrics=True)
    async with connect(server) as socket:
        for _ in range(5):
            await socket.send("ping")
        await socket.start("a", session_id=fresh())
        error = await socket.wait_for("a", "error")
        assert error["error"]["code"] == "too_many_requests"
        assert (error["error"]["status"], error["error"]["limit"], error["error"]["quota"]) == (429, "frames", 5)
        assert 0 < error["error"]["retry_after"] <= 1
        assert [kind for _, kind in socket.order].count("pong") == 5
        await trio.sleep(error["error"]["retry_after"] + 0.05)
        await socket.start("a", session_id=fresh())
        assert (await socket.wait_for("a", "done"))["state"] == "FINISHED"
        # The address has one bucket, so another socket of it is refused too; reading is slowed down meanwhile.
        async with connect(server) as other:
            await other.send("ping")
            await other.send("ping")
            await other.wait_for(None, "error")
        began_at = trio.current_time()
        refused = len(socket.frames[None])
        for _ in range(200):
            await socket.send("ping")
        while len(socket.frames[None]) < refused + 200:
            await socket.receive()
        assert trio.current_time() - began_at > 1.9, "a hundred refusals a second"
    assert await counted(server, "frames") >= 190
    server.close()


async def test_sockets_of_one_user(start: Start) -> None:
    server = start("guarded", max_sockets_per_user=2)
    async with connect(server, headers=BEARER) as first, connect(server, headers=BEARER) as second:
        assert first.frames
        async with connect(server, headers=BEARER, ready=False) as third:
            assert await third.wait_closed() == (4429, "more than 2 WebSockets of one user")
        async with connect(server, headers={"Authorization": "Bearer u2"}):
            pass
        await second.connection.aclose()
        with server.deadline(5, "place for another socket"):
            admitted = False
            while not admitted:
                async with connect(server, headers=BEARER, ready=False) as third:
                    with suppress(ConnectionClosed):
                        admitted = json.loads(await third.connection.get_message()) == {"type": "ready"}
    server.close()


async def test_requests_of_one_user_on_websockets_and_routes(start: Start) -> None:
    server = start("guarded", requests_per_second=0.02)
    async with connect(server, headers=BEARER):
        async with connect(server, headers=BEARER, ready=False) as second:
            code, reason = await second.wait_closed()
            assert (code, reason) == (4429, "The limit of requests is reached (0.02 per second).")
    # Routes of the user's own count by address, also WebSockets, which are refused before they are accepted.
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    key = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    for status in (101, 429):
        async with server.connect() as client:
            await client.stream.send_all(client.spell("GET", "/own/fine", headers={**upgrade, **key}))
            assert (await client.stream.receive_some(1000)).startswith(b"HTTP/1.1 %d" % status)
    server.close()


async def answered(server: Server, connections: int) -> int:
    """How many of so many open connections are answered."""
    found = 0
    async with AsyncExitStack() as stack:
        for _ in range(connections):
            client = await stack.enter_async_context(server.connect())
            with suppress(trio.BrokenResourceError):
                await client.stream.send_all(client.spell("GET", "/health"))
                found += (await client.stream.receive_some()).startswith(b"HTTP/1.1 200")
    return found


async def test_connections_and_heads(start: Start) -> None:
    server = start(max_connections=3, read_timeout=0.5, metrics=True)
    # The connection that found the server ready may still be closing.
    with server.deadline(5, "an answer on each of three connections"):
        while await answered(server, 3) < 3:
            pass
    assert await answered(server, 5) == 3
    with server.deadline(5, "place for another connection"):
        while not server._ready():
            await trio.sleep(0.02)
    async with server.connect() as client:
        await client.stream.send_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 20_000)
        assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 431")
    async with server.connect() as client:
        with server.deadline(5, "end of a slow head"):
            assert await client.stream.receive_some() == b""
    async with server.connect() as client:
        head = b"POST /process HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        await client.stream.send_all(head + b"Content-Length: 9\r\n\r\n{")
        assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 408")
    for limit in ("connections", "head", "head_time", "body_time"):
        assert await counted(server, limit) >= 1, limit
    server.close(allowed=r"^.*which is the limit \(max_connections\).*$")
