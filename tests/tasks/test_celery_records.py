"""The records of tasks: claimed once, leased, ended once; any operation may be repeated."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio

from trio_agentapp.protocol.tasks import TaskCause, TaskError, TaskRecord, TaskState, error_of
from trio_agentapp.redis import RedisClient
from trio_agentapp.tasks.celery.records import TaskRecords
from trio_agentapp.tasks.task import TaskEnd
from trio_agentapp.testing.redis_server import RedisServer

RESULT = TaskEnd(state=TaskState.FINISHED, result=b"[1]")
LEASE = 0.3


@pytest.fixture
async def client(redis: RedisServer) -> AsyncIterator[RedisClient]:
    async with RedisClient.open(redis.url) as client:
        yield client


@pytest.fixture
def records(client: RedisClient, prefix: str) -> TaskRecords:
    return TaskRecords(client, prefix=prefix, lease=60)


@pytest.fixture
def brief(client: RedisClient, prefix: str) -> TaskRecords:
    return TaskRecords(client, prefix=prefix, lease=LEASE)


async def seen(records: TaskRecords, task_id: str = "t1") -> TaskRecord:
    record = await records.status(task_id)
    assert record is not None
    return record


async def give(records: TaskRecords, task_id: str = "t1") -> None:
    assert (await records.give(task_id, "/a", "u1", b"message")).word == "given"


async def test_from_given_to_finished(records: TaskRecords) -> None:
    assert await records.status("t1") is None
    await give(records)
    record = await seen(records)
    assert (record.state, record.name, record.user_id, record.started_at) == (TaskState.PENDING, "/a", "u1", None)
    assert (await records.claim("t1", "w1")).word == "claimed"
    assert await records.beat("t1", "w1") == "ok"
    assert (await seen(records)).state is TaskState.RUNNING
    assert (await records.finish("t1", "w1", RESULT)).word == "finished"
    record = await seen(records)
    assert (record.state, record.result, record.error) == (TaskState.FINISHED, b"[1]", None)
    assert record.started_at is not None
    assert record.ended_at is not None
    assert record.created_at <= record.started_at <= record.ended_at


async def test_it_begins_once(records: TaskRecords) -> None:
    await give(records)
    assert (await records.claim("t1", "w1")).word == "claimed"
    assert (await records.claim("t1", "w2")).word == "running"
    # The same delivery, whose answer was lost.
    assert (await records.claim("t1", "w1")).word == "claimed"
    assert await records.beat("t1", "w2") == "lost"
    assert (await records.finish("t1", "w2", RESULT)).word == "running"
    await records.finish("t1", "w1", RESULT)
    assert (await records.claim("t1", "w1")).word == "finished"
    assert await records.beat("t1", "w1") == "lost"


async def test_an_id_is_given_once(records: TaskRecords) -> None:
    await give(records)
    answer = await records.give("t1", "/b", None, b"another")
    assert answer.word == "pending"
    assert answer.record is not None
    assert (answer.record.name, answer.record.user_id) == ("/a", "u1")
    assert await records.message("t1") == b"message"


async def test_a_task_of_nobody(records: TaskRecords) -> None:
    await records.give("t1", "/a", None, b"")
    assert (await seen(records)).user_id is None
    await records.give("t2", "/a", "", b"")
    assert (await seen(records, "t2")).user_id == ""


async def test_one_that_waits_is_cancelled_for_good(records: TaskRecords) -> None:
    await give(records)
    for _ in range(2):
        record = await records.cancel("t1")
        assert record is not None
        assert (record.state, record.error) == (TaskState.CANCELLED, error_of(TaskCause.STOPPED))
    assert (await records.claim("t1", "w1")).word == "cancelled"


async def test_one_that_runs_is_told(records: TaskRecords) -> None:
    await give(records)
    await records.claim("t1", "w1")
    record = await records.cancel("t1")
    assert record is not None
    assert (record.state, record.cancel_requested) == (TaskState.RUNNING, True)
    assert await records.beat("t1", "w1") == "stop"
    end = TaskEnd(state=TaskState.CANCELLED, error=TaskError("stopped", "Words."))
    await records.finish("t1", "w1", end)
    assert (await seen(records)).error == end.error
    record = await records.cancel("t1")
    assert record is not None
    assert record.state is TaskState.CANCELLED


async def test_one_that_was_withdrawn_is_unknown(records: TaskRecords) -> None:
    await give(records)
    await records.withdraw("t1")
    assert await records.status("t1") is None
    assert (await records.claim("t1", "w1")).word == "unknown"
    await give(records)
    await records.claim("t1", "w1")
    await records.withdraw("t1")
    assert (await seen(records)).state is TaskState.RUNNING


LOOKS: dict[str, Callable[[TaskRecords], Any]] = {
    "status": lambda records: records.status("t1"),
    "cancel": lambda records: records.cancel("t1"),
    "beat": lambda records: records.beat("t1", "w1"),
    "claim": lambda records: records.claim("t1", "w2"),
    "finish": lambda records: records.finish("t1", "w1", RESULT),
}


@pytest.mark.parametrize("look", LOOKS)
async def test_every_look_finds_a_worker_lost(brief: TaskRecords, look: str) -> None:
    await give(brief)
    await brief.claim("t1", "w1")
    for _ in range(2):
        await trio.sleep(LEASE * 0.6)
        assert await brief.beat("t1", "w1") == "ok"
    await trio.sleep(LEASE * 1.1)
    await LOOKS[look](brief)
    record = await seen(brief)
    assert (record.state, record.error) == (TaskState.FAILED, error_of(TaskCause.WORKER_LOST))
    assert record.result is None
    assert not record.cancel_requested


async def test_records_are_forgotten(client: RedisClient, prefix: str) -> None:
    records = TaskRecords(client, prefix=prefix, lease=60, retention=0.3)
    await give(records)
    await give(records, "t2")
    await records.claim("t2", "w1")
    for _ in range(4):
        await trio.sleep(0.1)
        await records.beat("t2", "w1")
    assert await records.status("t1") is None
    assert (await seen(records, "t2")).state is TaskState.RUNNING


async def test_those_that_wait_are_told_of_once_in_a_while(records: TaskRecords) -> None:
    for task_id in ("t1", "t2", "t3", "t4"):
        await give(records, task_id)
    assert await records.due(60, 10) == []
    await records.claim("t2", "w1")
    await records.cancel("t3")
    await trio.sleep(0.05)
    assert sorted(await records.due(0.02, 10)) == ["t1", "t4"]
    # They were told of a moment ago. How long a moment takes depends on the machine.
    assert await records.due(60, 10) == []
    assert await records.message("t1") == b"message"
    assert await records.message("t2") is None
    await trio.sleep(0.05)
    assert len(await records.due(0.02, 1)) == 1
