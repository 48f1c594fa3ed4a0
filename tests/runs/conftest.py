"""A house for runs: a registry over a backend that can misbehave, and what is true at the end of every test."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trio_agentapp.abc import StopAnswer
from trio_agentapp.interrupts import LocalInterruptBackend
from trio_agentapp.protocol.events import ContentEvent, Event, ResponseEvent
from trio_agentapp.protocol.ids import SessionKey, new_run_id, new_session_id
from trio_agentapp.protocol.lifecycle import RunState, StopReceipt
from trio_agentapp.protocol.request import MultitaskStrategy
from trio_agentapp.runs import Gap, Handler, Run, RunRegistry, driver, stop_run
from trio_agentapp.testing import UnrulyBackend


class House:
    def __init__(self, backend: UnrulyBackend, registry: RunRegistry) -> None:
        self.backend = backend
        self.registry = registry
        self.started: list[Run] = []
        self.abandoned: set[str] = set()
        """Runs whose readers got a terminal event before the run had ended, since it overran its cleanup budget."""

    def new_run(
        self,
        *,
        key: SessionKey | None = None,
        run_id: str | None = None,
        timeout_s: float | None = None,
        on_disconnect: Any = "continue",
        name: str = "handler",
    ) -> Run:
        return Run(
            run_id=run_id or new_run_id(),
            key=key or SessionKey("ann", new_session_id()),
            timeout_s=timeout_s,
            cleanup_budget=self.registry.cleanup_budget,
            on_disconnect=on_disconnect,
            handler_name=name,
        )

    async def start(self, fn: Callable[..., Any], *, strategy: MultitaskStrategy = "reject", **options: Any) -> Run:
        handler = Handler(fn)
        run = self.new_run(name=handler.name, **options)
        offered = {"self": self, "msgs": ["hello"], "request": "request", "run": run, "app": "app"}
        await self.registry.start(run, handler, offered, strategy=strategy)
        self.started.append(run)
        return run

    async def play(self, fn: Callable[..., Any], **options: Any) -> Run:
        """Start, and wait for the end."""
        run = await self.start(fn, **options)
        await run.ended.wait()
        return run

    async def stop(self, run: Run, *, wait: bool = False) -> StopReceipt:
        return await stop_run(self.registry, self.backend, run.key, run.run_id, wait=wait)

    async def request_stop(self, run: Run) -> StopAnswer:
        """A stop from another node: only the signal reaches the run."""
        return await self.backend.request_stop(run.key, run.run_id)

    async def check_ended(self, run: Run) -> None:
        """What holds for every run that has ended, whatever it did."""
        assert run.ended.is_set()
        assert run.log.closed
        told = await events_of(run)
        terminal = [event for event in told if isinstance(event, ResponseEvent) and event.terminal]
        assert len(terminal) == 1
        assert told[-1] is terminal[0]
        assert run.lifecycle.ending is not None
        if run.run_id not in self.abandoned:
            shown = {RunState.FINISHED: "completed", RunState.STOPPED: "canceled", RunState.ERROR: "failed"}
            assert terminal[0].status == shown[run.lifecycle.ending.state]
        assert self.registry.find(run.run_id) is None
        record = await self.backend.inner.run_status(run.run_id)
        assert record is not None
        assert (record.state, record.reason) == (run.lifecycle.ending.state, run.lifecycle.ending.cause)


async def events_of(run: Run) -> list[Event]:
    told: list[Event] = []
    with run.log.subscribe() as reader:
        try:
            while True:
                told += [event for event in await reader.receive() if not isinstance(event, Gap)]
        except trio.EndOfChannel:
            return told


def words_of(run: Run) -> str:
    """The text that readers of the run have been shown."""
    return "".join(event.text for event in run.log.kept if isinstance(event, ContentEvent) and event.delta)


def how(run: Run) -> tuple[str, str]:
    assert run.lifecycle.ending is not None
    return run.lifecycle.ending.state.value, run.lifecycle.ending.cause.value


Open = Callable[..., AbstractAsyncContextManager[House]]

MAX_REAL_SECONDS = 60.0
"""Real time of one test on the virtual clock. Most take milliseconds."""


def new_bounded_clock() -> MockClock:
    """An autojump clock with a bound: a test that would never end fails.

    There are two ways not to end. A task that polls for something that never comes jumps for ever. If all tasks
    wait without a deadline, there is nothing to jump to, and Trio's loop spins.
    """
    clock = MockClock(autojump_threshold=0)
    jump, gives_up_at = clock._autojump, time.monotonic() + MAX_REAL_SECONDS

    def bounded_jump() -> None:
        if time.monotonic() > gives_up_at:
            # Raised in Trio's own loop, since a shielded task would not notice anything else.
            raise AssertionError(f"this test does not end: virtual time {clock.current_time():g} s")
        jump()

    clock._autojump = bounded_jump
    return clock


@pytest.fixture
def autojump_clock() -> MockClock:
    """In place of pytest-trio's own, which has no bound."""
    return new_bounded_clock()


@pytest.fixture
def bounded_clock() -> Callable[[], MockClock]:
    return new_bounded_clock


@asynccontextmanager
async def open_a_house(**options: Any) -> AsyncIterator[House]:
    check = options.pop("check", True)
    backend = options.pop("backend", None) or UnrulyBackend(LocalInterruptBackend())
    options.setdefault("cleanup_budget", 10.0)
    registry = RunRegistry(backend, node_id=options.pop("node_id", "node-1"), **options)
    house = House(backend, registry)
    async with registry.open():
        yield house
    assert registry.live() == []
    assert registry._by_key == {}
    for run in house.started:
        if check:
            await house.check_ended(run)
        status = await backend.inner.status(run.key)
        assert not check or status.state is not RunState.RUNNING


@pytest.fixture
def open_house() -> Open:
    return open_a_house


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """A house on a virtual clock needs `autojump_clock` as well. Every run in it must have ended well."""
    async with open_a_house() as house:
        yield house


@pytest.fixture(autouse=True)
def nobody_was_warned() -> None:
    driver._warned.clear()


@pytest.fixture
def log_text(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    caplog.set_level(logging.DEBUG, "trio_agentapp")
    return lambda: caplog.text


@pytest.fixture
def words() -> Callable[[Run], str]:
    return words_of


@pytest.fixture(name="how")
def how_it_ended() -> Callable[[Run], tuple[str, str]]:
    return how


@pytest.fixture
def events() -> Callable[[Run], Any]:
    return events_of
