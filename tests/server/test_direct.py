"""Chunks that are written past h11, and what stands around them on the connection."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import h11
import pytest
import trio
import trio.testing
from trio_websocket import open_websocket
from wsproto import ConnectionType, WSConnection
from wsproto.connection import Connection
from wsproto.events import AcceptConnection, CloseConnection, Ping, Pong, Request, TextMessage

from trio_agentapp import AgentApp
from trio_agentapp.runs import Delivery
from trio_agentapp.server.config import ServerConfig
from trio_agentapp.server.direct import DirectWriter, direct_writer_of, text_frame
from trio_agentapp.server.extensions import WEBSOCKET_STREAM, extension
from trio_agentapp.server.patches import apply_patches
from trio_agentapp.server.server import serve
from trio_agentapp.server.websocket_stream import WebSocketStream
from trio_agentapp.web.websocket.socket_run import SocketRun
from trio_agentapp.web.websocket.writer import SocketWriter

Respond = Callable[[Any, Any, Any], Awaitable[None]]

CHUNKS = [b"%06d" % number * (1 + number * 37 % 4000) for number in range(300)]


@asynccontextmanager
async def served(respond: Respond) -> AsyncIterator[tuple[str, int]]:
    """An ASGI app behind the server loop, whose sockets take little at once."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                await send({"type": (await receive())["type"] + ".complete"})
            return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await respond(receive, send, extension(scope, WEBSOCKET_STREAM))
            return
        await respond(scope, send, direct_writer_of(scope, send))

    apply_patches()
    config = ServerConfig()
    config.bind = ["127.0.0.1:0"]
    config.graceful_timeout = config.force_close_after = 0.5
    [listener] = config.create_sockets().insecure_sockets
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    over = trio.Event()
    async with trio.open_nursery() as nursery:
        with trio.fail_after(30):
            await nursery.start(lambda **started: serve(app, config, shutdown_trigger=over.wait, **started))
            yield listener.getsockname()
            over.set()


async def start(send: Any, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})


async def end(send: Any) -> None:
    await send({"type": "http.response.body", "body": b"", "more_body": False})


class Client:
    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.http = h11.Connection(h11.CLIENT)

    async def ask(self, *headers: tuple[str, str]) -> None:
        request = h11.Request(method="GET", target="/", headers=[("Host", "test"), *headers])
        await self.stream.send_all((self.http.send(request) or b"") + (self.http.send(h11.EndOfMessage()) or b""))

    async def body(self) -> bytes:
        """The body of a whole, well-formed answer."""
        body = b""
        while True:
            match self.http.next_event():
                case h11.NEED_DATA:
                    self.http.receive_data(await self.stream.receive_some(2048))
                case h11.Data(data=data):
                    body += data
                case h11.EndOfMessage():
                    return body
                case h11.Response(status_code=status):
                    assert status == 200
                case other:
                    raise AssertionError(other)


@asynccontextmanager
async def connected(address: tuple[str, int]) -> AsyncIterator[Client]:
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await sock.connect(address)
    async with trio.SocketStream(sock) as stream:
        yield Client(stream)


async def test_no_byte_is_lost_or_changes_places_and_the_connection_is_used_again() -> None:
    """Direct writes, some of them taken in part or not at all, between others by `send`."""
    outcomes = {"sent": 0, "begun": 0, "refused": 0}

    async def respond(scope: Any, send: Any, writer: DirectWriter | None) -> None:
        assert writer is not None
        await start(send)
        for number, chunk in enumerate(CHUNKS):
            if number % 7 and writer.write(chunk):
                outcomes["begun" if writer.pending else "sent"] += 1
                if writer.pending and number % 3:
                    await writer.flush()
                    assert not writer.pending
            else:
                # Also with a part of the last chunk unsent.
                outcomes["refused"] += bool(number % 7)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await end(send)

    async with served(respond) as address, connected(address) as client:
        for _ in range(3):
            await client.ask()
            assert await client.body() == b"".join(CHUNKS)
            client.http.start_next_cycle()
    assert all(outcomes.values()), outcomes


async def test_the_end_of_a_response_carries_the_rest_of_the_last_chunk() -> None:
    async def respond(scope: Any, send: Any, writer: DirectWriter | None) -> None:
        assert writer is not None
        await start(send)
        while not writer.pending:
            assert writer.write(b"x" * 50_000)
        await end(send)

    async with served(respond) as address, connected(address) as client:
        await client.ask()
        body = await client.body()
        assert body == b"x" * len(body)
        assert len(body) % 50_000 == 0
        assert body


