"""Handlers written for asyncio: what a request's extra field `do` names, it does."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from trio_agentapp import AgentApp, AgentRequest


def mark(text: str) -> None:
    with open(Path(os.environ["FOLDER"]) / "marks", "a") as file:
        file.write(text + "\n")


class Client:
    """A client that belongs to the loop on which it was opened."""

    async def __aenter__(self) -> Client:
        self.loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert asyncio.get_running_loop() is self.loop
        mark("client closed")

    async def ask(self) -> str:
        assert asyncio.get_running_loop() is self.loop
        await asyncio.sleep(0)
        return "client"


@asynccontextmanager
async def lifespan(app: AgentApp) -> AsyncIterator[None]:
    async with app.bridge.open(Client()) as client:
        app.state.client = client
        app.state.word = await app.bridge.run(client.ask)
        yield


app = AgentApp(lifespan=lifespan, **json.loads(os.environ.get("AGENT_OPTIONS", "{}")))


@app.query(framework="asyncio")
async def chat(self: Any, msgs: Any, request: AgentRequest, run: Any) -> AsyncIterator[Any]:
    async for item in BEHAVIOURS[request.extra["do"]](request, run):
        yield item


async def hello(request: AgentRequest, run: Any) -> AsyncIterator[Any]:
    run.usage = {"input_tokens": 3}
    run.on_exit(lambda: mark(f"exit {run.session_id}"))
    yield f"{app.state.word} {await app.state.client.ask()}"
    await run.emit(" emitted")


async def receive(request: AgentRequest, run: Any) -> AsyncIterator[Any]:
    yield "waiting "
    yield (await run.receive()).text


async def endless(request: AgentRequest, run: Any) -> AsyncIterator[Any]:
    try:
        while True:
            yield "tick "
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        await asyncio.sleep(0.05)
        mark(f"cancelled {run.session_id}")
        raise
    finally:
        await asyncio.sleep(0.05)
        mark(f"saved {run.session_id}")


async def fail(request: AgentRequest, run: Any) -> AsyncIterator[Any]:
    yield "so far"
    raise ValueError("wombat-4711")


async def late(request: AgentRequest, run: Any) -> AsyncIterator[Any]:
    try:
        yield "late"
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        await asyncio.sleep(0.3)
        mark(f"late {run.session_id}")


async def never(request: AgentRequest, run: Any) -> AsyncIterator[Any]:
    yield "never"
    while not (Path(os.environ["FOLDER"]) / "release").exists():
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            mark(f"swallowed {run.session_id}")


async def stray(request: AgentRequest, run: Any) -> AsyncIterator[Any]:
    async def task() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            mark(f"stray ended {run.session_id}")

    run.start_soon(task)
    yield "left"
    await asyncio.sleep(0.02)


async def block(request: AgentRequest, run: Any) -> AsyncIterator[Any]:
    yield "blocking"
    await asyncio.sleep(0.1)
    mark("blocking")
    time.sleep(2)  # noqa: ASYNC251  # the fault that is tried
    mark("unblocked")


BEHAVIOURS = {fn.__name__: fn for fn in (hello, receive, endless, fail, late, never, stray, block)}


@app.get("/ask")
async def ask() -> dict[str, Any]:
    return {"answer": await app.bridge.run(app.state.client.ask)}


@app.get("/native")
async def native() -> dict[str, Any]:
    return {}


if __name__ == "__main__":
    app.run(host="127.0.0.1")
