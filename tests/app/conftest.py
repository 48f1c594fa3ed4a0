"""Apps in this process: their life through ASGI, as a server would drive it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio
from quart.typing import TestClientProtocol

from trio_agentapp import AgentApp

Served = Callable[[AgentApp], AbstractAsyncContextManager[TestClientProtocol]]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's settings but the test's."""
    import os

    for name in list(os.environ):
        if name.startswith("AGENTAPP_") or name in ("HOST", "PORT"):
            monkeypatch.delenv(name)


@pytest.fixture
def served() -> Served:
    return serve


@asynccontextmanager
async def serve(app: AgentApp) -> AsyncIterator[TestClientProtocol]:
    """The app between `lifespan.startup` and `lifespan.shutdown.complete`; raises what it says has failed."""
    app.launched = True
    to_app, app_receives = trio.open_memory_channel[Any](10)
    app_sends, from_app = trio.open_memory_channel[Any](10)

    async def expect(kind: str) -> None:
        with trio.fail_after(10):
            message = await from_app.receive()
        if message["type"] != kind:
            raise RuntimeError(f"{message['type']}: {message.get('message')}")

    async with trio.open_nursery() as nursery:
        scope: Any = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        nursery.start_soon(app, scope, app_receives.receive, app_sends.send)
        await to_app.send({"type": "lifespan.startup"})
        await expect("lifespan.startup.complete")
        yield app.test_client()
        await to_app.send({"type": "lifespan.shutdown"})
        await expect("lifespan.shutdown.complete")


async def post(client: Any, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
    """Status and JSON; `data` in place of a body is sent as it is."""
    if "data" not in options:
        options["json"] = body if body is not None else {}
    with trio.fail_after(10):
        response = await client.post(path, **options)
        return response.status_code, json.loads(await response.get_data())


def chat_body(text: str = "hi", **fields: Any) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": text}], "stream": False, **fields}


async def first_event(events: Any) -> Any:
    """The first one, leaving nothing for the garbage collector to complain of."""
    try:
        return await anext(events)
    finally:
        if hasattr(events, "aclose"):
            await events.aclose()