async def test_a_client_that_is_gone_is_no_error_of_the_writer() -> None:
    gone = trio.Event()
    written: list[bool] = []

    async def respond(scope: Any, send: Any, writer: DirectWriter | None) -> None:
        assert writer is not None
        await start(send)
        await gone.wait()
        for _ in range(50):
            written.append(writer.write(b"x" * 1000))
            await trio.sleep(0.001)

    async with served(respond) as address:
        async with connected(address) as client:
            await client.ask()
            await client.stream.receive_some(100)
            linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
            client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        gone.set()
        with trio.fail_after(5):
            while len(written) < 50:  # the app's task
                await trio.sleep(0.01)
        assert written[-1] is False


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_only_where_bytes_are_framed_as_chunks(version: bytes) -> None:
    offered: list[bool] = []

    async def respond(scope: Any, send: Any, writer: DirectWriter | None) -> None:
        offered.append(writer is not None)
        await start(send)
        await end(send)

    async with served(respond) as address, connected(address) as client:
        await client.stream.send_all(b"GET / HTTP/%b\r\nHost: test\r\nConnection: close\r\n\r\n" % version)
        async for _ in client.stream:
            pass
    assert offered == [version == b"1.1"]


async def test_not_past_a_middleware() -> None:
    """It may compress what it is given to send."""

    async def respond(scope: Any, send: Any, writer: DirectWriter | None) -> None:
        async def compressing(message: Any) -> None:
            await send(message)

        assert writer is not None
        assert direct_writer_of(scope, compressing) is None
        await start(send)
        await end(send)

    async with served(respond) as address, connected(address) as client:
        await client.ask()
        assert await client.body() == b""


async def test_clients_that_come_at_once_are_accepted_in_few_turns_of_the_loop() -> None:
    """One a turn, the last of them would wait for the handling of all others."""
    turns = 0

    class Counter(trio.abc.Instrument):
        def before_io_wait(self, timeout: float) -> None:
            nonlocal turns
            turns += 1

    asked = 0

    async def respond(scope: Any, send: Any, writer: DirectWriter | None) -> None:
        nonlocal asked
        asked += 1
        await start(send)
        await end(send)

    async with served(respond) as address:
        clients = [socket.socket() for _ in range(200)]
        for client in clients:
            client.connect(address)
            client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        counter = Counter()
        trio.lowlevel.add_instrument(counter)
        while asked < 200:
            await trio.lowlevel.checkpoint()
        trio.lowlevel.remove_instrument(counter)
        for client in clients:
            client.close()
    assert turns < 100


async def test_a_head_waits_for_the_chunk_behind_it_and_an_empty_part_is_no_chunk() -> None:
    async def respond(_scope: Any, send: Any, writer: DirectWriter | None) -> None:
        assert writer is not None
        writer.hold_head()
        await start(send)
        assert writer.pending
        await writer.write_all(b"")
        assert not writer.pending
        await writer.write_all(b"first ")
        await writer.write_all(b"")
        assert writer.write(b"second")
        await end(send)

    async with served(respond) as address, connected(address) as client:
        for _ in range(2):
            await client.ask()
            assert await client.body() == b"first second"
            client.http.start_next_cycle()


# WebSockets.

TEXTS = [f"{number:06} " * (1 + number * 37 % 4000) for number in range(200)]


