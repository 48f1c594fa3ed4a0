"""Handlers that break the rules, behind one synchronous handler that returns whatever the broken one is."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import trio

from trio_agentapp import AgentApp, AgentRequest, Run

SECRET = "wombat-4711"

app = AgentApp(app_name="Unruly", **json.loads(os.environ.get("AGENT_OPTIONS", "{}")))
released = trio.Event()


def mark(text: str) -> None:
    with open(Path(os.environ["FOLDER"]) / "marks", "a") as file:
        file.write(text + "\n")


@app.query()
def chat(request: AgentRequest, run: Run) -> Any:
    mark(f"begin {request.session_id}")
    run.on_exit(lambda: mark(f"end {request.session_id}"))
    return BEHAVIOURS[request.extra["do"]](request, run)


async def good(request: AgentRequest, run: Run) -> AsyncIterator[str]:
    for word in ("I", " am", " fine"):
        yield word
        await trio.sleep(0.02)


async def swallow(request: AgentRequest, run: Run) -> AsyncIterator[str]:
    """Swallows the stop for as long as the test looks on."""
    while not released.is_set():
        try:
            yield "no "
            await trio.sleep(0.02)
        except trio.Cancelled:
            await trio.lowlevel.cancel_shielded_checkpoint()


async def hang(request: AgentRequest, run: Run) -> AsyncIterator[str]:
    try:
        yield "hm"
        await trio.sleep_forever()
    finally:
        async with run.cleanup():
            await trio.sleep_forever()


def sleeper(request: AgentRequest, run: Run) -> str:
    time.sleep(1.5)
    return "slept"


def sleepy_generator(request: AgentRequest, run: Run) -> Iterator[str]:
    for number in range(1000):
        time.sleep(0.05)
        yield f"{number} "


async def greedy(request: AgentRequest, run: Run) -> AsyncIterator[str]:
    """Never awaits."""
    while True:
        yield "x"


async def raise_first(request: AgentRequest, run: Run) -> AsyncIterator[str]:
    raise ValueError(SECRET)
    yield ""


async def raise_later(request: AgentRequest, run: Run) -> AsyncIterator[str]:
    yield "so far"
    raise ValueError(SECRET)


async def raise_group(request: AgentRequest, run: Run) -> AsyncIterator[str]:
    yield "so far"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(explode, KeyError(SECRET))
        nursery.start_soon(explode, OSError(SECRET))


async def explode(error: Exception) -> None:
    raise error


def raise_sync(request: AgentRequest, run: Run) -> str:
    raise LookupError(SECRET)


async def raise_in_cleanup(request: AgentRequest, run: Run) -> AsyncIterator[str]:
    try:
        yield "so far"
        await trio.sleep_forever()
    finally:
        raise RuntimeError(SECRET)


async def raise_in_child(request: AgentRequest, run: Run) -> AsyncIterator[str]:
    yield "so far"
    run.start_soon(explode, OSError(SECRET))
    await trio.sleep_forever()


def nothing(request: AgentRequest, run: Run) -> None:
    return None


async def silent(request: AgentRequest, run: Run) -> AsyncIterator[str]:
    if released is None:
        yield "never"


async def a_set(request: AgentRequest, run: Run) -> AsyncIterator[Any]:
    yield "so far"
    yield {SECRET}


async def surrogates(request: AgentRequest, run: Run) -> AsyncIterator[str]:
    yield "a\ud800b"
    yield "\udfff"


async def pretends(request: AgentRequest, run: Run) -> AsyncIterator[str]:
    """Raises Cancelled's relatives by itself."""
    yield "so far"
    raise GeneratorExit(SECRET)


async def too_slow(request: AgentRequest, run: Run) -> AsyncIterator[str]:
    yield "so far"
    with trio.fail_after(0.01):
        await trio.sleep_forever()


async def yield_in_nursery(request: AgentRequest, run: Run) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 0.01)
        with trio.CancelScope():
            yield "from inside"


BEHAVIOURS = {
    fn.__name__: fn
    for fn in (
        good,
        swallow,
        hang,
        sleeper,
        sleepy_generator,
        greedy,
        raise_first,
        raise_later,
        raise_group,
        raise_sync,
        raise_in_cleanup,
        raise_in_child,
        nothing,
        silent,
        a_set,
        surrogates,
        pretends,
        too_slow,
        yield_in_nursery,
    )
}


@app.post("/test/release")
async def release() -> dict[str, Any]:
    released.set()
    return {}


@app.get("/test/live")
async def live() -> dict[str, Any]:
    return {"live": app._open().registry.statistics().live}


if __name__ == "__main__":
    app.run(host="127.0.0.1")
