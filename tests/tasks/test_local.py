"""The queue of one process: order, bounds, stops and their cleanup, the end of the process."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from trio_agentapp.errors import Draining, QueueFull, ValidationError
from trio_agentapp.protocol.tasks import TaskRecord, TaskState
from trio_agentapp.tasks import NO_BODY, LocalTaskQueue, TaskFunction, current_task
from trio_agentapp.tasks import task as task_module
from trio_agentapp.tasks.table import TaskTable


def queue_of(*functions: Any, timeout: float | None = None, **options: Any) -> LocalTaskQueue:
    """A queue of these, by their names."""
    table = {fn.__name__: TaskFunction(fn, name=fn.__name__, timeout=timeout) for fn in functions}
    return LocalTaskQueue(table, **{"cleanup_budget": 2.0, **options})


async def ended(queue: LocalTaskQueue, task_id: str, within: float = 10) -> TaskRecord:
    with trio.fail_after(within):
        while True:
            record = await queue.status(task_id)
            assert record is not None
            if record.state.terminal:
                return record
            await trio.sleep(0.01)


async def running(queue: LocalTaskQueue, task_id: str) -> None:
    with trio.fail_after(10):
        while (record := await queue.status(task_id)) is None or record.state is not TaskState.RUNNING:
            await trio.sleep(0.01)


def code_of(record: TaskRecord) -> str:
    assert record.error is not None
    return record.error.code


async def test_a_result() -> None:
    def square(data: Any) -> Any:
        return {"result": data["x"] ** 2}

    queue = queue_of(square)
    async with queue.open():
        given = await queue.submit("square", {"x": 5}, user_id="u1")
        assert given.state is TaskState.PENDING
        record = await ended(queue, given.task_id)
    assert (record.state, record.result, record.error) == (TaskState.FINISHED, b'{"result":25}', None)
    assert record.user_id == "u1"
    assert record.started_at is not None
    assert record.ended_at is not None
    assert record.created_at <= record.started_at <= record.ended_at


async def test_an_exception_is_told_without_its_words(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(data: Any) -> None:
        raise ZeroDivisionError("secret")

    for debug, message in ((False, "The task failed."), (True, "ZeroDivisionError: secret")):
        queue = queue_of(fail, debug=debug)
        async with queue.open():
            record = await ended(queue, (await queue.submit("fail", {})).task_id)
        assert (record.state, code_of(record)) == (TaskState.FAILED, "exception")
        assert record.error is not None
        assert record.error.message == message
    assert "secret" in caplog.text


async def test_a_body_that_does_not_fit_is_refused() -> None:
    queue = queue_of(code_of)
    async with queue.open():
        with pytest.raises(ValidationError):
            await queue.submit("code_of", NO_BODY)


async def test_an_unknown_id() -> None:
    queue = queue_of(code_of)
    async with queue.open():
        assert await queue.status("unknown") is None
        assert await queue.cancel("unknown") is None


async def test_a_stop_cancels_and_cleanup_awaits(autojump_clock: trio.testing.MockClock) -> None:
    steps: list[str] = []

    async def work(data: Any) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            async with current_task().cleanup():
                steps.append("cleaning")
                await trio.sleep(1)
                steps.append("cleaned")
            raise

    queue = queue_of(work)
    async with queue.open():
        task_id = (await queue.submit("work", {})).task_id
        await running(queue, task_id)
        record = await queue.cancel(task_id)
        assert record is not None
        assert (record.state, record.cancel_requested) == (TaskState.RUNNING, True)
        await queue.cancel(task_id)
        record = await ended(queue, task_id)
    assert (record.state, code_of(record)) == (TaskState.CANCELLED, "stopped")
    assert steps == ["cleaning", "cleaned"]
    assert (await queue.cancel(task_id)) == record


async def test_a_stop_seen_before_the_end_decides(autojump_clock: trio.testing.MockClock) -> None:
    async def swallow(data: Any) -> str:
        with trio.CancelScope() as scope:
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                scope.shield = True
        return "a result"

    queue = queue_of(swallow)
    async with queue.open():
        task_id = (await queue.submit("swallow", {})).task_id
        await running(queue, task_id)
        await queue.cancel(task_id)
        record = await ended(queue, task_id)
    assert (record.state, record.result) == (TaskState.CANCELLED, None)


async def test_a_cleanup_beyond_its_budget(autojump_clock: trio.testing.MockClock) -> None:
    async def work(data: Any) -> None:
        try:
            await trio.sleep_forever()
        finally:
            async with current_task().cleanup():
                await trio.sleep(100)

    queue = queue_of(work)
    async with queue.open():
        task_id = (await queue.submit("work", {})).task_id
        await running(queue, task_id)
        await queue.cancel(task_id)
        record = await ended(queue, task_id, 5)
    assert (record.state, code_of(record)) == (TaskState.FAILED, "cleanup_timeout")


@pytest.mark.parametrize("looks", ["check_cancelled", "flag", "generator"])
async def test_a_thread_learns_of_the_stop(looks: str) -> None:
    begun, seen = threading.Event(), threading.Event()

    def check_cancelled(data: Any) -> None:
        begun.set()
        try:
            while True:
                time.sleep(0.005)
                trio.from_thread.check_cancelled()
        finally:
            seen.set()

    def flag(data: Any) -> None:
        begun.set()
        assert current_task().stopping.wait(10)
        seen.set()

    def generator(data: Any) -> Iterator[int]:
        begun.set()
        try:
            while True:
                time.sleep(0.005)
                yield 1
        except trio.Cancelled:
            seen.set()
            raise

    queue = queue_of(check_cancelled, flag, generator)
    async with queue.open():
        task_id = (await queue.submit(looks, {})).task_id
        with trio.fail_after(10):
            while not begun.is_set():
                await trio.sleep(0.005)
        await queue.cancel(task_id)
        record = await ended(queue, task_id)
    assert (record.state, code_of(record)) == (TaskState.CANCELLED, "stopped")
    assert seen.is_set()


async def test_a_timeout(autojump_clock: trio.testing.MockClock) -> None:
    cleaned = []

    async def work(data: Any) -> AsyncIterator[int]:
        try:
            while True:
                await trio.sleep(1)
                yield 1
        finally:
            async with current_task().cleanup():
                await trio.sleep(0.1)
            cleaned.append(trio.current_time())

    queue = queue_of(work, timeout=2.5)
    async with queue.open():
        record = await ended(queue, (await queue.submit("work", {})).task_id)
    assert (record.state, code_of(record)) == (TaskState.FAILED, "deadline_exceeded")
    assert len(cleaned) == 1


async def test_a_timeout_reaches_the_flag_of_a_thread() -> None:
    def work(data: Any) -> bool:
        return current_task().stopping.wait(10)

    queue = queue_of(work, timeout=0.05)
    async with queue.open():
        record = await ended(queue, (await queue.submit("work", {})).task_id, 5)
    assert code_of(record) == "deadline_exceeded"


async def test_bounds_and_order(autojump_clock: trio.testing.MockClock) -> None:
    began: list[int] = []
    gate = trio.Event()

    async def work(data: int) -> None:
        began.append(data)
        await gate.wait()

    queue = queue_of(work, max_running=1, max_waiting=4)
    async with queue.open():
        ids = [(await queue.submit("work", number)).task_id for number in range(5)]
        with pytest.raises(QueueFull) as refused:
            await queue.submit("work", 5)
        assert refused.value.retry_after
        await trio.testing.wait_all_tasks_blocked()
        assert began == [0]
        # One that waits never begins.
        record = await queue.cancel(ids[3])
        assert record is not None
        assert record.state is TaskState.CANCELLED
        await queue.submit("work", 6)
        gate.set()
        for task_id in ids:
            await ended(queue, task_id)
    assert began == [0, 1, 2, 4, 6]


@pytest.mark.parametrize("how", ["too many bytes", "not JSON", "raises"])
async def test_results_that_cannot_be_kept(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_module, "MAX_RESULT_BYTES", 10)

    class Raises:
        def to_dict(self) -> None:
            raise RuntimeError

    async def work(data: Any) -> Any:
        return {"too many bytes": "x" * 20, "not JSON": object(), "raises": Raises()}[how]

    queue = queue_of(work)
    async with queue.open():
        record = await ended(queue, (await queue.submit("work", {})).task_id)
    assert code_of(record) == ("result_too_large" if how == "too many bytes" else "result_invalid")


async def test_results_of_classes() -> None:
    @attrs.frozen
    class Point:
        x: int
        seen: frozenset[int]

    def work() -> Any:
        return {"point": Point(1, frozenset([2])), 3: None}

    queue = queue_of(work)
    async with queue.open():
        record = await ended(queue, (await queue.submit("work", {})).task_id)
    assert record.result == b'{"point":{"x":1,"seen":[2]},"3":null}'


async def test_a_drain_lets_tasks_end_then_stops_them(autojump_clock: trio.testing.MockClock) -> None:
    async def work(data: float) -> str:
        await trio.sleep(data)
        return "done"

    queue = queue_of(work, max_running=2)
    async with queue.open():
        quick, slow, waits = [(await queue.submit("work", seconds)).task_id for seconds in (1, 50, 51)]
        await running(queue, slow)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(queue.drain, 5.0)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(Draining):
                await queue.submit("work", 1)
        assert trio.current_time() - began == pytest.approx(5)
        assert [(await ended(queue, each)).state for each in (quick, slow, waits)] == [
            TaskState.FINISHED,
            TaskState.CANCELLED,
            TaskState.CANCELLED,
        ]
        assert code_of(await ended(queue, slow)) == "shutdown"


async def test_a_drain_in_a_hurry(autojump_clock: trio.testing.MockClock) -> None:
    queue = queue_of(trio.sleep)
    hurry = trio.Event()
    async with queue.open():
        task_id = (await queue.submit("sleep", 50)).task_id
        await running(queue, task_id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(queue.drain, 30.0, hurry)
            await trio.sleep(1)
            hurry.set()
        assert trio.current_time() < 5
        assert code_of(await ended(queue, task_id)) == "shutdown"


async def test_a_cancelled_owner_waits_for_the_cleanup(autojump_clock: trio.testing.MockClock) -> None:
    cleaned: list[bool] = []

    async def work(data: Any) -> None:
        try:
            await trio.sleep_forever()
        finally:
            async with current_task().cleanup():
                await trio.sleep(1)
                cleaned.append(True)

    # Many, since it is by chance who sees the owner's cancellation first.
    queue = queue_of(work, trio.sleep, max_running=40)
    with trio.move_on_after(1):
        async with queue.open():
            ids = [(await queue.submit(name, 1000)).task_id for name in ["work", "sleep"] * 20 + ["work"]]
            await trio.sleep_forever()
    assert len(cleaned) == 20
    for task_id in ids:
        record = await queue.status(task_id)
        assert record is not None
        assert code_of(record) == "shutdown"


async def test_ended_tasks_are_forgotten() -> None:
    now = 0.0
    table = TaskTable(retention=10, max_records=3, max_bytes=100, now=lambda: now)

    def end(task_id: str, size: int) -> None:
        table.put(TaskRecord(task_id=task_id, name="t"))
        table.change(task_id, state=TaskState.FINISHED, result=b"x" * size)

    def known(ids: str) -> str:
        return "".join(each for each in ids if table.get(each) is not None)

    table.put(TaskRecord(task_id="live", name="t"))
    for each in "abcd":
        end(each, 10)
    assert known("abcd") == "bcd"
    end("e", 85)
    assert known("abcde") == "de"
    now = 5.0
    end("f", 1)
    now = 10.0
    assert known("def") == "f"
    now = 15.0
    assert known("f") == ""
    assert table.get("live") is not None


async def test_no_task_is_executed_here() -> None:
    with pytest.raises(RuntimeError, match="no task"):
        current_task()
