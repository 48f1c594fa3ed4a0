"""An agent that web pages of other origins use, and a site that has such a page.

The page lies in `FOLDER`; what it reports becomes a mark.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import trio
from quart import Response
from quart import request as current

from trio_agentapp import AgentApp, AgentRequest

FOLDER = Path(os.environ["FOLDER"])

app = AgentApp(**json.loads(os.environ.get("AGENT_OPTIONS", "{}")))


class Gatekeeper:
    """Middleware that refuses what has no token, and answers `/early` itself."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers", ()))
        if scope.get("path") != "/early" and b"x-refuse" not in headers:
            await self._inner(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b"no", "more_body": False})


app.add_middleware(Gatekeeper)


@app.before_request
async def refuse() -> Response | None:
    """A preflight carries no credentials; a hook that asks for them must not see it."""
    return Response("who are you?", 401) if current.method == "OPTIONS" and current.path == "/process" else None


@app.query()
async def count(request: AgentRequest) -> Any:
    few = request.input[-1].text == "few"
    for number in range(int(request.extra.get("count", 1 if few else 40))):
        yield f"{number} "
        await trio.sleep(0.05)


@app.route("/own", methods=["OPTIONS"])
async def own() -> str:
    return "my own"


@app.get("/named")
async def named() -> Response:
    return Response("named", headers={"Access-Control-Allow-Origin": "https://chosen.example"})


@app.get("/broken")
async def broken() -> str:
    raise RuntimeError("broken")


@app.get("/page")
async def page() -> Response:
    return Response((FOLDER / "page.html").read_bytes(), content_type="text/html; charset=utf-8")


@app.post("/report")
async def report() -> str:
    told = await current.get_data(as_text=True)
    await trio.Path(FOLDER / "marks").write_text(told + "\n")
    return "thanks"


if __name__ == "__main__":
    app.run(host="127.0.0.1")
