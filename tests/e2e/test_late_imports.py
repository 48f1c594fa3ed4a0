"""Requests import nothing: an import needs a file descriptor, and fails if the process has none left."""

from __future__ import annotations

import os
import resource
from typing import Any

import pytest

from trio_agentapp.testing.redis_server import RedisServer

from .conftest import Start
from .harness import READY, WAYS, Server, fresh, say
from .http2 import http2
from .sockets import connect

FORM = b'--B\r\nContent-Disposition: form-data; name="f"; filename="f.txt"\r\n\r\n%b\r\n--B--\r\n' % (
    b"x" * 600_000
)
BODIES: list[Any] = [
    {"input": say(), "stream": False},
    {"input": say("fail")},
    {"input": "text"},
    {"inptu": say()},
    {"input": [{"role": "user"}]},
    b"{",
]


async def use_each_route(server: Server) -> None:
    async with server.chat(session_id=fresh()) as chat:
        await chat.finish()
    run = f"/runs/{chat.run_id}"
    for path in ("/", "/health", "/nowhere", "/runs", run, f"{run}/wait", f"{run}/stream", "/sessions/s", "/fail"):
        await server.call("GET", path)
    for body in BODIES:
        await server.call("POST", "/process", body)
    for path in ("/stop", "/stop?wait=1", "/runs/cancel", f"{run}/cancel", f"{run}/input", "/echo"):
        await server.call("POST", path, {"input": say(), "session_id": fresh()})
    for path, body in (("/double", 3), ("/double", None), ("/process/task", {"input": say()}), ("/count", None)):
        task = (await server.call("POST", path, body)).header("location")
        if task:
            await server.call("GET", task)
            await server.call("POST", f"{task}/cancel?wait=1")
    for kind in ("multipart/form-data; boundary=B", "application/x-www-form-urlencoded", "text/plain"):
        await server.call("POST", "/echo", FORM, headers={"Content-Type": kind})
    await server.call("DELETE", "/process")
    for host in ("evil.example", "xn--mnchen-3ya.example:80", "[::1]", f"{'a' * 64}.example"):
        await server.call("GET", "/health", headers={"Host": host})
    await server.call(
        "OPTIONS", "/process", headers={"Origin": "http://a", "Access-Control-Request-Method": "POST"}
    )
    async with http2(server) as client:
        await client.answer(await client.request("GET", "/health"))
    async with connect(server) as socket:
        await socket.start("a", session_id=fresh())
        await socket.wait_for("a", "done")


async def assert_nothing_is_imported(server: Server) -> None:
    await use_each_route(server)
    assert server.marks == [], server.marks
    # An import would be seen.
    await server.call("GET", "/import/this")
    assert "this" in server.marks


@pytest.mark.parametrize("way", WAYS)
async def test_requests_import_nothing(start: Start, way: str) -> None:
    await assert_nothing_is_imported(start("importing", way))


async def test_requests_import_nothing_with_redis(start: Start) -> None:
    async with RedisServer() as redis:
        options = {"interrupt_redis_url": redis.url, "event_store": "redis", "state_url": redis.url}
        await assert_nothing_is_imported(start("importing", **options))


async def test_the_first_request_is_answered_with_the_last_descriptor(start: Start) -> None:
    server = start("importing", ready=False)
    await server.wait_until(lambda: READY.search(server.log), "line that it is ready", seconds=30)
    ready = READY.search(server.log)
    assert ready
    server.port = int(ready[1])
    used = {int(name) for name in os.listdir(f"/proc/{server.process.pid}/fd")}
    free = next(number for number in range(len(used) + 1) if number not in used)
    assert max(used) < free, "there are gaps, so that a limit leaves more than one descriptor"
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (free + 1, free + 1))
    assert (await server.call("GET", "/health")).status == 200
