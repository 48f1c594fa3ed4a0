"""A server of chat completions that follows a script, on a free port: a model for tests without a network.

async with model_server(["Hello ", "world"], [call("clock", city="Rome")], ["It is noon."]) as server:
    async with ChatModel("scripted", base_url=server.url) as model: ...
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import attrs
import h11
import orjson
import trio

from ..nursery import nursery_around
from ..protocol.ids import new_call_id
from .script import wait

__all__ = ["Answer", "ModelServer", "call", "hang_up", "model_server", "refuse", "think"]

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
"""Of each answer, if the request asks for it."""


@attrs.frozen
class think:
    """Send a piece of reasoning."""

    text: str


class call:
    """Call a tool: `call("clock", city="Rome")`, or with arguments as text: `call("clock", "{oops")`."""

    def __init__(self, name: str, text: str | None = None, /, **arguments: Any) -> None:
        self.id = new_call_id()
        self.name = name
        self.arguments = orjson.dumps(arguments).decode() if text is None else text


@attrs.frozen
class hang_up:
    """Close the connection in the middle of the answer."""


@attrs.frozen
class refuse:
    """Answer with a status and an error, in place of a stream. It must be the first part."""

    status: int
    message: str = "refused"
    headers: Mapping[str, str] = attrs.field(factory=dict)


Answer: TypeAlias = Iterable[str | think | call | wait | hang_up | refuse | bytes]
"""The parts of an answer. A `str` is a piece of text, `wait` a pause; `bytes` are sent as they are."""


class ModelServer:
    """Answers each request with the next answer of its script, or with the one that a function makes for its body.

    Attributes:
        url: the base URL for clients.
        requests: the body of each request so far. headers: its headers.
        connections: how many were opened.
        left: set when a client has gone before the end of an answer.
    """

    def __init__(self, script: Iterator[Answer] | Callable[[dict[str, Any]], Answer]) -> None:
        self.url = ""
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        self.left = trio.Event()
        self._script = script

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer the requests of one connection."""
        self.connections += 1
        async with stream:
            connection = _Connection(stream)
            while (body := await connection.receive()) is not None:
                self.requests.append(body)
                self.headers.append(connection.headers)
                right = connection.target == "POST /v1/chat/completions"
                answer = self._next(body) if right else [refuse(404, f"there is no {connection.target}")]
                if not await self._play(answer, connection, body):
                    return

    def _next(self, body: dict[str, Any]) -> Answer:
        if callable(self._script):
            return self._script(body)
        return next(self._script, [refuse(400, "the script has no more answers")])

    async def _play(self, answer: Answer, connection: _Connection, body: dict[str, Any]) -> bool:
        """Send the answer. Return False if the connection cannot be used again."""
        done = False
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await connection.wait_left()
                self.left.set()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            try:
                done = await _play(answer, connection, body)
            except trio.BrokenResourceError:
                self.left.set()
            nursery.cancel_scope.cancel()
        return done


@asynccontextmanager
async def model_server(*answers: Answer | Callable[[dict[str, Any]], Answer]) -> AsyncIterator[ModelServer]:
    """Serve the answers in their order, or those of one function, which gets the body of each request."""
    script: Any = answers[0] if len(answers) == 1 and callable(answers[0]) else iter(answers)
    server = ModelServer(script)
    async with nursery_around() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/v1"
        nursery.start_soon(trio.serve_listeners, server.serve, [listener])
        yield server
        nursery.cancel_scope.cancel()


async def _play(answer: Answer, connection: _Connection, body: dict[str, Any]) -> bool:
    begun = False
    calls = 0
    for part in answer:
        if isinstance(part, refuse):
            await connection.refuse(part)
            return True
        if not begun:
            await connection.begin("text/event-stream")
            begun = True
        match part:
            case str():
                await connection.delta(content=part)
            case think(text):
                await connection.delta(reasoning_content=text)
            case call():
                for delta in _pieces(part, calls):
                    await connection.delta(tool_calls=[delta])
                calls += 1
            case wait(seconds):
                await trio.sleep(seconds)
            case bytes():
                await connection.send(part)
            case hang_up():
                return False
    if not begun:
        await connection.begin("text/event-stream")
    reason = "tool_calls" if calls else "stop"
    await connection.event(choices=[{"index": 0, "delta": {}, "finish_reason": reason}])
    if (body.get("stream_options") or {}).get("include_usage"):
        await connection.event(choices=[], usage=USAGE)
    await connection.send(b"data: [DONE]\n\n")
    await connection.end()
    return True


def _pieces(part: call, index: int) -> Iterator[dict[str, Any]]:
    """The call as servers send it: its arguments in several pieces."""
    yield {"index": index, "id": part.id, "type": "function", "function": {"name": part.name, "arguments": ""}}
    middle = len(part.arguments) // 2
    for arguments in (part.arguments[:middle], part.arguments[middle:]):
        yield {"index": index, "function": {"arguments": arguments}}


class _Connection:
    """One connection of HTTP/1.1."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.SERVER)
        self.headers: dict[str, str] = {}
        self.target = ""

    async def receive(self) -> dict[str, Any] | None:
        """Return the body of the next request; None if there is none."""
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        body = b""
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                try:
                    self._http.receive_data(await self._stream.receive_some())
                except trio.BrokenResourceError:
                    return None
            elif isinstance(event, h11.Request):
                self.target = f"{event.method.decode()} {event.target.decode()}"
                self.headers = {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                request: dict[str, Any] = orjson.loads(body)
                return request
            else:
                return None

    async def wait_left(self) -> None:
        """Wait until the client has closed the connection. Keep what it sends before."""
        try:
            while data := await self._stream.receive_some():
                self._http.receive_data(data)
        except trio.BrokenResourceError:
            return

    async def refuse(self, part: refuse) -> None:
        await self.begin("application/json", part.status, part.headers)
        await self.send(orjson.dumps({"error": {"message": part.message}}))
        await self.end()

    async def begin(self, kind: str, status: int = 200, headers: Mapping[str, str] = {}) -> None:
        fields = [("Content-Type", kind), *headers.items()]
        await self._send(h11.Response(status_code=status, headers=fields))

    async def delta(self, **delta: Any) -> None:
        await self.event(choices=[{"index": 0, "delta": delta}])

    async def event(self, **members: Any) -> None:
        await self.send(b"data: " + orjson.dumps({"object": "chat.completion.chunk", **members}) + b"\n\n")

    async def send(self, data: bytes) -> None:
        await self._send(h11.Data(data=data))

    async def end(self) -> None:
        await self._send(h11.EndOfMessage())

    async def _send(self, event: h11.Event) -> None:
        await self._stream.send_all(self._http.send(event) or b"")
