"""A WebSocket client that sees every frame, for `/ws`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from .harness import TIMEOUT, Server, say

PROTOCOL = "trio-agentapp.v1"


class Socket:
    """Frames come in one order; each run's are put aside under its id while another's are waited for."""

    def __init__(self, server: Server, connection: WebSocketConnection) -> None:
        self.server = server
        self.connection = connection
        self.frames: dict[str | None, list[dict[str, Any]]] = {}
        self.order: list[tuple[str | None, str]] = []
        """Id and type of each frame, as they came."""

    async def send(self, kind: str, **fields: Any) -> None:
        await self.connection.send_message(json.dumps({"type": kind, **fields}))

    async def send_raw(self, data: bytes) -> None:
        async with self.connection._stream_lock:
            await self.connection._stream.send_all(data)

    async def start(self, id: str, do: str = "hello", **fields: Any) -> None:
        await self.send("start", id=id, request={"input": say(), "do": do, **fields})

    async def receive(self) -> dict[str, Any]:
        with self.server.deadline(TIMEOUT, "frame"):
            frame: dict[str, Any] = json.loads(await self.connection.get_message())
        self.frames.setdefault(frame.get("id"), []).append(frame)
        self.order.append((frame.get("id"), frame["type"]))
        return frame

    async def wait_for(self, id: str | None, kind: str) -> dict[str, Any]:
        """The first frame of a type under an id, which may have come already."""
        while True:
            for frame in self.frames.get(id, []):
                if frame["type"] == kind:
                    return frame
            await self.receive()

    async def wait_said(self, id: str, deltas: int = 1) -> None:
        while len(self.deltas(id)) < deltas:
            await self.receive()

    def events(self, id: str) -> list[dict[str, Any]]:
        return [frame["event"] for frame in self.frames.get(id, []) if frame["type"] == "event"]

    def deltas(self, id: str) -> list[str]:
        return [event["text"] for event in self.events(id) if event["object"] == "content" and event["delta"]]

    async def wait_closed(self) -> tuple[int, str]:
        """Code and reason of the server's close; what comes before it is kept."""
        while self.connection.closed is None:
            with suppress(ConnectionClosed):
                await self.receive()
        reason = self.connection.closed
        return int(reason.code), reason.reason or ""


@asynccontextmanager
async def connect(
    server: Server, *, headers: dict[str, str] | None = None, port: int = 0, path: str = "/ws", ready: bool = True
) -> AsyncIterator[Socket]:
    fields = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    async with (
        await trio.open_tcp_stream("127.0.0.1", port or server.port) as stream,
        trio.open_nursery() as nursery,
    ):
        with server.deadline(TIMEOUT, "answer to the upgrade"):
            connection = await wrap_client_stream(
                nursery,
                stream,
                f"127.0.0.1:{port or server.port}",
                path,
                subprotocols=[PROTOCOL],
                extra_headers=fields,
                max_message_size=2**26,
                # Full, it would keep pings from being answered.
                message_queue_size=10_000,
            )
        assert connection.subprotocol == (PROTOCOL if path.endswith("/ws") else None)
        socket = Socket(server, connection)
        if ready:
            assert await socket.receive() == {"type": "ready"}
        yield socket
        with server.deadline(TIMEOUT, "close"):
            await connection.aclose()
        nursery.cancel_scope.cancel()
