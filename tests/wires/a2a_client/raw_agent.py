"""An agent of raw sockets, which answers whatever a test wants, also what no agent should."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import attrs
import trio


@attrs.frozen
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: Any

    @property
    def rpc(self) -> str:
        return str(self.body["method"]) if self.body else ""


Answer: TypeAlias = Callable[[Request, trio.SocketStream], Awaitable[object]]


class RawAgent:
    """Serves a card, and gives all other requests to `answer`."""

    def __init__(self, answer: Answer, card: dict[str, Any]) -> None:
        self.requests: list[Request] = []
        self.url = ""
        self._answer = answer
        self._card = card

    @property
    def methods(self) -> list[str]:
        return [request.rpc for request in self.requests if request.rpc]

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        task_status.started()
        await trio.serve_listeners(self._serve, listeners)

    async def _serve(self, stream: trio.SocketStream) -> None:
        try:
            async with stream:
                request = await _read(stream)
                if request is not None:
                    self.requests.append(request)
                    await self._respond(request, stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _respond(self, request: Request, stream: trio.SocketStream) -> None:
        if request.path.endswith("agent-card.json") and "name" in self._card:
            card = json.loads(json.dumps(self._card).replace("SELF", self.url))
            await send_json(stream, card)
        else:
            await self._answer(request, stream)


async def _read(stream: trio.SocketStream) -> Request | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = await stream.receive_some()
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += await stream.receive_some()
    method, path, _ = first.split(" ")
    return Request(method, path, headers, json.loads(body) if body else None)


async def send(stream: trio.SocketStream, body: bytes, *, status: str = "200 OK", **headers: str) -> None:
    """Send a whole response, and close the connection."""
    given = {"content-length": str(len(body)), "connection": "close", **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in given.items())
    await stream.send_all(f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body)


async def send_json(stream: trio.SocketStream, value: Any, **headers: str) -> None:
    await send(stream, json.dumps(value).encode(), content_type="application/json", **headers)


async def begin_events(stream: trio.SocketStream) -> None:
    """Begin an event stream that ends with the connection."""
    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")


async def send_event(stream: trio.SocketStream, result: Any) -> None:
    await stream.send_all(b"data: " + json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode() + b"\n\n")


def card(**fields: Any) -> dict[str, Any]:
    interface = {"url": "SELF/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
    return {"name": "raw", "supportedInterfaces": [interface], "capabilities": {"streaming": True}, **fields}


def task(state: str = "WORKING", **fields: Any) -> dict[str, Any]:
    return {"id": "t1", "contextId": "c1", "status": {"state": f"TASK_STATE_{state}"}, **fields}


def status(state: str) -> dict[str, Any]:
    return {"statusUpdate": {"taskId": "t1", "contextId": "c1", "status": {"state": f"TASK_STATE_{state}"}}}


def piece(text: str, *, append: bool = True, artifact: str = "a1") -> dict[str, Any]:
    update = {"artifactId": artifact, "parts": [{"text": text}]}
    return {"artifactUpdate": {"taskId": "t1", "contextId": "c1", "artifact": update, "append": append}}


@asynccontextmanager
async def raw_agent(answer: Answer, served: dict[str, Any] | None = None) -> AsyncIterator[RawAgent]:
    async with trio.open_nursery() as nursery:
        agent = RawAgent(answer, card() if served is None else served)
        await nursery.start(agent.serve)
        yield agent
        nursery.cancel_scope.cancel()
