"""Agents in processes of their own, started as users start them, and a client that sees every byte."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import h11
import trio

AGENTS = Path(__file__).parent / "agents"
WAYS = ("run", "hypercorn")
READY = re.compile(r"ready on https?://127\.0\.0\.1:(\d+) \(Ctrl-C")
TERMINAL = ("completed", "failed", "canceled", "rejected")

TIMEOUT = 15.0
"""Seconds. What is waited for happens at once when the machine is not busy."""

_fresh = itertools.count()


def fresh(prefix: str = "s") -> str:
    """An id that no other test has."""
    return f"{prefix}-{next(_fresh)}-{secrets.token_hex(4)}"


def say(text: str = "hi") -> list[dict[str, Any]]:
    return [{"role": "user", "type": "message", "content": [{"type": "text", "text": text}]}]


# Processes.


class Server:
    """One agent in its own process group: `way` is "run" (app.run) or "hypercorn" (the bare command)."""

    def __init__(
        self,
        agent: str,
        way: str,
        folder: Path,
        env: dict[str, str],
        flags: tuple[str, ...] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.way = way
        self._tls = tls
        self.folder = folder
        self.port = 0
        self._log = folder / "log"
        command = [sys.executable, "-W", "error", str(AGENTS / f"{agent}.py")]
        if way == "hypercorn":
            self.port = free_port()
            bind = ("-b", f"127.0.0.1:{self.port}")
            command = [
                sys.executable,
                "-W",
                "error",
                "-m",
                "hypercorn",
                "-k",
                "trio",
                *bind,
                *flags,
                f"{agent}:app",
            ]
        environment = {**os.environ, "AGENTAPP_LOG_FORMAT": "json", "PORT": "0", "FOLDER": str(folder), **env}
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=AGENTS, env=environment, start_new_session=True
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def marks(self) -> list[str]:
        path = self.folder / "marks"
        return path.read_text().splitlines() if path.exists() else []

    def wait_ready(self, seconds: float = 30) -> None:
        """Until /readiness answers 200."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}:\n{self.log}")
            if not self.port and (match := READY.search(self.log)):
                self.port = int(match[1])
            if self.port and self._ready():
                return
            time.sleep(0.02)
        raise AssertionError(f"not ready in {seconds} s:\n{self.log}")

    def _ready(self) -> bool:
        return self._ready_at("/readiness")

    def _ready_at(self, path: str) -> bool:
        try:
            sock = socket.create_connection(("127.0.0.1", self.port), 2)
            with self._tls.wrap_socket(sock, server_hostname="localhost") if self._tls else sock as sock:
                sock.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
                return sock.recv(100).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    def send_signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def send_signal_to_group(self, number: signal.Signals = signal.SIGTERM) -> None:
        """What a terminal does for Ctrl-C, and systemd for a stop."""
        os.killpg(self.process.pid, number)

    async def wait_exit(self, seconds: float = 20) -> int:
        with self.deadline(seconds, "exit"):
            while (code := self.process.poll()) is None:
                await trio.sleep(0.01)
        return code

    async def wait_mark(self, text: str, count: int = 1, seconds: float = TIMEOUT) -> None:
        with self.deadline(seconds, f"{count} times the mark {text!r}"):
            while self.marks.count(text) < count:
                await trio.sleep(0.005)

    async def wait_until(self, condition: Callable[[], Any], what: str, seconds: float = TIMEOUT) -> None:
        with self.deadline(seconds, what):
            while not condition():
                await trio.sleep(0.005)

    @contextmanager
    def deadline(self, seconds: float, what: str = "an answer") -> Iterator[None]:
        """`fail_after` that shows the server's side."""
        try:
            with trio.fail_after(seconds):
                yield
        except trio.TooSlowError:
            raise AssertionError(f"no {what} in {seconds} s; marks {self.marks[-20:]}, log:\n{self.log}") from None

    def close(self, *, allowed: str = "") -> None:
        """End it in good order, and look at what it has to say."""
        try:
            if self.process.poll() is None:
                self.send_signal()
                try:
                    self.process.wait(20)
                except subprocess.TimeoutExpired:
                    raise AssertionError(f"did not end in 20 s:\n{self.log}") from None
                assert self.process.returncode == 0, f"exit code {self.process.returncode}:\n{self.log}"
        finally:
            self.kill()
        self.assert_clean(allowed)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def assert_clean(self, allowed: str = "") -> None:
        """Nothing but the ordinary in the log, without what the pattern `allowed` finds in it."""
        log = re.sub(allowed, "", self.log, flags=re.MULTILINE) if allowed else self.log
        unclean = [line for line in log.splitlines() if not _ordinary(line)]
        assert not unclean, "unclean log:\n" + "\n".join(unclean)

    # The client's side.

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Client]:
        with self.deadline(TIMEOUT, "connection"):
            stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        client = Client(self, stream)
        try:
            yield client
        finally:
            # A reset connection's descriptor is gone already.
            if stream.socket.fileno() >= 0:
                stream.socket.close()

    async def call(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        """One request on a connection of its own, with the whole answer."""
        async with self.connect() as client:
            await client.send(method, path, body, **options)
            return await client.answer()

    async def get(self, path: str) -> Any:
        answer = await self.call("GET", path)
        assert answer.status == 200, answer
        return answer.json()

    async def stop(self, wait: bool = False, **fields: Any) -> dict[str, Any]:
        answer = await self.call("POST", "/stop?wait=1" if wait else "/stop", {"input": [], **fields})
        assert answer.status == 200, answer
        receipt: dict[str, Any] = answer.json()
        return receipt

    @asynccontextmanager
    async def chat(self, do: str = "hello", **fields: Any) -> AsyncIterator[Chat]:
        """A streamed chat; the agent's behaviour `do` and its options travel as extra fields."""
        async with self.connect() as client:
            await client.send("POST", "/process", {"input": say(), "do": do, **fields})
            yield Chat(client)


def _ordinary(line: str) -> bool:
    if READY.search(line) or not line.strip():
        return True
    if line.startswith("{"):
        return json.loads(line)["level"] == "info"
    return re.match(r"\[[\d :+-]+\] \[\d+\] \[INFO\] ", line) is not None


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


# Plain HTTP.


class Answer:
    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def __repr__(self) -> str:
        return f"<{self.status} {self.headers} {self.body[:2000]!r}>"

    def header(self, name: str) -> str | None:
        values = [value for known, value in self.headers if known == name]
        assert len(values) <= 1, f"{name} came more than once: {values}"
        return values[0] if values else None

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One HTTP/1.1 connection."""

    def __init__(self, server: Server, stream: trio.SocketStream) -> None:
        self.server = server
        self.stream = stream
        self._http = h11.Connection(h11.CLIENT)

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        chunked: bool = False,
    ) -> None:
        """A body that is not bytes is sent as JSON."""
        with self.server.deadline(TIMEOUT, "reading of the request"):
            await self.stream.send_all(self.spell(method, path, body, headers=headers, chunked=chunked))

    def spell(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        chunked: bool = False,
    ) -> bytes:
        fields = {"Host": "127.0.0.1", **(headers or {})}
        data = b""
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            fields.setdefault("Content-Type", "application/json")
            fields |= {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(len(data))}
        request = h11.Request(method=method, target=path, headers=list(fields.items()))
        out = self._http.send(request) or b""
        for start in range(0, len(data), 65536):
            out += self._http.send(h11.Data(data=data[start : start + 65536])) or b""
        return out + (self._http.send(h11.EndOfMessage()) or b"")

    async def head(self, seconds: float = TIMEOUT) -> Answer:
        with self.server.deadline(seconds, "head of an answer"):
            event = await self._next()
        assert isinstance(event, h11.Response), event
        return Answer(event.status_code, [(name.decode(), value.decode()) for name, value in event.headers], b"")

    async def data(self) -> bytes:
        """The next piece of the body; empty at its proper end."""
        event = await self._next()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        assert isinstance(event, h11.EndOfMessage), event
        return b""

    async def answer(self, seconds: float = TIMEOUT) -> Answer:
        answer = await self.head(seconds)
        with self.server.deadline(seconds, "end of an answer"):
            while piece := await self.data():
                answer.body += piece
        return answer

    def next_request(self) -> None:
        self._http.start_next_cycle()

    async def _next(self) -> Any:
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self.stream.receive_some(65536))
            elif not isinstance(event, h11.InformationalResponse):
                return event

    async def wait_eof(self, seconds: float = TIMEOUT) -> bytes:
        """All that comes until the server closes."""
        seen = b""
        with self.server.deadline(seconds, "end of the connection"):
            with contextlib.suppress(trio.BrokenResourceError):
                async for piece in self.stream:
                    seen += piece
        return seen

    def close(self) -> None:
        self.stream.socket.close()

    def reset(self) -> None:
        """Close with an RST."""
        linger = (1).to_bytes(4, sys.byteorder) + (0).to_bytes(4, sys.byteorder)
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.stream.socket.close()


# Event streams.


class SSEParser:
    """Accepts only what docs/reference/wire.md allows: LF, comments, `retry`, frames of `id` and `data`."""

    def __init__(self) -> None:
        self.preamble = False
        self.comments = 0
        self.done = False
        self._buffer = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        assert b"\r" not in data, data
        self._buffer += data
        *frames, self._buffer = self._buffer.split(b"\n\n")
        return [event for frame in frames if (event := self._frame(frame)) is not None]

    def end(self) -> None:
        assert self._buffer == b"", f"an incomplete frame: {self._buffer!r}"

    def _frame(self, frame: bytes) -> dict[str, Any] | None:
        assert not self.done, f"after [DONE]: {frame!r}"
        if not self.preamble:
            assert re.fullmatch(rb"(:[^\n]*\n)*retry: 3000(\n:[^\n]*)*", frame), f"not the preamble: {frame!r}"
            assert b":" in frame.replace(b"retry:", b""), "the preamble has no comment"
            self.preamble = True
            return None
        if frame.startswith(b":"):
            assert frame == b": keep-alive", frame
            self.comments += 1
            return None
        if frame == b"data: [DONE]":
            self.done = True
            return None
        match = re.fullmatch(rb"id: (0|[1-9]\d*)\ndata: (\{[^\n]*\})", frame)
        assert match, f"not a frame: {frame!r}"
        event: dict[str, Any] = json.loads(match[2])
        compact = json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
        assert compact == match[2], f"not compact: {match[2]!r}"
        assert int(match[1]) == event["sequence_number"], frame
        return event


class Chat:
    """One streamed answer, checked as it comes; `first` is the number of its first event."""

    def __init__(self, client: Client, first: int = 0) -> None:
        self.client = client
        self.first = first
        self.events: list[dict[str, Any]] = []
        self.raw = b""
        self.parser = SSEParser()
        self._head: Answer | None = None
        self._ready: list[dict[str, Any]] = []

    async def head(self, status: int = 200, seconds: float = TIMEOUT) -> Answer:
        if self._head is None:
            self._head = await self.client.head(seconds)
            if self._head.status != status:
                while piece := await self.client.data():
                    self._head.body += piece
        assert self._head.status == status, self._head
        return self._head

    @property
    def run_id(self) -> str:
        assert self._head is not None
        run_id = self._head.header("x-run-id")
        assert run_id
        return run_id

    async def next(self) -> dict[str, Any] | None:
        """The next event; None at the end of a whole answer."""
        await self.head()
        while not self._ready:
            piece = await self.client.data()
            if not piece:
                self.parser.end()
                if not self.first:
                    check_events(self.events)
                return None
            self.raw += piece
            self._ready = self.parser.feed(piece)
        event = self._ready.pop(0)
        assert event["sequence_number"] == self.first + len(self.events), event
        assert not self.events or not terminal(self.events[-1]), f"after the terminal event: {event}"
        self.events.append(event)
        return event

    async def started(self, deltas: int = 1, seconds: float = TIMEOUT) -> None:
        """Until the agent has said something."""
        with self.client.server.deadline(seconds, f"{deltas} deltas"):
            while len(self.deltas) < deltas:
                assert await self.next() is not None, self.events

    async def begun(self, seconds: float = TIMEOUT) -> None:
        """Until the run is in progress."""
        with self.client.server.deadline(seconds, "event in_progress"):
            while len(self.events) < 2:
                assert await self.next() is not None, self.events

    async def finish(self, seconds: float = TIMEOUT) -> dict[str, Any]:
        """All of it; gives the terminal event."""
        with self.client.server.deadline(seconds, "terminal frame"):
            while await self.next() is not None:
                pass
        return self.events[-1]

    @property
    def deltas(self) -> list[str]:
        return [event["text"] for event in self.events if event["object"] == "content" and event["delta"]]

    @property
    def said(self) -> str:
        return "".join(self.deltas)


def terminal(event: dict[str, Any]) -> bool:
    return event["object"] == "response" and event["status"] in TERMINAL


def output_text(response: dict[str, Any]) -> str:
    messages = [message for message in response["output"] if message["role"] == "assistant"]
    return "".join(part.get("text", "") for message in messages for part in message["content"])


def check_events(events: list[dict[str, Any]]) -> None:
    """Check a whole answer: events nest as documented, all are closed, the only terminal event is the last."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [terminal(event) for event in events].count(True) == 1
    assert terminal(events[-1])
    end = events[-1]
    before: list[tuple[Any, ...]] = [("response", "created"), ("response", "in_progress")]
    assert [(event["object"], event["status"]) for event in events[:-1]][:2] == before[: len(events) - 1]
    message: dict[str, Any] | None = None
    parts: list[dict[str, Any]] = []
    text = ""
    closed: list[dict[str, Any]] = []
    for event in events[2:-1]:
        if event["object"] == "message" and event["status"] == "in_progress":
            assert message is None, "a message inside a message"
            message, parts = event, []
        elif event["object"] == "message":
            assert message is not None
            assert event["id"] == message["id"]
            assert event["content"] == parts
            assert text == "", "a part was not closed"
            closed.append(event)
            message = None
        else:
            assert event["object"] == "content"
            assert message is not None
            assert event["msg_id"] == message["id"]
            assert event["index"] == len(parts)
            if event["delta"]:
                assert event["status"] == "in_progress"
                text += event.get("text", "")
            else:
                assert event["status"] in ("completed", "incomplete")
                if text:
                    assert event["text"] == text, "the part is not what its deltas were"
                text = ""
                parts.append(event)
    assert message is None, "a message was not closed"
    assert end["output"] == closed
    if end["status"] == "completed":
        assert end["error"] is None
        assert all(each["status"] == "completed" for each in closed)
    else:
        assert set(end["error"]) == {"code", "message"}
