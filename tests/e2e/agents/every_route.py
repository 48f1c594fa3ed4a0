"""An app with every route of the package, whose users have keys, or certificates. Its hooks fail on demand.

The file `mode` names the hook that fails, and how: `authenticate raises`, `authorize hangs`, `authenticate late`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import trio

from trio_agentapp import AgentApp, AgentRequest, Principal, Run
from trio_agentapp.auth import BearerTokens, ClientCertificates
from trio_agentapp.wires import AgentCardWithRuntimeConfig

LATE = 1.2
WHERE = Path(os.environ["WHERE"])
if "AGENTAPP_CA_CERTS" in os.environ:
    credentials: Any = ClientCertificates("DNS", scopes={"alice": [], "bob": "read write"})
else:
    credentials = BearerTokens(WHERE / "keys", header="X-API-Key")


async def fail(hook: str) -> None:
    mode = (WHERE / "mode").read_text() if (WHERE / "mode").exists() else ""
    if mode == f"{hook} raises":
        raise RuntimeError("the hook is broken")
    if mode == f"{hook} hangs":
        await trio.sleep_forever()
    if mode == f"{hook} late":
        with trio.CancelScope(shield=True):
            await trio.sleep(LATE)


async def authenticate(request: Any) -> Principal | None:
    await fail("authenticate")
    found: Principal | None = await credentials(request)
    return found


async def authorize(
    principal: Principal | None, action: str, user_id: str, session_id: str | None, run_id: str | None
) -> bool:
    await fail("authorize")
    return principal is not None and principal.user_id == user_id


app = AgentApp(
    authenticate=authenticate,
    authorize=authorize if os.environ.get("AUTHORIZE") else None,
    auth_timeout=float(os.environ.get("AUTH_TIMEOUT", "10")),
    require_auth=True,
    enable_stream_task=True,
    web_ui=True,
    a2a_config=AgentCardWithRuntimeConfig(extended_card={"description": "For users."}),
    cleanup_budget=1,
)


@app.query()
async def chat(run: Run, request: AgentRequest) -> AsyncIterator[str]:
    yield str(request.user_id)
    if "forever" in str(request.input):
        if run.entry == "process":
            run.start_soon(run.ask, "Anything?")
        while True:
            await run.receive()


@app.task("/job")
async def job(seconds: float = 0, said: str = "done") -> str:
    await trio.sleep(seconds)
    return said


@app.get("/own/routes")
async def routes() -> list[str]:
    return [f"{method} {rule.rule}" for rule in app.url_map.iter_rules() for method in rule.methods or ()]


if __name__ == "__main__":
    app.run(host="127.0.0.1")
