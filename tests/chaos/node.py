"""One node: an agent that writes down what it does, as it does it. A program; `cluster.py` starts it.

`CHAOS_NODE` is a JSON object: `url`, `prefix`, `timings`, `name`, and `lines`, the file all nodes append to.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import trio

from trio_agentapp import AgentApp, AgentRequest, Run
from trio_agentapp.protocol.timings import Timings

GIVEN: dict[str, Any] = json.loads(os.environ["CHAOS_NODE"])
LINES = os.open(GIVEN["lines"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

app = AgentApp(
    app_name=GIVEN["name"],
    interrupt_redis_url=GIVEN["url"],
    redis_prefix=GIVEN["prefix"],
    timings=Timings(**GIVEN["timings"]),
    cleanup_budget=10.0,
    drain_timeout=1.0,
)


def note(what: str, run: Run) -> None:
    """One line, written at once: small appends of several processes do not mix."""
    line = {
        "t": time.monotonic(),
        "what": what,
        "run": run.run_id,
        "session": run.session_id,
        "token": run.token,
        "node": GIVEN["name"],
    }
    os.write(LINES, json.dumps(line).encode() + b"\n")


@app.query()
async def chat(self: Any, msgs: Any, request: AgentRequest, run: Run) -> AsyncIterator[str]:
    """Talks every `period` seconds, for `seconds` or for ever, and cleans up for `cleanup` seconds."""
    period = request.extra.get("period", 0.01)
    ends_at = time.monotonic() + request.extra.get("seconds", math.inf)
    note("enter", run)
    run.on_exit(lambda: note("exit", run))
    try:
        while (left := ends_at - time.monotonic()) > 0:
            yield "x"
            await trio.sleep(min(period, left))
            note("slice", run)
    except trio.Cancelled:
        note("cancelled", run)
        async with run.cleanup():
            note("cleanup", run)
            await trio.sleep(request.extra.get("cleanup", 0.0))
            note("cleaned", run)
        raise
    finally:
        note("leave", run)


@app.get("/test/live")
async def live() -> dict[str, Any]:
    statistics = app._running().statistics()
    return {"live": statistics.live, "stuck": list(statistics.stuck)}


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=0)
