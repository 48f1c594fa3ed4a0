"""Ordinary and odd code that would harm others if it could: each kind, in every place that users write code for."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from quart import Response, request, websocket

from trio_agentapp import AgentApp, AgentRequest, Principal, Run


class Odd(BaseException):
    pass


class Mute(Exception):
    def __repr__(self) -> str:
        raise SystemExit("no words")

    __str__ = __repr__


class Flaky(Exception):
    """Has text once."""

    asked = 0

    def __repr__(self) -> str:
        self.asked += 1
        if self.asked > 1:
            raise SystemExit("no words any more")
        return "words"

    __str__ = __repr__


class Nameless(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in ("__name__", "__qualname__"):
            raise SystemExit("no name")
        return super().__getattribute__(name)


class Strange(Exception, metaclass=Nameless):
    pass


class Name(str):
    def __repr__(self) -> str:
        raise SystemExit("no name")


class Surrogate(Exception):
    def __str__(self) -> str:
        return "half \ud83d"


async def ticks() -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        for number in range(1000):
            yield number
            await trio.sleep(0.001)


async def timed() -> AsyncIterator[int]:
    with trio.move_on_after(60):
        for number in range(1000):
            yield number


async def numbers() -> AsyncIterator[int]:
    yield 1


async def fail(error: BaseException) -> None:
    raise error


async def fail_in_nursery(error: BaseException, name: str | None = None) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail, error, name=name)
        await trio.sleep_forever()


async def do(kind: str) -> str:
    """Most raise; those that leave something behind return."""
    match kind:
        case "exit":
            sys.exit(3)
        case "argparse":
            argparse.ArgumentParser().parse_args(["--unknown"])
        case "interrupt":
            raise KeyboardInterrupt
        case "generator exit":
            raise GeneratorExit
        case "odd":
            raise Odd
        case "stop iteration":
            raise StopAsyncIteration
        case "thread":
            await trio.to_thread.run_sync(sys.exit, 3)
        case "odd in nursery":
            await fail_in_nursery(Odd())
        case "mute":
            raise Mute
        case "mute in nursery":
            await fail_in_nursery(Mute())
        case "mute beside nursery":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                raise Mute
        case "mute group":
            raise BaseExceptionGroup("two", [Mute(), KeyError(Mute())])
        case "surrogate":
            raise Surrogate
        case "flaky":
            raise Flaky
        case "flaky in nursery":
            await fail_in_nursery(Flaky())
        case "nameless":
            raise Strange
        case "name of a task":
            await fail_in_nursery(ValueError(), name=Name("x"))
        case "huge":
            raise ValueError("x" * 20_000_000)
        case "break":
            async for _ in ticks():
                break
        case "anext":
            await anext(ticks())
        case "break of a timed one":
            async for _ in timed():
                break
        case "break in a thread's call":

            def work() -> None:
                trio.from_thread.run(do, "break")

            await trio.to_thread.run_sync(work, abandon_on_cancel=True)
        case "break in a plain thread's call":
            token, done = trio.lowlevel.current_trio_token(), trio.Event()

            def plain() -> None:
                trio.from_thread.run(do, "break", trio_token=token)
                trio.from_thread.run_sync(done.set, trio_token=token)

            threading.Thread(target=plain).start()
            await done.wait()
        case "many":
            for _ in range(3_000):
                await anext(numbers())
        case "break in a nursery's task":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(do, "break")
        case "break in a time-out":
            with trio.move_on_after(10):
                async for _ in ticks():
                    break
        case "nursery":
            nursery = await trio.open_nursery().__aenter__()
            nursery.start_soon(trio.sleep_forever)
        case "scope":
            trio.CancelScope().__enter__()
        case "parent":
            parent = trio.lowlevel.current_task().parent_nursery
            assert parent is not None
            parent.cancel_scope.cancel(reason="it is there")
            await trio.sleep_forever()
        case "kept":
            kept = []
            with trio.CancelScope() as scope:
                scope.cancel(reason="to get one")
                try:
                    await trio.sleep_forever()
                except trio.Cancelled as exc:
                    kept.append(exc)
                    raise
            raise kept[0]
        case "kept in a group":
            try:
                await do("kept")
            except trio.Cancelled as exc:
                raise BaseExceptionGroup("two", [exc, ValueError()]) from None
    return "went on"


@asynccontextmanager
async def lifespan(app: AgentApp) -> AsyncIterator[None]:
    kind = os.environ.get("IN_LIFESPAN")
    if kind in (None, "break before a nursery"):
        async for _ in ticks():
            break
    if kind is None:
        yield
    else:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(later, kind)
            yield
            nursery.cancel_scope.cancel(reason="the app is through")
    async for _ in ticks():
        break


async def later(kind: str) -> None:
    await trio.sleep(0.5)
    await do(kind)


async def before_start(app: AgentApp) -> None:
    async for _ in ticks():
        break
    if kind := os.environ.get("BEFORE_START"):
        await do(kind)


class Layer:
    """An ASGI middleware."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and (kind := dict(scope["headers"]).get(b"x-layer")):
            await do(kind.decode())
        await self.app(scope, receive, send)


