"""Trio on one side, asyncio on the other: what crosses, and what a stop does."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

from trio_agentapp import AgentApp
from trio_agentapp.abc.frameworks import TaskStop
from trio_agentapp.errors import ConfigurationError
from trio_agentapp.frameworks import Bridge, adapter_of, open_bridge
from trio_agentapp.frameworks.bridge import BridgeClosed
from trio_agentapp.frameworks.call import wait_saved
from trio_agentapp.frameworks.items import HIGH_WATER, current_items
from trio_agentapp.protocol.events import ContentEvent, StateEvent
from trio_agentapp.protocol.json_patch import apply

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.fixture
async def bridge() -> AsyncIterator[Bridge]:
    with trio.fail_after(20):
        async with open_bridge() as bridge:
            yield bridge
    assert not any("asyncio loop" in thread.name for thread in threading.enumerate())


async def collect(bridge: Bridge, fn: Any) -> list[object]:
    async with bridge.items(fn, "handler") as items:
        return [item async for item in items]


class Log:
    """What an asyncio function notes, in order."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self.reached = trio.Event()
        self._token = trio.lowlevel.current_trio_token()

    def __call__(self, entry: str) -> None:
        self.entries.append(entry)

    def reach(self) -> None:
        self._token.run_sync_soon(self.reached.set)


# Calls.


async def test_a_call_returns_and_raises(bridge: Bridge) -> None:
    async def add(a: int, b: int) -> int:
        await asyncio.sleep(0)
        return a + b

    async def fail() -> None:
        raise ValueError("no")

    assert await bridge.run(add, 1, 2) == 3
    with pytest.raises(ValueError, match="no"):
        await bridge.run(fail)


async def test_context_variables_arrive(bridge: Bridge) -> None:
    async def read() -> str:
        return variable.get()

    variable.set("of Trio")
    assert await bridge.run(read) == "of Trio"


async def test_a_cancelled_call_gets_one_cancelled_error_and_may_await_after_it(bridge: Bridge) -> None:
    log = Log()

    async def work() -> None:
        try:
            log.reach()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.02)
            log("except")
            raise
        finally:
            await asyncio.sleep(0.02)
            log("finally")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bridge.run, work)
        await log.reached.wait()
        nursery.cancel_scope.cancel()
    assert log.entries == ["except", "finally"]


async def test_a_call_that_answers_a_cancellation_with_a_value_returns_it(bridge: Bridge) -> None:
    log = Log()

    async def work() -> str:
        try:
            log.reach()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "part"
        return "whole"

    results: list[str] = []
    async with trio.open_nursery() as nursery:

        async def call() -> None:
            results.append(await bridge.run(work))

        nursery.start_soon(call)
        await log.reached.wait()
        nursery.cancel_scope.cancel()
    assert results == ["part"]


async def test_a_call_that_is_cancelled_before_it_begins_does_not_hang(bridge: Bridge) -> None:
    async def work() -> None:
        await asyncio.sleep(60)

    for _ in range(50):
        with trio.CancelScope() as scope:
            scope.cancel()
            await bridge.run(work)
        assert scope.cancelled_caught


async def test_a_cancelled_error_of_its_own_making_is_an_error(bridge: Bridge) -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match=r"work raised asyncio\.CancelledError, and nothing had cancelled it"):
        await bridge.run(work)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
async def test_what_would_end_a_loop_ends_its_call_only(bridge: Bridge, error: BaseException) -> None:
    async def work() -> None:
        raise error

    with pytest.raises(type(error)):
        await bridge.run(work)
    assert await bridge.run(partial(asyncio.sleep, 0, "alive")) == "alive"


async def test_a_stray_task_ends_with_its_call(bridge: Bridge, caplog: pytest.LogCaptureFixture) -> None:
    log = Log()

    async def stray() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.02)
            log("stray ended")

    async def work() -> None:
        asyncio.create_task(stray(), name="stray").add_done_callback(lambda _: log("done"))
        await asyncio.sleep(0)

    await bridge.run(work)
    assert log.entries == ["stray ended", "done"]
    assert "left the asyncio task 'stray'" in caplog.text


