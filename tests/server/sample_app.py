"""A small app for the server's tests; runs as a script (our launcher) or under `hypercorn sample_app:app`.

`SAMPLE` is a JSON object of options, `TRACE` a file to which it writes what happens, one line each.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from quart import Response, request, websocket
from quart_trio import QuartTrio

from trio_agentapp.server.config import ServerConfig
from trio_agentapp.server.http_connection import HTTPConnection
from trio_agentapp.server.launcher import imported_by_launcher, launch
from trio_agentapp.server.lifespan import Lifespan
from trio_agentapp.server.stream_body import StreamBody
from trio_agentapp.server.tls import tls_files

OPTIONS: dict[str, Any] = json.loads(os.environ.get("SAMPLE", "{}"))


def trace(text: str) -> None:
    with open(os.environ["TRACE"], "a") as file:
        file.write(f"{text}\n")


class SampleApp(QuartTrio):
    asgi_http_class = HTTPConnection
    asgi_lifespan_class = Lifespan
    app_name = "sample"
    node_id = "node-1"
    page_path = None
    launched = False
    cleanup_budget = OPTIONS.get("cleanup_budget", 10.0)
    read_timeout = OPTIONS.get("read_timeout", 15.0)
    max_connections = OPTIONS.get("max_connections", 1000)
    wind_down_timeout = OPTIONS.get("wind_down_timeout", 20.0)
    gc_threshold = OPTIONS.get("gc_threshold", 0)

    def __init__(self) -> None:
        super().__init__("sample")
        self.live: set[LiveBody] = set()
        self.draining = False

    def unready_reason(self) -> str | None:
        return "draining" if self.draining else None

    @asynccontextmanager
    async def runtime(self) -> AsyncIterator[None]:
        trace("runtime opened")
        if OPTIONS.get("runtime_fails"):
            raise ConnectionRefusedError("no backend")
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                await self.wait_idle()
            trace("runtime closed")

    async def drain(self, hurry: trio.Event) -> None:
        if not self.draining:
            trace("draining")
        self.draining = True
        with trio.move_on_after(OPTIONS.get("drain_timeout", 0.2)):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.hurried, nursery, hurry)
                await self.wait_idle()
                nursery.cancel_scope.cancel()
        for body in tuple(self.live):
            body.wind_down()
        await self.wait_idle()
        trace("drained")

    async def hurried(self, nursery: trio.Nursery, hurry: trio.Event) -> None:
        await hurry.wait()
        trace("hurried")
        nursery.cancel_scope.cancel()

    async def wait_idle(self) -> None:
        while self.live:
            await trio.sleep(0.01)


class LiveBody(StreamBody):
    """Sends chunks until it is stopped, then cleans up for `cleanup` seconds and sends a last line."""

    def __init__(self, app: SampleApp, chunk: bytes, every: float, cleanup: float) -> None:
        self.app, self.chunk, self.every, self.cleanup = app, chunk, every, cleanup
        self.stopped = trio.Event()
        self.said_goodbye = False

    async def __aenter__(self) -> LiveBody:
        self.app.live.add(self)
        trace("body entered")
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.app.live.discard(self)
        trace("body left" if self.said_goodbye else "body cut")

    def __aiter__(self) -> LiveBody:
        return self

    async def __anext__(self) -> bytes:
        if self.said_goodbye:
            raise StopAsyncIteration
        with trio.move_on_after(self.every):
            await self.stopped.wait()
            await trio.sleep_forever() if self.cleanup == float("inf") else None
        if self.stopped.is_set():
            await trio.sleep(self.cleanup)
            trace("cleaned up")
            self.said_goodbye = True
            return b"goodbye\n"
        return self.chunk

    def wind_down(self) -> None:
        if not self.stopped.is_set():
            trace("wind_down")
        self.stopped.set()


class BrokenBody(LiveBody):
    async def __anext__(self) -> bytes:
        if self.said_goodbye:
            raise ZeroDivisionError("broken body")
        self.said_goodbye = True
        return b"first\n"


class FloodBody(LiveBody):
    """A watcher of a run that is over, with a backlog without end: the drain need not wait for it."""

    async def __aenter__(self) -> FloodBody:
        trace("flood entered")
        return self


app = SampleApp()
app.config["RESPONSE_TIMEOUT"] = OPTIONS.get("response_timeout", 60)
if "background_timeout" in OPTIONS:
    app.config["BACKGROUND_TASK_SHUTDOWN_TIMEOUT"] = OPTIONS["background_timeout"]


def streaming(body: StreamBody) -> Response:
    return Response(body, content_type="text/event-stream")


@app.get("/plain")
async def plain() -> str:
    return "hello"


@app.get("/pid")
async def pid() -> str:
    return str(os.getpid())


@app.post("/echo")
async def echo() -> bytes:
    return await request.get_data()


@app.get("/stream")
async def stream() -> Response:
    cleanup = float(request.args.get("cleanup", "0"))
    return streaming(LiveBody(app, b"tick\n", 0.02, cleanup))


@app.get("/flood")
async def flood() -> Response:
    return streaming(FloodBody(app, b"x" * 65536, 0, 0))


@app.get("/watcher")
async def watcher() -> Response:
    return streaming(FloodBody(app, b"tick\n", 0.02, float(request.args["cleanup"])))


@app.get("/broken")
async def broken() -> Response:
    return streaming(BrokenBody(app, b"", 0, 0))


@app.get("/generator")
async def generator() -> Response:
    async def ticks() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"tick\n"
                await trio.sleep(0.02)
        finally:
            trace("generator closed")

    return Response(ticks())


@app.get("/slow")
async def slow() -> str:
    trace("slow view entered")
    try:
        await trio.sleep_forever()
    except trio.Cancelled:
        trace("slow view cancelled")
        raise


@app.get("/crash")
async def crash() -> str:
    async def explode() -> None:
        raise ZeroDivisionError("background bug")

    app.nursery.start_soon(explode)
    return "lit"


@app.get("/background")
async def background() -> str:
    async def work() -> None:
        await app.shutdown_event.wait()
        await trio.sleep(OPTIONS["work"])
        trace("background work done")

    app.add_background_task(work)
    return "working"


@app.get("/stuck")
async def stuck() -> str:
    app.add_background_task(trio.to_thread.run_sync, time.sleep, 1000)
    return "stuck"


@app.get("/shielded")
async def shielded() -> str:
    async def hold_on() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

    app.add_background_task(hold_on)
    return "held"


@app.get("/blocked-loop")
async def blocked_loop() -> str:
    trace("loop blocked")
    while True:
        time.sleep(0.01)  # noqa: ASYNC251  # the point of it


@app.websocket("/ws")
async def ws() -> None:
    while True:
        await websocket.send(await websocket.receive())


if OPTIONS.get("while_serving"):

    async def serving(name: str) -> AsyncGenerator[None, None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            if OPTIONS.get("while_serving") == "crash" and name == "b":
                nursery.start_soon(explode_later)
            trace(f"{name} opened")
            yield
            nursery.cancel_scope.cancel()
            trace(f"{name} closed")

    async def explode_later() -> None:
        await trio.sleep(0.3)
        raise ZeroDivisionError("bug in while_serving")

    app.while_serving_gens += [serving("a"), serving("b")]

if OPTIONS.get("before_serving_fails"):

    @app.before_serving
    async def fail() -> None:
        raise ZeroDivisionError("bug in before_serving")


@app.before_serving
async def before() -> None:
    trace("before serving")
    if OPTIONS.get("start_hangs"):
        await trio.sleep_forever()


@app.after_serving
async def after() -> None:
    trace("after serving")


if OPTIONS.get("middleware"):
    inner = app.asgi_app

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        async def receive_too() -> Any:
            return await receive()

        await inner(scope, receive_too, send)

    app.asgi_app = middleware  # type: ignore[method-assign]


for name, value in OPTIONS.get("server", {}).items():
    setattr(ServerConfig, name, value)

if __name__ == "__main__":
    sys.exit(
        launch(
            app,
            host=OPTIONS.get("host", "127.0.0.1"),
            port=OPTIONS.get("port", 0),
            tls=tls_files(*(OPTIONS.get(name) for name in ("certfile", "keyfile", "ca_certs", "cert_reqs"))),
        )
    )
elif imported_by_launcher():
    trace("imported by a launcher")
