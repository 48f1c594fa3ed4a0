"""An app whose users prove who they are. One of them has a long chat; the other one attacks."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import trio
from quart import websocket

from trio_agentapp import AgentApp, AgentRequest, Principal, Run
from trio_agentapp.wires import AgentCardWithRuntimeConfig

USERS = {"mallory": "mallory", os.environ["ANNA_TOKEN"]: "anna"}


def authenticate(request: Any) -> Principal | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return Principal(USERS[token]) if scheme == "Bearer" and token in USERS else None


app = AgentApp(
    app_name="Guarded",
    authenticate=authenticate,
    require_auth=True,
    admin_token=os.environ["ADMIN_TOKEN"],
    metrics=True,
    read_timeout=2,
    drain_timeout=0,
    enable_stream_task=True,
    a2a_config=AgentCardWithRuntimeConfig(),
)


@app.query()
async def chat(request: AgentRequest, run: Run) -> AsyncIterator[Any]:
    if request.user_id != "anna":
        yield "hello"
        return
    ended = trio.Event()

    async def wait_for_the_end() -> None:
        await run.receive()
        ended.set()

    run.start_soon(wait_for_the_end)
    number = 0
    while not ended.is_set():
        yield f"secret-{number} "
        number += 1
        await trio.sleep(0.02)


@app.task("/chore")
async def chore(data: Any) -> Any:
    return "done"


@app.websocket("/echo")
async def echo() -> None:
    while True:
        await websocket.send(await websocket.receive())


if __name__ == "__main__":
    app.run()