@pytest.mark.parametrize("error", [ValueError("lost"), SystemExit(3)])
async def test_an_error_in_a_stray_task_is_logged_and_harms_no_other(
    bridge: Bridge, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    async def stray() -> None:
        raise error

    async def work() -> None:
        task = asyncio.create_task(stray())
        await asyncio.sleep(0.02)
        del task

    async def other() -> str:
        await asyncio.sleep(0.1)
        return "unharmed"

    async with trio.open_nursery() as nursery:

        async def look() -> None:
            assert await bridge.run(other) == "unharmed"

        nursery.start_soon(look)
        await bridge.run(work)
    assert repr(error) in caplog.text or str(error) in caplog.text


@pytest.mark.parametrize("kind", ["task", "callback"])
async def test_an_error_that_is_found_late_is_logged_with_its_call(
    bridge: Bridge, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    async def fail(around: list[Any]) -> None:
        around.append(asyncio.current_task())
        kept = around  # only the garbage collector frees this task, because its error has it
        raise ValueError(f"lost {len(kept)}")

    async def stray() -> None:
        if kind == "task":
            around: list[Any] = []
            around.append(around)
            asyncio.create_task(fail(around))  # noqa: RUF006  a stray one
        else:
            asyncio.get_running_loop().call_soon(lambda: [][0])
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    await bridge.run(stray)
    gc.collect()
    [record] = caplog.records
    assert record.getMessage().startswith(
        "in test_an_error_that_is_found_late_is_logged_with_its_call.<locals>.stray: "
    )


async def test_a_bridge_that_is_closed_says_so() -> None:
    async with open_bridge() as bridge:
        assert await bridge.run(partial(asyncio.sleep, 0, 1)) == 1
    with pytest.raises(BridgeClosed, match="runs from the start of the app to its end"):
        await bridge.run(asyncio.sleep, 0)


async def test_an_unused_bridge_starts_no_thread() -> None:
    before = threading.active_count()
    async with open_bridge():
        assert threading.active_count() == before


# Resources.


async def test_a_resource_is_entered_and_left_on_the_loop(bridge: Bridge) -> None:
    log = Log()

    @asynccontextmanager
    async def pool() -> AsyncIterator[str]:
        task = asyncio.current_task()
        async with asyncio.timeout(60):
            yield "pool"
            await asyncio.sleep(0)
        assert asyncio.current_task() is task
        log("left")

    async with bridge.open(pool()) as value:
        assert value == "pool"
        assert log.entries == []
    assert log.entries == ["left"]


async def test_a_resource_that_cannot_be_entered_or_left_raises(bridge: Bridge) -> None:
    @asynccontextmanager
    async def pool(broken_on: str) -> AsyncIterator[None]:
        if broken_on == "entry":
            raise OSError("no server")
        yield
        raise OSError("cannot close")

    with pytest.raises(OSError, match="no server"):
        async with bridge.open(pool("entry")):
            raise AssertionError("not reached")
    with pytest.raises(OSError, match="cannot close"):
        async with bridge.open(pool("exit")):
            pass


# Handlers.


async def test_items_arrive_in_order_and_the_error_behind_them(bridge: Bridge) -> None:
    async def handler() -> AsyncIterator[int]:
        for number in range(5000):
            if number % 1000 == 0:
                await asyncio.sleep(0.001)
            yield number

    async def failing() -> AsyncIterator[int]:
        yield 1
        raise ValueError("after one")

    async def single() -> str:
        return "one"

    async def none() -> None:
        pass

    assert await collect(bridge, handler) == list(range(5000))
    assert await collect(bridge, single) == ["one"]
    assert await collect(bridge, none) == []
    seen: list[object] = []
    async with bridge.items(failing, "handler") as items:
        seen.append(await anext(items))
        with pytest.raises(ValueError, match="after one"):
            await anext(items)
    assert seen == [1]


async def test_a_fast_handler_waits_for_a_slow_reader(bridge: Bridge) -> None:
    made = 0

    async def handler() -> AsyncIterator[int]:
        nonlocal made
        for number in range(20 * HIGH_WATER):
            made += 1
            yield number

    async with bridge.items(handler, "handler") as items:
        expected = 0
        async for item in items:
            assert item == expected
            expected += 1
            if expected % HIGH_WATER == 0:
                await trio.sleep(0.005)
            assert made - expected <= HIGH_WATER + 1
    assert expected == 20 * HIGH_WATER


@pytest.mark.parametrize("at", ["await", "yield", "full"])
async def test_a_stop_is_one_cancelled_error_wherever_the_handler_is(bridge: Bridge, at: str) -> None:
    log = Log()

    async def handler() -> AsyncIterator[int]:
        try:
            yield 0
            if at == "await":
                log.reach()
                await asyncio.sleep(60)
            for number in range(10**9):
                if number == 2 * HIGH_WATER - 1:
                    log.reach()
                if at == "yield" and number % 10 == 0:
                    await asyncio.sleep(0)
                if at == "full" and number == HIGH_WATER - 2:
                    log.reach()
                yield number
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            log("cancelled")
            raise
        except GeneratorExit:
            log("closed")
            raise
        finally:
            await asyncio.sleep(0.01)
            log("finally")

    with trio.CancelScope() as scope:
        async with bridge.items(handler, "handler") as items:
            async for _ in items:
                if at != "yield":
                    await log.reached.wait()
                    await trio.sleep(0.05)
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
                elif log.reached.is_set():
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert log.entries == ["cancelled", "finally"]


@pytest.mark.parametrize("awaits", [True, False])
async def test_a_stop_at_a_yield_may_wait_for_an_await(bridge: Bridge, awaits: bool) -> None:
    """So a stream that the handler iterates over ends first; one that never awaits is stopped all the same."""
    log = Log()

    async def stream() -> AsyncIterator[int]:
        try:
            for number in range(10**9):
                if awaits:
                    await asyncio.sleep(0)
                yield number
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            log("stream")
            raise

    async def handler() -> AsyncIterator[int]:
        try:
            async for number in stream():
                if number == HIGH_WATER - 2:
                    log.reach()
                yield number
        except asyncio.CancelledError:
            log("handler")
            task = asyncio.current_task()
            assert task is not None
            log(f"cancelled {task.cancelling()} times")
            raise

    with trio.CancelScope() as scope:
        async with bridge.items(handler, "handler", in_stream=True) as items:
            assert await anext(items) == 0
            await log.reached.wait()
            while items._room is None:  # set by the other thread when the queue is full
                await trio.sleep(0.001)
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert log.entries == [*(["stream"] if awaits else []), "handler", "cancelled 1 times"]


async def test_tasks_of_a_handler_may_be_stopped_before_it(bridge: Bridge) -> None:
    """So what an agent saves when it is stopped is there when its handler saves it."""
    log = Log()

    async def agent() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
            log("agent has ended")

    async def handler() -> AsyncIterator[str]:
        task = asyncio.create_task(agent())
        try:
            yield "begun"
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            log("handler is cancelled")
            raise
        finally:
            assert task.done()

    with trio.CancelScope() as scope:
        async with bridge.items(handler, "handler", tasks_first=lambda _: "cancel") as items:
            assert await anext(items) == "begun"
            await trio.sleep(0.01)
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert log.entries == ["agent has ended", "handler is cancelled"]


@pytest.mark.parametrize(
    ("waits", "expected"),
    [
        (False, ["handler ends", "saved", "stray task is cancelled"]),
        (True, ["saved", "handler ends", "stray task is cancelled"]),
    ],
)
async def test_a_task_that_saves_is_waited_for(bridge: Bridge, waits: bool, expected: list[str]) -> None:
    """By the bridge, or by the handler."""
    log = Log()

    async def save() -> None:
        await asyncio.sleep(0.05)
        log("saved")

    async def stray() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            log("stray task is cancelled")

    async def handler() -> AsyncIterator[str]:
        tasks = [asyncio.create_task(stray())]
        try:
            yield "begun"
            await asyncio.sleep(60)
        finally:
            tasks.append(asyncio.create_task(save()))
            if waits:
                await wait_saved()
            log("handler ends")

    def at_stop(task: asyncio.Task[Any]) -> TaskStop:
        return "wait" if "save" in task.get_coro().__qualname__.rpartition(".")[2] else "ignore"

    with trio.CancelScope() as scope:
        async with bridge.items(handler, "handler", tasks_first=at_stop) as items:
            assert await anext(items) == "begun"
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert log.entries == expected


async def test_a_handler_waits_for_tasks_of_its_tasks_each_of_which_is_cancelled_once(bridge: Bridge) -> None:
    """Its agent leaves a tool, which cleans up, and ends the stream: the handler does not see that end."""
    log = Log()

    async def cleanup() -> None:
        await asyncio.sleep(0.01)
        log("after the agent")

    async def tool(name: str, seconds: float) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(seconds)
            log(name)
            raise

    async def agent(stream: asyncio.Queue[str]) -> None:
        cancelled, left = (asyncio.create_task(tool(*each)) for each in (("tool", 0.05), ("tool left alone", 0.1)))
        try:
            await asyncio.wait([cancelled, left])
        finally:
            cancelled.cancel()
            stream.put_nowait("end")

    async def handler() -> AsyncIterator[str]:
        stream: asyncio.Queue[str] = asyncio.Queue()
        task = asyncio.create_task(agent(stream))
        task.add_done_callback(lambda _: asyncio.create_task(cleanup()))
        yield "begun"
        try:
            log(await stream.get())
        except asyncio.CancelledError:
            log(f"handler is cancelled {asyncio.current_task().cancelling()} time")  # type: ignore[union-attr]
            raise

    with trio.CancelScope() as scope:
        async with bridge.items(handler, "handler", tasks_first=lambda _: "cancel_last") as items:
            assert await anext(items) == "begun"
            await trio.sleep(0.01)
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert log.entries == ["after the agent", "tool", "tool left alone", "handler is cancelled 1 time"]


async def stopped(bridge: Bridge, handler: Any, tasks_first: Any = lambda task: "cancel") -> None:
    """Stop a handler after its first item."""
    with trio.CancelScope() as scope:
        async with bridge.items(handler, "handler", tasks_first=tasks_first) as items:
            assert await anext(items) == "begun"
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught


@pytest.mark.parametrize("how", ["gathered", "grouped"])
async def test_each_task_gets_one_cancelled_error(bridge: Bridge, how: str) -> None:
    """Also one that its starter cancels, too, and so it is not disturbed in its cleanup."""
    log = Log()

    async def work(depth: int) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if depth and how == "gathered":
                await asyncio.gather(work(depth - 1), work(depth - 1))
            elif depth:
                async with asyncio.TaskGroup() as group:
                    group.create_task(work(depth - 1))
                    group.create_task(work(depth - 1))
            await asyncio.sleep(60)
        finally:
            if how == "gathered":
                assert task.cancelling() == 1
            await asyncio.sleep(0.02)  # a second CancelledError would be raised here
            log("work")

    async def handler() -> AsyncIterator[str]:
        tasks = [asyncio.create_task(work(3)) for _ in range(10)]
        await asyncio.sleep(0.01)
        try:
            yield "begun"
            await asyncio.sleep(60)
        finally:
            assert all(task.done() for task in tasks)
            log("handler")

    await stopped(bridge, handler)
    assert log.entries == ["work"] * 10 * (1 + 2 + 4 + 8) + ["handler"]


async def test_a_task_that_has_just_been_started_runs_its_cleanup(bridge: Bridge) -> None:
    log = Log()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            log("work")

    async def handler() -> AsyncIterator[str]:
        asyncio.create_task(work()).add_done_callback(lambda _: log("done"))
        try:
            yield "begun"
            # The stop comes while the loop is here, and before the task has taken its first step.
            while not current_items.get().call.cancelled:
                time.sleep(0.001)  # noqa: ASYNC251
            time.sleep(0.02)  # noqa: ASYNC251
            await asyncio.sleep(60)
        finally:
            log("handler")

    await stopped(bridge, handler)
    assert log.entries == ["work", "done", "handler"]


async def test_tasks_that_are_started_while_a_handler_is_stopped(bridge: Bridge) -> None:
    """Those of tasks that go on are cancelled, too; those of cancelled tasks are their cleanup."""
    log = Log()
    queue: asyncio.Queue[str] = asyncio.Queue()

    async def work(name: str) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            log(f"{name} is cancelled")
            queue.put_nowait("more")
            await asyncio.wait_for(clean(name), 10)
            raise

    async def clean(name: str) -> None:
        await asyncio.sleep(0.02)
        log(f"{name} is clean")

    async def pump() -> None:
        await queue.get()
        _kept.append(asyncio.create_task(work("second")))

    async def handler() -> AsyncIterator[str]:
        _kept.append(asyncio.create_task(work("first")))
        _kept.append(asyncio.create_task(pump(), name="pump"))
        await asyncio.sleep(0.01)
        try:
            yield "begun"
            await asyncio.sleep(60)
        finally:
            log("handler")

    await stopped(bridge, handler, lambda task: "wait" if task.get_name() == "pump" else "cancel")
    assert log.entries == [
        "first is cancelled",
        "second is cancelled",
        "first is clean",
        "second is clean",
        "handler",
    ]


async def test_a_task_may_be_left_to_the_handler(bridge: Bridge) -> None:
    log = Log()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            log("work")

    async def handler() -> AsyncIterator[str]:
        task = asyncio.create_task(work())
        await asyncio.sleep(0.01)
        try:
            yield "begun"
            await asyncio.sleep(60)
        finally:
            log("handler")
            task.cancel()

    await stopped(bridge, handler, lambda task: "ignore")
    assert log.entries == ["handler", "work"]


async def test_functions_are_called_at_a_stop(bridge: Bridge, caplog: pytest.LogCaptureFixture) -> None:
    log = Log()

    def fail() -> None:
        log("fails")
        raise ValueError("no token")

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            log("work")

    async def handler() -> AsyncIterator[str]:
        call = current_items.get().call
        call.on_stop(fail)
        call.on_stop(lambda: log("called"))
        _kept.append(asyncio.create_task(work()))
        await asyncio.sleep(0.01)
        try:
            yield "begun"
            await asyncio.sleep(60)
        finally:
            call.on_stop(lambda: log("called at once"))

    await stopped(bridge, handler)
    assert log.entries == ["fails", "called", "work", "called at once"]
    assert "no token" in caplog.text


async def test_what_a_handler_yields_and_raises_after_a_stop(bridge: Bridge) -> None:
    async def yielding() -> AsyncIterator[str]:
        try:
            yield "first"
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            yield "late"
            await asyncio.sleep(0.01)
            yield "later"

    async def raising() -> AsyncIterator[str]:
        try:
            yield "first"
            await asyncio.sleep(60)
        finally:
            raise ValueError("in the cleanup")

    for handler in (yielding, raising):
        seen: list[object] = []
        with trio.CancelScope() as scope:
            try:
                async with bridge.items(handler, "handler") as items:
                    async for item in items:
                        seen.append(item)
                        scope.cancel()
            except ValueError as error:
                assert handler is raising, error  # noqa: PT017
        assert seen == ["first"]


async def test_a_handler_that_blocks_stalls_asyncio_only(bridge: Bridge) -> None:
    async def blocking() -> None:
        time.sleep(0.5)  # noqa: ASYNC251

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bridge.run, blocking)
        began = trio.current_time()
        for _ in range(20):
            await trio.sleep(0.005)
        assert trio.current_time() - began < 0.4


async def test_many_handlers_are_stopped_at_once(bridge: Bridge) -> None:
    begun = ended = 0

    async def handler() -> AsyncIterator[int]:
        nonlocal begun, ended
        begun += 1
        try:
            while True:
                await asyncio.sleep(0.01)
                yield 1
        finally:
            await asyncio.sleep(0.01)
            ended += 1

    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(collect, bridge, handler)
        while begun < 200:
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert ended == 200


async def test_tasks_left_at_the_end_of_the_app_end_with_it(caplog: pytest.LogCaptureFixture) -> None:
    ended = False

    async def forever() -> None:
        nonlocal ended
        try:
            await asyncio.sleep(3600)
        finally:
            ended = True

    async with open_bridge() as bridge:
        bridge.call_asyncio(lambda: _kept.append(bridge.loop.create_task(forever(), context=contextvars.Context())))
        assert await bridge.run(partial(asyncio.sleep, 0.02, True))
    assert ended
    assert logging.getLevelName(logging.ERROR) not in caplog.text


_kept: list[Any] = []


def test_a_framework_that_is_unknown_or_not_installed_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="known are text, asyncio, agentscope"):
        adapter_of("langchain5")
    monkeypatch.setitem(sys.modules, "agentscope.message", None)
    monkeypatch.delitem(sys.modules, "trio_agentapp.frameworks.agentscope", raising=False)
    with pytest.raises(ConfigurationError, match=r"pip install 'trio-agentapp\[agentscope\]'"):
        adapter_of("agentscope")


async def test_a_state_is_shared_from_the_loop() -> None:
    app = AgentApp()

    @app.query(framework="asyncio")
    async def chat(run: Any) -> AsyncIterator[str]:
        run.state["step"] = 1
        await asyncio.sleep(0)
        yield "a"
        with run.state.edit() as state:
            state["log"] = ["x"]
        yield "b"
        run.state = {"step": run.state["step"] + 1}

    async with app.stream_query({"input": "hi", "state": {"theme": "dark"}}) as events:
        every = [event async for event in events]
    sent = [event for event in every if isinstance(event, StateEvent)]
    said = "".join(event.text for event in every if isinstance(event, ContentEvent) and event.delta)
    # How many events there are depends on how far the loop is ahead; what they add up to does not.
    assert sent[0].delta is False
    shown = sent[0].state
    for event in sent[1:]:
        shown = event.state if event.patch is None else apply(shown, event.patch)
    assert shown == {"step": 2}
    assert said == "ab"
