"""Giving out tasks: to a broker that is there, that is not, and that loses what it was given. No worker here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
import trio

from trio_agentapp import AgentApp
from trio_agentapp.errors import BackendUnavailable, ConfigurationError, Draining, ValidationError
from trio_agentapp.protocol.tasks import TaskState
from trio_agentapp.redis import RedisClient
from trio_agentapp.tasks import NO_BODY, TaskFunction
from trio_agentapp.tasks.celery import CeleryTaskQueue, add_function, celery_name, new_celery, sweeper
from trio_agentapp.testing.redis_server import RedisServer

NOWHERE = "redis://localhost:1/0"


def double(x: int) -> int:
    return 2 * x


@asynccontextmanager
async def queue_at(
    broker_url: str, backend_url: str, prefix: str, *, call_timeout: float = 1.0
) -> AsyncIterator[CeleryTaskQueue]:
    functions: Mapping[str, TaskFunction] = {
        "/double": TaskFunction(double, name="/double", queue=f"{prefix}-q", timeout=30)
    }
    celery = new_celery("test", broker_url, backend_url)
    name = celery_name(prefix, "/double")
    add_function(celery, name, functions["/double"], lambda _request, *_body: None)
    queue = CeleryTaskQueue(
        celery,
        functions,
        redis_url=backend_url,
        prefix=prefix,
        lease=5,
        call_timeout=call_timeout,
        cleanup_budget=1,
    )
    async with queue.open():
        yield queue


async def messages(redis: RedisServer, prefix: str) -> list[Any]:
    async with RedisClient.open(redis.url) as client:
        return [orjson.loads(each) for each in await client.call("LRANGE", f"{prefix}-q", 0, -1)]


async def test_a_message_for_celery(redis: RedisServer, prefix: str) -> None:
    async with queue_at(redis.url, redis.url, prefix) as queue:
        record = await queue.submit("/double", {"x": 1}, user_id="u1")
        assert record.state is TaskState.PENDING
        [message] = await messages(redis, prefix)
        assert message["headers"]["id"] == record.task_id
        assert message["headers"]["task"] == f"{prefix}:/double"
        assert message["headers"]["ignore_result"] is True
        # What does not end by itself is killed: 30 s, 1 s for its cleanup, 10 s for good measure.
        assert message["headers"]["timelimit"] == [41, None]
        assert await queue.status(record.task_id) == record
        with pytest.raises(ValidationError):
            await queue.submit("/double", NO_BODY)
        assert len(await messages(redis, prefix)) == 1
        await queue.drain(0)
        with pytest.raises(Draining):
            await queue.submit("/double", 1)
        # What was given can be asked for until the end.
        assert await queue.status(record.task_id) == record


async def test_no_broker(redis: RedisServer, prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    """Refused within a time, and nothing is left behind; the event loop is never held."""
    async with queue_at(NOWHERE, redis.url, prefix) as queue:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_loop)
            with trio.fail_after(10):
                with pytest.raises(BackendUnavailable) as raised:
                    await queue.submit("/double", 1)
            nursery.cancel_scope.cancel()
        assert raised.value.retry_after
        assert "broker" in caplog.text
    async with RedisClient.open(redis.url) as client:
        assert await client.call("KEYS", f"{prefix}:*") == []


async def watch_loop() -> None:
    """A second is far more than a loop on a busy machine is late by, and less than a socket's time-out."""
    while True:
        before = trio.current_time()
        await trio.sleep(0.01)
        assert trio.current_time() - before < 1


async def test_a_broker_that_does_not_answer(prefix: str) -> None:
    async with RedisServer("valkey") as backend, RedisServer("valkey") as broker:
        async with queue_at(broker.url, backend.url, prefix) as queue:
            await queue.submit("/double", 1)
            broker.pause()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch_loop)
                with trio.fail_after(15):
                    with pytest.raises(BackendUnavailable):
                        await queue.submit("/double", 2)
                nursery.cancel_scope.cancel()
            broker.resume()
            await queue.submit("/double", 3)
            await broker.restart()
            # Its connection is a new one.
            await queue.submit("/double", 4)


