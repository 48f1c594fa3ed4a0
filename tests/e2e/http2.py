"""A client of HTTP/2 by prior knowledge."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import h2.config
import h2.connection
import h2.events
import trio

from .harness import TIMEOUT, Server

__all__ = ["H2Client", "http2"]


class H2Client:
    """A few streams on one connection."""

    def __init__(self, server: Server, stream: trio.SocketStream) -> None:
        self.server = server
        self.stream = stream
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.headers: dict[int, dict[str, str]] = {}
        self.data: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.reset: set[int] = set()

    async def flush(self) -> None:
        await self.stream.send_all(self.h2.data_to_send())

    async def request(self, method: str, path: str, body: Any = None, more: dict[str, str] | None = None) -> int:
        number = self.h2.get_next_available_stream_id()
        headers = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "127.0.0.1")]
        headers += (more or {}).items()
        data = json.dumps(body).encode() if body is not None else b""
        if data:
            headers += [("content-type", "application/json"), ("content-length", str(len(data)))]
        self.h2.send_headers(number, headers, end_stream=not data)
        if data:
            self.h2.send_data(number, data, end_stream=True)
        self.data[number] = b""
        await self.flush()
        return number

    async def read(self) -> None:
        """Whatever comes next."""
        received = await self.stream.receive_some(65536)
        assert received, "the connection was closed"
        for event in self.h2.receive_data(received):
            if isinstance(event, h2.events.ResponseReceived):
                self.headers[event.stream_id] = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                self.data[event.stream_id] += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self.reset.add(event.stream_id)
        await self.flush()

    async def read_until(self, condition: Any, what: str) -> None:
        with self.server.deadline(TIMEOUT, what):
            while not condition():
                await self.read()

    async def answer(self, number: int) -> bytes:
        await self.read_until(lambda: number in self.ended, "end of a stream")
        return self.data[number]


@asynccontextmanager
async def http2(server: Server) -> AsyncIterator[H2Client]:
    with server.deadline(TIMEOUT, "connection"):
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    async with stream:
        client = H2Client(server, stream)
        client.h2.initiate_connection()
        await client.flush()
        yield client
