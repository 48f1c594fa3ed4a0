"""An agent whose tasks can be killed from outside: each has a name, and gets an exception where it waits."""

from __future__ import annotations

import os

import trio

from trio_agentapp import AgentApp, Timings

app = AgentApp(
    app_name="Vulnerable",
    interrupt_redis_url=os.environ.get("REDIS_URL"),
    event_store="redis" if "REDIS_URL" in os.environ else "local",
    state_url=os.environ.get("REDIS_URL"),
    timings=Timings(
        lease=2, heartbeat=0.3, cutoff=1, offline_cleanup=0.5, margin=0.5, call_timeout=0.5, reaper=0.5
    ),
    drain_timeout=1,
    cleanup_budget=5,
)


def mark(text: str) -> None:
    with open(os.path.join(os.environ["FOLDER"], "marks"), "a") as marks:
        marks.write(f"{text}\n")


@app.query()
async def chat(run):
    try:
        while True:
            yield "x"
            await trio.sleep(0.05)
    finally:
        async with run.cleanup():
            await trio.sleep(0.1)
        mark("cleaned")


@app.task("/jobs")
async def job(body: dict):
    await trio.sleep(0.01)


def tasks() -> dict[str, trio.lowlevel.Task]:
    """All of this process, by name; several of one name are numbered."""
    found: dict[str, trio.lowlevel.Task] = {}
    pending = [trio.lowlevel.current_root_task()]
    while pending:
        task = pending.pop()
        name = task.name
        number = 1
        while name in found:
            number += 1
            name = f"{task.name}#{number}"
        found[name] = task
        for nursery in task.child_nurseries:
            pending += nursery.child_tasks
    return found


@app.get("/tasks")
async def names() -> list[str]:
    return sorted(tasks())


class Killed(Exception):
    pass


def kill():
    raise Killed("by the test")


def base_kill():
    raise SystemExit(3)


@app.post("/kill")
async def kill_one(body: dict) -> dict:
    name = body["name"]
    task = tasks()[name]
    # What a cancellation does, with another exception. The task may wait in a call whose failures it survives.
    while tasks().get(name) is task:
        if task._abort_func is not None:
            task._attempt_abort(base_kill if body.get("base") else kill)
        await trio.sleep(0.001)
    return {"killed": True}


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=0)