class AssignedLayer(Layer):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and (kind := dict(scope["headers"]).get(b"x-assigned")):
            await do(kind.decode())
        await self.app(scope, receive, send)


async def authenticate_oddly(asked: Any) -> Principal:
    if kind := asked.headers.get("x-authenticate"):
        await do(kind)
    return Principal(asked.headers.get("x-user", "ann"))


async def authorize_oddly(principal: Any, action: str, user: Any, session: Any, run: Any) -> bool:
    if session is not None and session.startswith("oddly "):
        await do(session.removeprefix("oddly "))
    return True


app = AgentApp(
    app_name="Harmful",
    lifespan=lifespan,
    before_start=before_start,
    authenticate=authenticate_oddly,
    authorize=authorize_oddly,
    **json.loads(os.environ.get("AGENT_OPTIONS", "{}")),
)


@app.query()
async def chat(run: Run, request: AgentRequest) -> AsyncIterator[str]:
    kind, where = request.extra.get("do"), request.extra.get("where")
    if kind is None:
        for word in ("I", " am", " fine"):
            yield word
            await trio.sleep(request.extra.get("pace", 0.02))
        return
    yield "so far"
    match where:
        case "child":
            run.start_soon(do, kind)
            await trio.sleep(0.1)
        case "nursery":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(do, kind)
        case "exit":
            run.on_exit(lambda: do(kind))
        case _:
            yield await do(kind)


@app.endpoint("/function")
async def function(kind: str):
    return await do(kind)


@app.endpoint("/generator")
async def generator(kind: str):
    yield "so far"
    yield await do(kind)


@app.endpoint("/sync-function")
def sync_function(kind: str):
    return trio.from_thread.run(do, kind)


@app.endpoint("/sync-generator")
def sync_generator(kind: str):
    yield "so far"
    yield trio.from_thread.run(do, kind)


@app.task("/task")
async def task(body: dict[str, str]):
    return await do(body["kind"])


@app.task("/task-result")
async def task_result(body: dict[str, str]):
    class Result:
        def to_dict(self):
            raise Odd

    return Result()


@app.get("/route")
async def route():
    return await do(request.args["kind"])


@app.get("/plain-stream")
async def plain_stream():
    kind = request.args["kind"]

    async def body():
        yield b"so far\n"
        yield (await do(kind)).encode()

    return Response(body())


@app.before_request
async def before_request():
    if kind := request.headers.get("x-before"):
        await do(kind)


@app.errorhandler(LookupError)
async def on_lookup_error(error):
    await do(request.args["kind"])
    return "handled", 500


@app.get("/error-handler")
async def error_handler():
    raise LookupError


@app.teardown_request
async def teardown(error):
    if request and (kind := request.headers.get("x-teardown")):
        await do(kind)


@app.middleware("http")
async def layer(asked, call_next):
    if kind := asked.headers.get("x-middleware"):
        await do(kind)
    return await call_next(asked)


app.add_middleware(Layer)
# As Quart's documentation has it.
app.asgi_app = AssignedLayer(app.asgi_app)  # type: ignore[method-assign]


@app.websocket("/socket")
async def socket():
    kind = await websocket.receive()
    await websocket.send(await do(kind))


@app.post("/background")
async def background():
    app.nursery.start_soon(do, (await request.get_json())["kind"])
    return {}


if __name__ == "__main__":
    app.run(host="127.0.0.1")
