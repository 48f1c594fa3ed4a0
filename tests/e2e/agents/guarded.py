"""An agent whose users prove who they are: by a bearer token, which is their name, or by a cookie."""

from __future__ import annotations

import json
import os
from typing import Any

import trio
from quart import websocket

from trio_agentapp import AgentApp, AgentRequest, Principal

USERS = ("u1", "u2", "u3")


def authenticate(request: Any) -> Principal | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    name = token if scheme == "Bearer" else request.cookies.get("user")
    return Principal(name) if name in USERS else None


app = AgentApp(authenticate=authenticate, **json.loads(os.environ.get("AGENT_OPTIONS", "{}")))


@app.query()
async def chat(request: AgentRequest) -> Any:
    yield request.user_id
    if request.extra.get("forever"):
        await trio.sleep_forever()


@app.websocket("/own/broken")
async def broken() -> None:
    await websocket.send("hello")
    raise RuntimeError("broken")


@app.websocket("/own/fine")
async def fine() -> None:
    await websocket.send("hello")


if __name__ == "__main__":
    app.run(host="127.0.0.1")
