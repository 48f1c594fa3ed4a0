"""An HTTP client of the nodes: one connection a request, nothing pooled, nothing retried."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import h11
import trio

__all__ = ["Broken", "Exchange", "call"]


class Broken(Exception):
    """The connection ended, or could not be made, before the answer did."""


class Exchange:
    """One request and its answer."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT)
        self.status = 0

    @classmethod
    async def open(cls, port: int) -> Exchange:
        try:
            return cls(await trio.open_tcp_stream("127.0.0.1", port))
        except OSError as exc:
            raise Broken("no connection") from exc

    async def ask(self, method: str, path: str, body: object = None) -> int:
        """Send the request, and wait for the head of its answer."""
        data = b"" if body is None else json.dumps(body).encode()
        headers = [("Host", "127.0.0.1"), ("Content-Type", "application/json"), ("Content-Length", str(len(data)))]
        out = self._http.send(h11.Request(method=method, target=path, headers=headers)) or b""
        out += self._http.send(h11.Data(data=data)) or b""
        out += self._http.send(h11.EndOfMessage()) or b""
        try:
            await self._stream.send_all(out)
        except (OSError, trio.BrokenResourceError) as exc:
            raise Broken("while it was asked") from exc
        head = await self._next()
        if not isinstance(head, h11.Response):
            raise Broken(f"no head: {head}")
        self.status = head.status_code
        return self.status

    async def pieces(self) -> AsyncIterator[bytes]:
        while isinstance(event := await self._next(), h11.Data):
            yield bytes(event.data)

    async def _next(self) -> Any:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(await self._stream.receive_some(65536))
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError) as exc:
            raise Broken("before the end of the answer") from exc
        return event

    async def json(self) -> Any:
        return json.loads(b"".join([piece async for piece in self.pieces()]) or b"null")

    def close(self) -> None:
        self._stream.socket.close()


async def call(port: int, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Status and JSON of one answer. Raises Broken."""
    exchange = await Exchange.open(port)
    try:
        status = await exchange.ask(method, path, body)
        return status, await exchange.json()
    finally:
        exchange.close()