class WebSocketClient:
    """Reads slowly, pings again and again, and notes the messages; wsproto refuses a frame that is not whole."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.ws = WSConnection(ConnectionType.CLIENT)
        self.texts: list[str] = []
        self.pongs = 0
        self.code: int | None = None

    async def converse(self, reads_after: trio.Event | None = None, hello: str | None = None) -> None:
        await self.stream.send_all(self.ws.send(Request(host="test", target="/")))
        if reads_after is not None:
            await reads_after.wait()
        text, pings = "", 0
        while self.code is None:
            self.ws.receive_data(await self.stream.receive_some(2048) or None)
            for event in self.ws.events():
                match event:
                    case TextMessage(data=data, message_finished=finished):
                        text += data
                        if finished:
                            self.texts.append(text)
                            text = ""
                            pings += 1
                            await self.stream.send_all(self.ws.send(Ping(payload=b"%d" % pings)))
                    case Pong():
                        self.pongs += 1
                    case CloseConnection(code=code):
                        self.code = code
                    case AcceptConnection():
                        if hello is not None:
                            await self.stream.send_all(self.ws.send(TextMessage(data=hello)))
                    case other:
                        raise AssertionError(other)


async def test_frames_are_whole_and_in_order_among_others_pongs_and_the_close_frame() -> None:
    outcomes = {"sent": 0, "begun": 0, "refused": 0}

    async def respond(_receive: Any, send: Any, stream: WebSocketStream) -> None:
        for number, text in enumerate(TEXTS):
            if number % 2 and not stream.pending:
                # The client reads meanwhile, so that the socket accepts something.
                await trio.sleep(0.005)
            if number % 7 and stream.write_texts([text.encode()]):
                outcomes["begun" if stream.pending else "sent"] += 1
                if stream.pending and number % 3:
                    await stream.send_texts([])
                    assert not stream.pending
                elif number % 2:
                    # The reading task answers pings meanwhile, also with a part of the last frame unsent.
                    await trio.sleep(0.001)
            else:
                outcomes["refused"] += bool(number % 7)
                await send({"type": "websocket.send", "text": text})
        await send({"type": "websocket.close", "code": 1000})
        assert not stream.write_texts([b"after the close frame"])

    async with served(respond) as address, connected(address) as plain:
        client = WebSocketClient(plain.stream)
        await client.converse()
    assert client.texts == TEXTS
    assert client.code == 1000
    assert client.pongs > 50
    assert all(outcomes.values()), outcomes


async def test_nothing_is_written_into_what_another_task_sends() -> None:
    """The sending task is blocked with a part of its frame; the client reads when that was seen."""
    seen = trio.Event()

    async def respond(_receive: Any, send: Any, stream: WebSocketStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, {"type": "websocket.send", "text": "x" * 10**6})
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert not stream.write_texts([b"between"])
            seen.set()
        while not stream.write_texts([b"behind"]):
            await trio.sleep(0.001)
        await send({"type": "websocket.close", "code": 1000})

    async with served(respond) as address, connected(address) as plain:
        client = WebSocketClient(plain.stream)
        await client.converse(seen)
    assert [text[:7] for text in client.texts] == ["xxxxxxx", "behind"]


async def test_nothing_is_written_after_a_close_frame() -> None:
    checked = trio.Event()

    async def respond(receive: Any, send: Any, stream: WebSocketStream) -> None:
        stream.limit(10)
        assert (await receive())["type"] == "websocket.disconnect"
        # The close frame is sent, and the client has not answered it.
        assert not stream.closed
        assert not stream.write_texts([b"after it"])
        checked.set()

    async with served(respond) as address, connected(address) as plain:
        client = WebSocketClient(plain.stream)
        await client.converse(hello="a message that is too large")
        assert client.code == 1009
        with trio.fail_after(5):
            await checked.wait()
    assert client.texts == []


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_a_frame_as_the_library_makes_it(size: int) -> None:
    text = "\u00e9" * (size // 2) + "x" * (size % 2)
    made = Connection(ConnectionType.SERVER).send(TextMessage(data=text))
    assert text_frame(text.encode()) == made


async def test_events_of_a_run_wake_no_task_of_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    app = AgentApp(app_name="direct")

    @app.query()
    async def count(msgs: Any, **_: Any) -> Any:
        for number in range(20):
            await trio.sleep(0.01)
            yield f"{number} "

    writes: list[int] = []
    write = SocketWriter.write

    async def noted(self: SocketWriter, texts: list[str]) -> None:
        writes.append(len(texts))
        await write(self, texts)

    monkeypatch.setattr(SocketWriter, "write", noted)
    events: list[dict[str, Any]] = []
    async with running(app) as (host, port), open_websocket(host, port, "/ws", use_ssl=False) as client:
        await client.send_message(json.dumps({"type": "start", "id": "a", "request": {"input": "go"}}))
        while (frame := json.loads(await client.get_message()))["type"] != "done":
            events += [frame["event"]] if frame["type"] == "event" else []
    assert frame == {"type": "done", "id": "a", "state": "FINISHED"}
    assert [event["sequence_number"] for event in events] == list(range(26))
    assert events[-1]["output"][0]["content"][0]["text"] == "".join(f"{number} " for number in range(20))
    # `ready`, `started`, `done`, and what there is before the reader waits. All else is written by the run's task.
    assert len(writes) <= 5


async def test_a_client_that_detaches_gets_no_half_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    app = AgentApp(app_name="direct")

    @app.query()
    async def count(msgs: Any, **_: Any) -> Any:
        await trio.sleep(0.05)
        yield "x" * 40_000
        await trio.sleep_forever()

    deliver = SocketRun._deliver

    def detaching(self: SocketRun, *args: Any) -> Delivery:
        delivery = deliver(self, *args)
        if delivery is Delivery.BEGUN:
            self.scope.cancel(reason="as if the client had detached")
        return delivery

    monkeypatch.setattr(SocketRun, "_deliver", detaching)
    async with running(app) as (host, port), open_websocket(host, port, "/ws", use_ssl=False) as client:
        await client.send_message(json.dumps({"type": "start", "id": "a", "request": {"input": "go"}}))
        sizes = []
        with trio.fail_after(5):
            while not sizes or sizes[-1] < 40_000:
                sizes.append(len(await client.get_message()))
    assert sizes[-1] > 40_000


@asynccontextmanager
async def running(app: AgentApp) -> AsyncIterator[tuple[str, int]]:
    config = ServerConfig()
    config.bind = ["127.0.0.1:0"]
    config.graceful_timeout = config.force_close_after = 0.5
    [listener] = config.create_sockets().insecure_sockets
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    over = trio.Event()
    async with trio.open_nursery() as nursery:
        with trio.fail_after(30):
            await nursery.start(lambda **started: serve(app, config, shutdown_trigger=over.wait, **started))
            yield listener.getsockname()
            over.set()
