"""Endpoints over real sockets: the examples of the product's page, and how streams end."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
import trio

from .conftest import Start
from .harness import WAYS, Client, Server

AGENT = "endpoints"

# A failure is logged, in JSON by our launcher, in Python's own words elsewhere.
ALLOWED_LOG = (
    r'^\{.*"message":"endpoint fails: its stream failed".*$\n?'
    r"|^endpoint fails: its stream failed\n(.*\n)*?LookupError: secret\n"
)

SHUTDOWN = {"error": "shutdown", "error_type": "Cancelled"}


class Frames:
    """A stream of an endpoint, as it comes."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.raw = b""

    async def read_until(self, count: int) -> list[Any]:
        with self.client.server.deadline(15, f"{count} items"):
            while len(self.items) < count:
                piece = await self.client.data()
                assert piece, f"ended after {self.raw!r}"
                self.raw += piece
        return self.items

    async def read_all(self, seconds: float = 15) -> list[Any]:
        with self.client.server.deadline(seconds, "end of a stream"):
            while piece := await self.client.data():
                self.raw += piece
        assert self.raw.endswith(b"\n\n")
        return self.items

    @property
    def items(self) -> list[Any]:
        frames = self.raw.decode().split("\n\n")[:-1]
        for frame in frames:
            assert frame == ": keep-alive" or re.fullmatch(r"data: [^\n]+", frame), frame
        return [json.loads(frame[6:]) for frame in frames if frame.startswith("data: ")]


async def opened(client: Client, path: str, method: str = "GET") -> Frames:
    await client.send(method, path)
    head = await client.head()
    assert head.status == 200
    assert head.header("content-type") == "text/event-stream; charset=utf-8"
    assert head.header("cache-control") == "no-cache, no-transform"
    assert head.header("x-accel-buffering") == "no"
    assert head.header("connection") is None
    return Frames(client)


# The examples of the page.


async def test_native_routes(server: Server) -> None:
    assert await server.get("/info") == {
        "app name": "Endpoints",
        "app description": "A helpful assistant",
        "custom_metadata": "v1.0.0",
    }
    answer = await server.call("POST", "/update_config", {"config_key": "max_tokens", "value": 512})
    assert (answer.status, answer.json()) == (200, {"status": "updated"})
    for body, status in ((b"[]", 422), (b"", 422), (b"{", 400)):
        assert (await server.call("POST", "/update_config", body)).status == status
    answer = await server.call("POST", "/update_config", b"{}", headers={"Content-Type": "text/plain"})
    assert answer.status == 415


async def test_endpoints(server: Server) -> None:
    # As `curl -X POST` asks: without a body, and without a content type.
    answer = await server.call("POST", "/hello")
    assert (answer.status, answer.json()) == (200, {"msg": "Hello world"})
    assert answer.header("content-type") == "application/json"
    async with server.connect() as client:
        frames = await opened(client, "/stream_numbers", "POST")
        assert await frames.read_all() == [f"number: {i}\n" for i in range(5)]
        # The connection can be used again.
        client.next_request()
        await client.send("POST", "/hello")
        assert (await client.answer()).json() == {"msg": "Hello world"}


async def test_the_stop_route(server: Server) -> None:
    async with server.chat(session_id="ss-123", user_id="uu-123") as chat:
        while not chat.deltas:
            await chat.next()
        body = {"input": [], "session_id": "ss-123", "user_id": "uu-123"}
        answer = await server.call("POST", "/stop", body)
        assert answer.json() == {"status": "success", "message": "Interrupt signal broadcasted."}
        assert (await chat.finish())["status"] == "canceled"


# How streams end.


@pytest.mark.parametrize("path", ["/ticks", "/quiet", "/sync_ticks"])
@pytest.mark.parametrize("way", ["close", "reset"])
async def test_hanging_up_closes_the_generator(server: Server, path: str, way: str) -> None:
    mark = {"/ticks": "ticks closed", "/quiet": "quiet closed", "/sync_ticks": "sync ticks closed"}[path]
    before = server.marks.count(mark)
    async with server.connect() as client:
        frames = await opened(client, path)
        await frames.read_until(1)
        getattr(client, way)()
        await server.wait_mark(mark, before + 1)


async def test_a_failure_is_the_last_event(server: Server) -> None:
    async with server.connect() as client:
        frames = await opened(client, "/fails")
        assert await frames.read_all() == [
            1,
            {"error": "internal", "error_type": "LookupError", "message": "Something went wrong in this stream."},
        ]
    assert b"secret" not in frames.raw


async def test_a_client_that_does_not_read_holds_its_generator_and_nobody_else(server: Server) -> None:
    async with server.connect() as client:
        await client.send("GET", "/flood")
        await client.head()
        # The kernel's buffers fill up, then the generator stands still.
        await trio.sleep(0.5)
        for _ in range(5):
            assert await server.get("/quick") == "quick"
        client.close()
    await server.wait_until(lambda: any(mark.startswith("flood closed") for mark in server.marks), "flood's end")
    (closed,) = (mark for mark in server.marks[-1:] if mark.startswith("flood closed"))
    # Megabytes at most: what sockets hold, and one buffer.
    assert int(closed.rpartition(" ")[2]) < 20_000
    (server.folder / "marks").write_text("")


async def test_blocking_functions_do_not_hold_the_loop(server: Server) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(server.call, "GET", "/blocks?seconds=0.5")
        began = time.monotonic()
        for _ in range(5):
            assert await server.get("/quick") == "quick"
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("way", WAYS)
async def test_a_stream_ends_with_its_server(start: Start, way: str) -> None:
    """Within the cleanup budget, its cleanup done, and told so."""
    agent = start("endpoints", way, cleanup_budget=5, drain_timeout=0.2)
    async with agent.connect() as one, agent.connect() as two:
        ticks, quiet = await opened(one, "/ticks?cleanup=1"), await opened(two, "/quiet")
        await ticks.read_until(2)
        await quiet.read_until(1)
        agent.send_signal()
        for frames in (ticks, quiet):
            last = (await frames.read_all())[-1]
            assert {name: last[name] for name in SHUTDOWN} == SHUTDOWN
        await agent.wait_exit()
    assert {"ticks closed", "quiet closed"} <= set(agent.marks)
    assert agent.process.returncode == 0


async def test_cleanup_that_takes_too_long_is_cut(start: Start) -> None:
    agent = start("endpoints", cleanup_budget=1, drain_timeout=0.2)
    async with agent.connect() as client:
        frames = await opened(client, "/ticks?cleanup=1000")
        await frames.read_until(1)
        agent.send_signal()
        assert (await frames.read_all())[-1]["error"] == "shutdown"
        assert await agent.wait_exit() == 0
    assert "endpoint ticks: its cleanup took longer than 1 s and was cut" in agent.log
    assert "ticks closed" not in agent.marks
