"""What ended requests and runs leave to the garbage collector. Its pauses delay every stream of the process."""

from __future__ import annotations

import gc
import json
from collections import Counter
from typing import Any

import trio
import trio.testing

from trio_agentapp import AgentApp
from trio_agentapp.server.config import ServerConfig
from trio_agentapp.server.server import serve

REQUESTS = 20

PER_REQUEST = 4
"""Objects in cycles after one request. There is none at present; this is a margin for the next versions of Quart,
Hypercorn and h11."""

BODY = json.dumps({"input": "go"}).encode()

PROCESS = (
    b"POST /process HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
HEALTH = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


async def ask(address: tuple[str, int], request: bytes) -> bytes:
    async with await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(request)
        return b"".join([data async for data in stream])


async def test_requests_and_runs_are_freed_without_the_garbage_collector() -> None:
    app = AgentApp(app_name="garbage")

    @app.query()
    async def greet(msgs: Any, **_: Any) -> Any:
        yield "Hello"
        await trio.sleep(0.001)
        yield "World"

    config = ServerConfig()
    config.bind = ["127.0.0.1:0"]
    [listener] = config.create_sockets().insecure_sockets
    over = trio.Event()
    async with trio.open_nursery() as nursery:
        with trio.fail_after(60):
            await nursery.start(lambda **started: serve(app, config, shutdown_trigger=over.wait, **started))
            for request, expected in ((PROCESS, b'"completed"'), (HEALTH, b"200")):
                # What is made once is made.
                await ask(listener.getsockname(), request)
                await trio.testing.wait_all_tasks_blocked()
                gc.collect()
                gc.disable()
                gc.set_debug(gc.DEBUG_SAVEALL)
                try:
                    for _ in range(REQUESTS):
                        assert expected in await ask(listener.getsockname(), request)
                    await trio.testing.wait_all_tasks_blocked()
                    gc.collect()
                    left = Counter(type(each).__name__ for each in gc.garbage)
                finally:
                    gc.set_debug(0)
                    gc.garbage.clear()
                    gc.enable()
                assert left.total() <= PER_REQUEST * REQUESTS, left
            over.set()
