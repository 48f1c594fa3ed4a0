"""The tasks of the end-to-end tests. `FOLDER` is where they leave their marks, `REDIS_URL` is broker and backend.

`app.run()` at the end is not guarded: a Celery worker imports this module.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import trio

from trio_agentapp import AgentApp, AgentRequest, Run, Timings, current_task

FOLDER = Path(os.environ["FOLDER"])
URL = os.environ["REDIS_URL"]
OPTIONS: dict[str, Any] = json.loads(os.environ.get("AGENT_OPTIONS", "{}"))
TIMINGS = Timings(
    lease=2.0,
    heartbeat=0.3,
    cutoff=1.0,
    offline_cleanup=0.5,
    margin=0.4,
    reaper=0.3,
    call_timeout=0.5,
    call_retry=0.1,
)

app = AgentApp(
    app_name="Tasks",
    broker_url=URL,
    backend_url=URL,
    interrupt_redis_url=URL,
    enable_stream_task=True,
    timings=TIMINGS,
    **{"cleanup_budget": 5, **OPTIONS},
)
celery = app.celery


def mark(text: str) -> None:
    with open(FOLDER / "marks", "a") as file:
        file.write(text + "\n")


def begin() -> str:
    task_id = current_task().task_id
    mark(f"begin {task_id}")
    return task_id


@app.task("/square", queue="celery")
def square(data: Any) -> Any:
    begin()
    return {"result": data["x"] ** 2}


@app.task("/add")
async def add(a: int, b: int = 1) -> int:
    begin()
    await trio.sleep(0.01)
    return a + b


@app.task("/count")
def count(data: int) -> Iterator[int]:
    yield from range(data)


@app.task("/count_async")
async def count_async(data: int) -> AsyncIterator[int]:
    for number in range(data):
        yield number


@app.task("/fail")
def fail(data: Any) -> None:
    raise ZeroDivisionError("secret words")


@app.task("/long", queue="long")
async def long(data: Any) -> None:
    """Until it is stopped."""
    task_id = begin()
    try:
        await trio.sleep_forever()
    finally:
        async with current_task().cleanup():
            await trio.sleep(0.05)
            mark(f"cleaned {task_id}")


@app.task("/limited", timeout=0.3)
async def limited(data: Any) -> None:
    await long(data)


@app.task("/long_sync")
def long_sync(data: Any) -> None:
    task_id = begin()
    try:
        while True:
            time.sleep(0.01)
            trio.from_thread.check_cancelled()
    finally:
        mark(f"cleaned {task_id}")


@app.task("/long_flag")
def long_flag(data: Any) -> None:
    task_id = begin()
    current_task().stopping.wait()
    mark(f"cleaned {task_id}")


@app.task("/long_items", queue="long")
async def long_items(data: Any) -> AsyncIterator[int]:
    task_id = begin()
    try:
        while True:
            yield 1
            await trio.sleep(0.01)
    except trio.Cancelled:
        async with current_task().cleanup():
            await trio.sleep(0.01)
            mark(f"cleaned {task_id}")
        raise


@app.query()
async def chat(msgs: Any, request: AgentRequest, run: Run) -> AsyncIterator[str]:
    mark(f"begin {run.run_id}")
    yield "Hello"
    if request.extra.get("do") == "long":
        try:
            await trio.sleep_forever()
        finally:
            async with run.cleanup():
                await trio.sleep(0.05)
                mark(f"cleaned {run.run_id}")
    yield f" from {os.getpid()}"


app.run(host="127.0.0.1")
