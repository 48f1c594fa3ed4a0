"""The agent of the end-to-end tests: what a request's extra field `do` names, it does.

`FOLDER` is where it leaves its marks, `AGENT_OPTIONS` a JSON object of its parameters.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import trio

from trio_agentapp import AgentApp, AgentRequest, Run, Timings

FOLDER = Path(os.environ["FOLDER"])
OPTIONS: dict[str, Any] = json.loads(os.environ.get("AGENT_OPTIONS", "{}"))
if "watchdog_margin" in OPTIONS:
    from trio_agentapp.server import launcher

    launcher.WATCHDOG_MARGIN = OPTIONS.pop("watchdog_margin")
if "timings" in OPTIONS:
    OPTIONS["timings"] = Timings(**OPTIONS["timings"])
for module, name in (
    ("web.websocket.writer", "SEND_TIMEOUT"),
    ("web.websocket.socket", "MAX_RUNS_PER_SOCKET"),
    ("server.websocket_stream", "PING_INTERVAL"),
    ("runs.ticker", "STALLED"),
    ("runs.ticker", "KEEP_ALIVE"),
):
    if name.lower() in OPTIONS:
        setattr(importlib.import_module(f"trio_agentapp.{module}"), name, OPTIONS.pop(name.lower()))

app = AgentApp(app_name="Friday", app_description="A scripted assistant", **OPTIONS)

gates: dict[str, trio.Event] = {}


def mark(text: str) -> None:
    with open(FOLDER / "marks", "a") as file:
        file.write(text + "\n")


def gate(name: str) -> trio.Event:
    return gates.setdefault(name, trio.Event())


async def hello(msgs: Any, request: AgentRequest, run: Run) -> AsyncIterator[Any]:
    yield "Hello"
    yield " World!"


async def echo(msgs: Any, request: AgentRequest, run: Run) -> AsyncIterator[Any]:
    yield json.dumps(
        {"said": msgs[-1].text, "user": request.user_id, "session": request.session_id, "run": run.run_id}
    )


async def remember(msgs: Any, request: AgentRequest, run: Run) -> AsyncIterator[Any]:
    """Counts the turns of its session."""
    states = app.state.state_service
    state = await states.load(request.user_id, request.session_id) or {"turns": 0}
    state["turns"] += 1
    await states.save(request.user_id, request.session_id, state)
    yield str(state["turns"])


async def endless(msgs: Any, request: AgentRequest, run: Run) -> AsyncIterator[Any]:
    """Talks until it is stopped, cleans up for `cleanup` seconds, and saves in a plain `finally`."""
    text = ""
    try:
        while True:
            token = f"t{text.count(' ')} "
            text += token
            yield token
            await trio.sleep(request.extra.get("period", 0.02))
    except trio.Cancelled:
        async with run.cleanup():
            mark(f"cleaning {request.session_id}")
            for _ in range(6):
                await trio.sleep(request.extra.get("cleanup", 0.3) / 6)
            mark(f"cleaned {request.session_id}")
        raise
    finally:
        await app.state.state_service.save(request.user_id, request.session_id, {"text": text})


async def shell(msgs: Any, request: AgentRequest, run: Run) -> AsyncIterator[Any]:
    """A shell with a grandchild that takes its time to end; it says their process ids."""
    command = "(trap 'sleep 0.3; exit' TERM; while :; do sleep 0.05; done) & echo $! $$; wait"
    async with run.open_process(command, shell=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        async for piece in process.stdout:
            yield piece.decode()


async def gated(msgs: Any, request: AgentRequest, run: Run) -> AsyncIterator[Any]:
    """Waits for the gate of its session before it says anything."""
    try:
        await gate(request.session_id).wait()
        yield "open"
    except trio.Cancelled:
        async with run.cleanup():
            await trio.sleep(request.extra.get("cleanup", 0.0))
            mark(f"cleaned {request.session_id}")
        raise


async def work(msgs: Any, request: AgentRequest, run: Run) -> AsyncIterator[Any]:
    """Works for `seconds`, and says so in steps."""
    steps = int(request.extra.get("seconds", 1) / 0.02)
    for step in range(steps):
        yield f"{step} "
        await trio.sleep(0.02)


async def ask(msgs: Any, request: AgentRequest, run: Run) -> AsyncIterator[Any]:
    """Ask for approval, and tell the answer."""
    yield f"approved: {(await run.ask('Delete it?', schema=bool)).approved}"


async def recite(msgs: Any, request: AgentRequest, run: Run) -> AsyncIterator[Any]:
    """Says whose run it is, `times` times or for ever, and then how often it did."""
    said = 0
    while said < request.extra.get("times", 1_000_000):
        yield f"{request.session_id}/{run.run_id}/{said} "
        said += 1
        await trio.sleep(request.extra.get("period", 0.02))


async def listen(msgs: Any, request: AgentRequest, run: Run) -> AsyncIterator[Any]:
    """Repeats two messages that are put in."""
    for _ in range(2):
        yield (await run.receive()).text


async def burst(msgs: Any, request: AgentRequest, run: Run) -> AsyncIterator[Any]:
    """Says `size` characters `times` times, as fast as it may."""
    for _ in range(request.extra.get("times", 1000)):
        yield "x" * request.extra.get("size", 10)


async def bulk(msgs: Any, request: AgentRequest, run: Run) -> AsyncIterator[Any]:
    """`pieces` of `size` bytes, as fast as they are taken."""
    for _ in range(request.extra["pieces"]):
        yield "x" * request.extra["size"]
        await trio.sleep(request.extra.get("period", 0.0))


async def nursery(msgs: Any, request: AgentRequest, run: Run) -> AsyncIterator[Any]:
    """Two tools in a nursery of its own; no statement after it may run once it is stopped."""
    for step in range(1000):
        async with trio.open_nursery() as tools:
            tools.start_soon(trio.sleep, 0.05)
            tools.start_soon(tool, request.session_id)
            yield f"step {step} "
        mark(f"step {step} {request.session_id}")


async def tool(session_id: str) -> None:
    try:
        await gate(session_id).wait()
    except trio.Cancelled:
        mark(f"tool cancelled {session_id}")
        raise
    mark(f"tool went on {session_id}")


async def calls(msgs: Any, request: AgentRequest, run: Run) -> AsyncIterator[Any]:
    """Is stopped while a tool is called."""
    yield {
        "type": "function_call",
        "content": [{"type": "data", "data": {"call_id": "call_1", "name": "search", "arguments": "{}"}}],
    }
    await trio.sleep_forever()


async def forever(msgs: Any, request: AgentRequest, run: Run) -> AsyncIterator[Any]:
    """Swallows every stop, and has no end of its own."""
    while True:
        try:
            yield "no "
            await trio.sleep(0.02)
        except trio.Cancelled:
            await trio.lowlevel.cancel_shielded_checkpoint()


BEHAVIOURS = {
    "hello": hello,
    "echo": echo,
    "remember": remember,
    "endless": endless,
    "shell": shell,
    "gated": gated,
    "work": work,
    "bulk": bulk,
    "ask": ask,
    "recite": recite,
    "burst": burst,
    "listen": listen,
    "nursery": nursery,
    "calls": calls,
    "forever": forever,
}


@app.query()
@functools.wraps(hello)
def chat(msgs: Any, request: AgentRequest, run: Run) -> AsyncIterator[Any]:
    """Marks its begin and its end, so that tests know when nothing of it runs any more."""
    mark(f"begin {request.session_id}")
    run.on_exit(lambda: mark(f"end {request.session_id}"))
    return BEHAVIOURS[request.extra.get("do", "hello")](msgs, request, run)


# What tests look at: native routes, as a user would write them.


@app.get("/test/state/{user_id}/{session_id}")
async def saved_state(user_id: str, session_id: str) -> dict[str, Any]:
    return {"state": await app.state.state_service.load(user_id, session_id)}


@app.get("/test/live")
async def live() -> dict[str, Any]:
    return {"live": app._open().registry.statistics().live, "pid": os.getpid()}


@app.get("/test/readers/{run_id}")
async def readers(run_id: str) -> dict[str, Any]:
    run = app._open().registry.find(run_id)
    return {"readers": -1 if run is None else len([*run.log.subscribers])}


@app.get("/test/tasks")
async def tasks() -> dict[str, Any]:
    """The names of all tasks of this process, and how many readers its runs have."""
    found: list[trio.lowlevel.Task] = [task for task in [trio.lowlevel.current_root_task()] if task is not None]
    for task in found:
        found += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    opened = app._open()
    logs = [*(run.log for run in opened.registry.live()), *opened.registry.ticker.logs]
    return {
        "tasks": [task.name for task in found],
        "readers": sum(len([*log.subscribers]) for log in logs),
    }


@app.post("/test/gate/{name}")
async def open_gate(name: str) -> dict[str, Any]:
    gate(name).set()
    return {}


if __name__ == "__main__":
    app.run(host="127.0.0.1")
