"""WebSocket upgrades where there is no WebSocket, and bytes right behind upgrades (Hypercorn, issue 225)."""

from __future__ import annotations

import pytest
import trio

from .conftest import Start
from .harness import WAYS, Server, fresh

HANDSHAKE = (
    b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
PATHS = (b"/nowhere", b"/process", b"/health")


async def first_bytes(server: Server, data: bytes) -> bytes:
    async with server.connect() as client, server.connect() as other:
        # A second attempt, cut in the middle.
        await other.stream.send_all(data[:-1])
        other.reset()
        await client.stream.send_all(data)
        with server.deadline(15, "answer to an upgrade"):
            try:
                return bytes(await client.stream.receive_some(65536))
            except trio.BrokenResourceError:
                return b""


@pytest.mark.parametrize("way", WAYS)
async def test_an_upgrade_that_leads_nowhere_is_refused(start: Start, way: str) -> None:
    server = start(way=way)
    for path in PATHS:
        async with server.connect() as client:
            await client.stream.send_all(HANDSHAKE % path)
            with server.deadline(15, "answer to an upgrade"):
                assert (await client.stream.receive_some(65536)).startswith(b"HTTP/1.1 4")
    server.close()


@pytest.mark.parametrize("way", WAYS)
async def test_trailing_bytes_harm_nobody(start: Start, way: str) -> None:
    server = start(way=way)
    async with server.chat("endless", session_id=fresh()) as chat:
        await chat.started()
        for trailing in (b"\x00", b"x" * 1000, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"):
            for path in (*PATHS, b"/ws") * 3:
                seen = await first_bytes(server, HANDSHAKE % path + trailing)
                # Where there is one, what is behind may be read as its first frames.
                expected = (b"HTTP/1.1 4", b"HTTP/1.1 101") if path == b"/ws" else b"HTTP/1.1 4"
                assert seen == b"" or seen.startswith(expected), seen
                assert server.process.poll() is None
                assert (await server.call("GET", "/health")).status == 200
                await chat.started(len(chat.deltas) + 1)
    async with server.chat() as chat:
        assert (await chat.finish())["status"] == "completed"
