"""One node: an agent that writes down what it does, as it does it. A program; `cluster.py` starts it.

`CHAOS_NODE` is a JSON object: `url`, `prefix`, `timings`, `name`, `events` (which event store), `stalled` (seconds
after which a reader that takes nothing is cut), and `lines`, the file all nodes append to.
"""

from __future__ import annotations

import gc
import json
import math
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import trio

from trio_agentapp import AgentApp, AgentRequest, Run
from trio_agentapp.events import local
from trio_agentapp.protocol.timings import Timings
from trio_agentapp.runs import ticker

GIVEN: dict[str, Any] = json.loads(os.environ["CHAOS_NODE"])
LINES = os.open(GIVEN["lines"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
if GIVEN["stalled"] is not None:
    ticker.STALLED = GIVEN["stalled"]
# The events of an ended run are forgotten with its record, also where that is kept for a shorter time than usual.
local.RETENTION = GIVEN["timings"]["retention"]

app = AgentApp(
    app_name=GIVEN["name"],
    interrupt_redis_url=GIVEN["url"],
    redis_prefix=GIVEN["prefix"],
    event_store=GIVEN["events"],
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


async def talk(msgs: Any, request: AgentRequest, run: Run) -> AsyncIterator[Any]:
    """Every `period` seconds, for `seconds` or for ever."""
    period = request.extra.get("period", 0.01)
    ends_at = time.monotonic() + request.extra.get("seconds", math.inf)
    while (left := ends_at - time.monotonic()) > 0:
        yield "x"
        await trio.sleep(min(period, left))
        note("slice", run)


async def count(msgs: Any, request: AgentRequest, run: Run) -> AsyncIterator[Any]:
    """`events` numbers of `size` bytes each, one every `period` seconds, each with its time; and `linger` more."""
    period, size = request.extra.get("period", 0.0), request.extra.get("size", 0)
    due = trio.current_time()
    for number in range(request.extra["events"]):
        yield f"{number}@{time.monotonic():.6f} ".ljust(size, ".")
        if period:
            due += period
            await trio.sleep_until(due)
    await trio.sleep(request.extra.get("linger", 0.0))


async def mixed(msgs: Any, request: AgentRequest, run: Run) -> AsyncIterator[Any]:
    """Text and calls of tools, as they come, for ever."""
    chance = random.Random(run.run_id)
    for number in range(10**9):
        for _ in range(chance.randint(0, 5)):
            yield f"wörd {number} "
            await trio.sleep(chance.uniform(0.0, 0.01))
        call = {"call_id": f"call_{number}", "name": "search", "arguments": "{}"}
        yield {"type": "function_call", "content": [{"type": "data", "data": call}]}
        await trio.sleep(chance.uniform(0.0, 0.02))
        result = {"call_id": f"call_{number}", "output": "found"}
        yield {"type": "function_call_output", "role": "tool", "content": [{"type": "data", "data": result}]}


async def listen(msgs: Any, request: AgentRequest, run: Run) -> AsyncIterator[Any]:
    """Says what it receives, until it receives "over"; it begins with it after `deaf` seconds."""
    yield "here "
    await trio.sleep(request.extra.get("deaf", 0.0))
    while (text := (await run.receive()).text) != "over":
        yield text + " "


BEHAVIOURS = {"talk": talk, "count": count, "mixed": mixed, "listen": listen}


@app.query()
async def chat(self: Any, msgs: Any, request: AgentRequest, run: Run) -> AsyncIterator[Any]:
    """What the request's field `do` names; cleans up for `cleanup` seconds when it is stopped."""
    note("enter", run)
    run.on_exit(lambda: note("exit", run))
    try:
        async with aclosing(BEHAVIOURS[request.extra.get("do", "talk")](msgs, request, run)) as items:
            async for item in items:
                yield item
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
    statistics = app._open().registry.statistics()
    return {"live": statistics.live, "stuck": list(statistics.stuck), "pid": os.getpid()}


@app.get("/test/readers/<run_id>")
async def readers(run_id: str) -> dict[str, Any]:
    """Readers of a run on this node, wherever it runs."""
    run = app._open().registry.find(run_id)
    followed = app._open().run_routes.access.viewing._followed.get(run_id)
    log = (
        run.log if run is not None else followed.log if followed is not None and followed.counted.is_set() else None
    )
    return {"readers": 0 if log is None else len([*log.subscribers])}


@app.get("/test/resources")
async def resources() -> dict[str, int]:
    """What this process holds: bytes of memory, open files, tasks."""
    return {
        "rss": _resident(),
        "files": len(os.listdir("/proc/self/fd")),
        "tasks": trio.lowlevel.current_statistics().tasks_living,
    }


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=0)
