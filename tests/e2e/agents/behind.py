"""An app with all that has addresses in it, for proxies in front of it. `/seen` shows what it sees of a client."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import trio
from quart import Response, redirect, request, url_for, websocket

from trio_agentapp import AgentApp, AgentRequest, Run
from trio_agentapp.auth import TrustedProxyHeader
from trio_agentapp.runs import ticker
from trio_agentapp.wires import AgentCardWithRuntimeConfig

FOLDER = Path(os.environ["FOLDER"])
OPTIONS: dict[str, Any] = json.loads(os.environ.get("AGENT_OPTIONS", "{}"))
ticker.KEEP_ALIVE = OPTIONS.pop("keep_alive", ticker.KEEP_ALIVE)
proxy_user = TrustedProxyHeader("X-User", trusted=["127.0.0.1"])
app = AgentApp(
    enable_stream_task=True,
    web_ui=True,
    access_log=True,
    admin_token="0123456789abcdef",
    a2a_config=AgentCardWithRuntimeConfig(agent_card={"provider": {"organization": "Us"}}),
    allowed_hosts=["*"],
    **OPTIONS,
)
gates: dict[str, trio.Event] = {}


def mark(text: str) -> None:
    with (FOLDER / "marks").open("a") as file:
        file.write(text + "\n")


@app.query()
async def chat(request: AgentRequest, run: Run) -> AsyncIterator[str]:
    """Says how many steps it has gone, and waits for `/step` before each, if it is asked to `walk`."""
    if request.extra.get("do") != "walk":
        yield "Hello"
        return
    try:
        for step in range(request.extra.get("steps", 3)):
            yield f"step {step}. "
            gate = gates[str(run.session_id)] = trio.Event()
            await gate.wait()
    except trio.Cancelled:
        mark(f"stopped {run.session_id}")
        raise


@app.route("/step/<session>", methods=["POST"])
async def take_step(session: str) -> dict[str, bool]:
    gate = gates.pop(session, None)
    if gate is not None:
        gate.set()
    return {"taken": gate is not None}


@app.task("/job")
async def job(said: str = "done") -> str:
    return said


@app.route("/seen")
async def seen() -> dict[str, Any]:
    principal = await proxy_user(request) if "X-User" in request.headers else None
    return {
        "address": request.remote_addr,
        "url": request.url,
        "user": principal and principal.user_id,
        "http": request.http_version,
    }


@app.route("/folder/")
async def folder() -> dict[str, str]:
    return {"here": url_for("folder"), "whole": url_for("folder", _external=True)}


@app.route("/elsewhere")
async def elsewhere() -> Any:
    return redirect(url_for("folder"))


@app.websocket("/seen/socket")
async def seen_by_socket() -> None:
    await websocket.accept()
    await websocket.send(json.dumps({"type": "seen", "address": websocket.remote_addr, "url": websocket.url}))


@app.route("/guarded", methods=["POST"])
async def guarded() -> Response:
    return Response("no", status=401)


@app.route("/large", methods=["POST"])
async def large() -> Response:
    return Response(str(len(await request.get_data())))


if __name__ == "__main__":
    app.run(port=0)
