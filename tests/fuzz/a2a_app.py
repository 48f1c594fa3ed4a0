"""An app that other agents call. A task that waits belongs to one user; the other one attacks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import trio

from trio_agentapp import AgentApp, Principal
from trio_agentapp.wires import AgentCardWithRuntimeConfig, a2a_reply

USERS = {"Bearer victim": "victim", "Bearer attacker": "attacker"}


def authenticate(request: Any) -> Principal | None:
    user = USERS.get(request.headers.get("Authorization", ""))
    return None if user is None else Principal(user)


app = AgentApp(
    app_name="Fuzzed",
    authenticate=authenticate,
    drain_timeout=0,
    a2a_config=AgentCardWithRuntimeConfig(task_timeout=300),
)


@app.query()
async def chat(msgs: Any) -> AsyncIterator[Any]:
    if msgs[-1].text == "wait":
        yield "waiting"
        await trio.sleep_forever()
    elif msgs[-1].text == "reply":
        yield a2a_reply("bare")
    else:
        yield "two "
        yield "deltas"


if __name__ == "__main__":
    app.run()
