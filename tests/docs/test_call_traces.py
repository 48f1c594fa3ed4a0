"""The two traces of ARCHITECTURE.md are what happens: their functions are called, and in this order."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType

import httpx
import pytest
import trio

from trio_agentapp import AgentApp, Principal, Run
from trio_agentapp.interrupts.redis import RedisInterruptBackend
from trio_agentapp.protocol import Message
from trio_agentapp.server.config import ServerConfig
from trio_agentapp.server.server import serve
from trio_agentapp.testing.redis_server import RedisServer, installed_kinds

ROOT = Path(__file__).parents[2]
PACKAGE = f"{ROOT / 'trio_agentapp'}/"
NAMED = re.compile(r"`((?:\w+/)*\w+\.py)`\s+`(\w+(?:\.\w+)*)`")

Call = tuple[str, str]
"""A file of the package, and the qualified name of a function in it."""

RESUMED = " goes on"
"""Follows the name if a coroutine goes on after an await."""


@contextmanager
def recorded(calls: list[Call]) -> Iterator[None]:
    """Note each call of the package's functions in this thread, also each time that a task goes on in one."""

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE):
            # It stands at a RESUME, whose argument is 0 at the start of a function.
            resumed = RESUMED if code.co_code[frame.f_lasti + 1] & 3 else ""
            calls.append((code.co_filename.removeprefix(PACKAGE), code.co_qualname + resumed))

    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)


@asynccontextmanager
async def node(redis: RedisServer, request: list[Call], stop: list[Call]) -> AsyncIterator[str]:
    """Serve an app; yields its URL.

    Its handler writes until `request` has events that did not take the short way, as in every burst. If it is
    stopped, it unwinds when `stop` has the wait for its end.
    """
    backend = RedisInterruptBackend(redis.url)
    backend._quarantine._lease = 0.0
    app = AgentApp(
        interrupt_backend=backend,
        authenticate=lambda _: Principal("ann"),  # type: ignore[arg-type, return-value]
        authorize=lambda *_: True,  # type: ignore[arg-type, return-value]
    )

    @app.query()
    async def chat(msgs: list[Message], run: Run) -> AsyncIterator[str]:
        yield "Hello"
        while msgs[-1].text == "write" and request.count(("runs/stream.py", "Subscriber._take")) < 2:
            yield "."
        if msgs[-1].text == "wait":
            try:
                await trio.sleep_forever()
            finally:
                async with run.cleanup():
                    while ("interrupts/redis.py", "RedisInterruptBackend.watching") not in stop:
                        await trio.sleep(0.005)

    config = ServerConfig()
    config.bind = ["127.0.0.1:0"]
    over = trio.Event()
    async with trio.open_nursery() as nursery:
        [url] = await nursery.start(lambda **start: serve(app, config, shutdown_trigger=over.wait, **start))
        with trio.fail_after(10):
            while backend.trouble is not None:
                await trio.sleep(0.005)
        yield url
        over.set()


@pytest.fixture(scope="module")
def traces() -> dict[str, list[Call]]:
    """The calls of a request and of a stop, by the heading of their trace."""

    async def record() -> dict[str, list[Call]]:
        request: list[Call] = []
        stop: list[Call] = []
        async with (
            RedisServer(installed_kinds()[0]) as redis,
            node(redis, request, stop) as one,
            node(redis, request, stop) as two,
            httpx.AsyncClient(timeout=30) as client,
        ):
            with recorded(request):
                await client.post(f"{one}/process", json={"input": "write", "stream": True})
            chat = {"input": "wait", "session_id": "chat", "stream": True}
            async with client.stream("POST", f"{one}/process", json=chat) as stream:
                async for line in stream.aiter_lines():
                    if not stop and "Hello" in line:
                        with recorded(stop):
                            answer = await client.post(f"{two}/stop?wait=1", json={"session_id": "chat"})
                        assert answer.json()["stopped"]
        return {"A request, from socket to socket": request, "A stop across two nodes": stop}

    return trio.run(record)


def tables(heading: str) -> list[list[Call]]:
    """The functions in the second column of each table of a part of the page."""
    part = (ROOT / "ARCHITECTURE.md").read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found: list[list[Call]] = []
    for line in part.splitlines():
        if line.startswith("| step |"):
            found.append([])
        elif line.startswith("|"):
            found[-1] += NAMED.findall(line.split("|")[2])
    return found


def followed(calls: Sequence[Call], steps: Sequence[Call], start: int = 0) -> int:
    """Find the steps in this order. Returns the place of the last one.

    A class or function stands for what is defined in it. A function that was called before the trace began, such as
    that of a service, only goes on in it.
    """
    place = start
    for file, name in steps:
        places = [i for i, each in enumerate(calls) if each[0] == file and f"{each[1]}.".startswith(f"{name}.")]
        places = places or [i for i, each in enumerate(calls) if each == (file, name + RESUMED)]
        assert places, f"{file} {name} is not called"
        later = [i for i in places if i >= place]
        assert later, f"{file} {name} is called before {calls[place]}, and not after it"
        place = later[0]
    return place


@pytest.mark.parametrize("heading", ["A request, from socket to socket", "A stop across two nodes"])
def test_the_steps_of_a_trace_are_taken_in_this_order(traces: dict[str, list[Call]], heading: str) -> None:
    first, *others = tables(heading)
    assert [len(steps) for steps in others] >= [4, 3]
    began = followed(traces[heading], first)
    # The others run at the same time as each other.
    for steps in others:
        followed(traces[heading], steps, began)


def test_the_paragraphs_after_a_request_are_in_order_too(traces: dict[str, list[Call]]) -> None:
    heading = "A request, from socket to socket"
    page = (ROOT / "ARCHITECTURE.md").read_text()
    for begin in ("Steps 25 to 28 are the general way", "The end of the run:"):
        steps = NAMED.findall(page.partition(f"\n{begin}")[2].partition("\n\n")[0])
        assert len(steps) >= 3
        followed(traces[heading], steps)
