"""It does what it is told: `ask`, `count`, `fail`, `hold`, `env NAME`; else it repeats, and counts the turns."""

from __future__ import annotations

import os

import trio

from trio_agentapp import AgentApp, Message

app = AgentApp(app_name="Parrot", drain_timeout=0.2, cleanup_budget=30)


@app.query()
async def parrot(msgs, request, run):
    order, _, rest = msgs[-1].text.partition(" ")
    if order == "fail":
        raise RuntimeError("the parrot is ill")
    if order == "env":
        yield f"{rest}={os.environ.get(rest)}"
        return
    if order == "ask":
        approved = (await run.ask("Delete it?", schema=bool)).approved
        number = (await run.ask("How many?", schema=int)).value
        yield f"approved: {approved}, number: {number}"
        return
    if order in ("count", "hold"):
        try:
            for number in range(10_000):
                yield f"{number} "
                await trio.sleep(0.02)
        finally:
            async with run.cleanup():
                await trio.sleep(4 if order == "hold" else 0.05)
        return
    yield Message.reasoning("what was that?")
    memory = await app.state.state_service.load(request.user_id, request.session_id) or {"turns": 0}
    turns = memory["turns"] + 1
    await app.state.state_service.save(request.user_id, request.session_id, {"turns": turns})
    yield f"turn {turns}: "
    yield msgs[-1].text


if __name__ == "__main__":
    app.run()