async def test_no_records(redis: RedisServer, prefix: str) -> None:
    async with queue_at(redis.url, NOWHERE, prefix, call_timeout=0.3) as queue:
        for ask in (queue.submit("/double", 1), queue.status("t1"), queue.cancel("t1")):
            with trio.fail_after(5), pytest.raises(BackendUnavailable):
                await ask
    assert await messages(redis, prefix) == []


async def test_a_sender_who_leaves(redis: RedisServer, prefix: str) -> None:
    """Nobody knows the task's id, so it must not be executed."""
    async with queue_at(NOWHERE, redis.url, prefix) as queue:
        with trio.move_on_after(0.2):
            await queue.submit("/double", 1)
    async with RedisClient.open(redis.url) as client:
        assert await client.call("KEYS", f"{prefix}:*") == []


async def test_a_message_that_got_lost_is_sent_again(
    redis: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "RESEND_AFTER", 0.1)
    monkeypatch.setattr(sweeper, "SWEEP_EVERY", 0.05)
    async with queue_at(redis.url, redis.url, prefix) as queue:
        record = await queue.submit("/double", {"x": 1})
        [before] = await messages(redis, prefix)
        await trio.sleep(0.4)
        # It waits in its queue: nothing is lost.
        assert len(await messages(redis, prefix)) == 1
        async with RedisClient.open(redis.url) as client:
            await client.call("DEL", f"{prefix}-q")
        with trio.fail_after(10):
            while not (found := await messages(redis, prefix)):
                await trio.sleep(0.02)
        assert found[0]["headers"]["id"] == record.task_id
        assert found[0]["body"] == before["body"]
        await queue.cancel(record.task_id)
        async with RedisClient.open(redis.url) as client:
            await client.call("DEL", f"{prefix}-q")
        await trio.sleep(0.4)
        assert await messages(redis, prefix) == []


# Settings.

URL = "redis://localhost:6379/0"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"broker_url": URL}, "broker_url needs backend_url"),
        ({"backend_url": URL}, "backend_url needs broker_url"),
        ({"broker_url": URL, "backend_url": "amqp://localhost"}, "amqp"),
        ({"broker_url": ""}, "broker_url must be a URL"),
        ({"enable_embedded_worker": True}, "enable_embedded_worker needs broker_url"),
        ({"broker_url": URL, "backend_url": URL, "enable_stream_task": True}, "needs interrupt_redis_url"),
        ({"stream_task_queue": ""}, "stream_task_queue"),
        ({"stream_task_timeout": 0}, "stream_task_timeout"),
        ({"stream_task_timeout": "1"}, "stream_task_timeout"),
    ],
)
def test_settings_that_cannot_work(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        AgentApp(**options)


def test_no_broker_no_celery() -> None:
    with pytest.raises(ConfigurationError, match="broker_url and backend_url"):
        _ = AgentApp().celery


def test_celery_knows_the_tasks_and_their_queues() -> None:
    app = AgentApp(
        broker_url=URL, backend_url=URL, interrupt_redis_url=URL, enable_stream_task=True, redis_prefix="friday"
    )
    app.task("/a")(double)
    app.task("/b", queue="slow")(double)
    assert {name for name in app.celery.tasks if not name.startswith("celery.")} == {
        "friday:/a",
        "friday:/b",
        "friday:/process/task",
    }
    assert set(app.celery.amqp.queues) == {"celery", "slow", "stream_query"}


async def test_an_embedded_worker_must_find_its_app() -> None:
    app = AgentApp(broker_url=URL, backend_url=URL, enable_embedded_worker=True)
    with pytest.raises(ConfigurationError, match="not a global name"):
        async with app.runtime():
            pytest.fail("it was opened")


WITHOUT_CELERY = f"""
import sys
sys.modules["celery"] = None
from trio_agentapp import AgentApp
try:
    AgentApp(broker_url="{URL}", backend_url="{URL}")
except Exception as error:
    print(type(error).__name__, error)
"""


def test_without_the_extra() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_CELERY], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ConfigurationError")
    assert "pip install 'trio-agentapp[celery]'" in done.stdout
