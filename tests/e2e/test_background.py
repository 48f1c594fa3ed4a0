"""Each task of the background is killed in turn: the process says so, ends its runs, and leaves; never a zombie."""

from __future__ import annotations

import contextlib
import json
import re

import h11
import pytest
import trio

from trio_agentapp.testing.redis_server import RedisServer

from .conftest import Start
from .harness import TERMINAL, Server, fresh, say

SERVING = re.compile(
    r"<|GET |hypercorn\.(trio\.task_group|utils)|HTTPConnection|_run_handler|_Connections\._connection|_serve_one"
    r"|_idle_timeout"
)
"""Tasks of one connection or request, which end alone, and Trio's and Hypercorn's own."""

STORES_THE_ENDS = re.compile(r"event|attendance|interrupt backend|\.redis\.|Redis")
"""Without these the ends of runs cannot be written to Redis: clients are told of an end all the same."""

FLAGS = {"run": (), "hypercorn": ("--workers", "0")}


def background(names: list[str]) -> list[str]:
    return [name for name in names if not SERVING.search(name)]


async def kill_and_watch(server: Server, name: str, *, base: bool = False) -> str | None:
    """Kill one task while a chat runs; the status of the last event that its client was sent."""
    session = fresh()
    async with server.connect() as client:
        await client.send("POST", "/process", {"input": say(), "session_id": session})
        await client.head()
        seen = await client.data()
        # No answer of its own: the server that gives it may be gone first.
        async with server.connect() as other:
            await other.send("POST", "/kill", {"name": name, "base": base})
            with server.deadline(15, "end of the stream"):
                # The connection may be cut in the middle of a chunk.
                with contextlib.suppress(h11.RemoteProtocolError, trio.BrokenResourceError):
                    while piece := await client.data():
                        seen += piece
    code = await server.wait_exit(10)
    assert code == 1, f"{name} was killed, and the exit code is {code}:\n{server.log}"
    assert "by the test" in server.log or "SystemExit" in server.log, f"{name}: nothing is said:\n{server.log}"
    assert server.marks == ["cleaned"], f"{name}: the run was not cleaned up"
    events = [json.loads(line) for line in re.findall(rb"(?m)^data: (\{.*\})$", seen)]
    return next((event["status"] for event in reversed(events) if event["object"] == "response"), None)


async def kill_each(start: Start, way: str, names: list[str], *, base: bool = False, **env: str) -> None:
    """Every task of `names` is killed in a server of its own, all at once: most of each kill is waiting."""
    servers = [start("vulnerable", way, flags=FLAGS[way], env=env, ready=False) for _ in names]
    for server in servers:
        server.wait_ready()

    async def kill_one(server: Server, name: str) -> None:
        status = await kill_and_watch(server, name, base=base)
        allowed = TERMINAL if env and STORES_THE_ENDS.search(name) else {"canceled"}
        assert status in allowed, (name, status, server.log)

    async with trio.open_nursery() as nursery:
        for server, name in zip(servers, names, strict=True):
            nursery.start_soon(kill_one, server, name)


@pytest.mark.parametrize("way", FLAGS)
@pytest.mark.parametrize("base", [False, True], ids=["exception", "SystemExit"])
async def test_on_one_node(start: Start, way: str, base: bool) -> None:
    first = start("vulnerable", way, flags=FLAGS[way])
    names = background(await first.get("/tasks"))
    first.kill()
    assert {"the run ticker", "the listener for stops", "the interrupt backend"} <= set(names)
    await kill_each(start, way, names, base=base)


@pytest.mark.parametrize("way", FLAGS)
async def test_with_redis(start: Start, way: str) -> None:
    async with RedisServer() as redis:
        first = start("vulnerable", way, flags=FLAGS[way], env={"REDIS_URL": redis.url})
        names = background(await first.get("/tasks"))
        first.kill()
        assert {"the lease keeper", "the run ticker", "the event store", "Redis probe"} <= set(names)
        await kill_each(start, way, names, REDIS_URL=redis.url)


async def test_hypercorn_with_a_worker_ends_too(start: Start) -> None:
    """Its exit code is Hypercorn's."""
    server = start("vulnerable", "hypercorn")
    async with server.connect() as client:
        await client.send("POST", "/kill", {"name": "the run ticker"})
        await server.wait_exit(15)
    assert "the run ticker failed; all runs of this node are stopped" in server.log
