"""Tasks that a real Celery worker executes, over a real Redis."""

from __future__ import annotations

import json
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from trio_agentapp.protocol.ids import SessionKey
from trio_agentapp.testing.redis_server import RedisServer

from .celery_worker import CONCURRENCY, Worker, cancel, ended, look, redis_server, submit
from .harness import Server, fresh, say

LONG = {"/long": "long", "/long_sync": "sync", "/long_flag": "flag", "/long_items": "items"}


@attrs.frozen
class Servers:
    """An app, a worker, and the Redis between them."""

    redis: RedisServer
    server: Server
    worker: Worker


def build(stack: ExitStack, redis: RedisServer, folder: Path, *, worker: bool = True, **env: str) -> Servers:
    (folder / "app").mkdir()
    server = Server("tasks", "run", folder / "app", {"REDIS_URL": redis.url, **env})
    stack.callback(server.kill)
    celery = Worker(redis.url, folder / "app", **env) if worker else None
    if celery is not None:
        stack.callback(celery.kill)
        celery.wait_ready()
    server.wait_ready()
    return Servers(redis, server, celery)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield build(stack, stack.enter_context(redis_server()), tmp_path_factory.mktemp("tasks"))


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Any]:
    """Starts servers for this test only, which it may break: `own(worker=False)`."""
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server())
        yield lambda **options: build(stack, redis, tmp_path, **options)


@pytest.mark.parametrize(
    ("path", "body", "result"),
    [
        ("/square", {"x": 5}, {"result": 25}),
        ("/add", {"a": 2, "b": 3}, 5),
        ("/add", {"a": 2}, 3),
        ("/count", 4, [0, 1, 2, 3]),
        ("/count_async", 3, [0, 1, 2]),
    ],
)
async def test_every_kind_of_function(servers: Servers, path: str, body: Any, result: Any) -> None:
    task_id = await submit(servers.server, path, body)
    answer = await ended(servers.server, path, task_id)
    assert (answer["status"], answer["result"]) == ("finished", result)
    assert answer["created_at"] <= answer["started_at"] <= answer["ended_at"]


async def test_failures_and_refusals(servers: Servers) -> None:
    server = servers.server
    body = await ended(server, "/fail", await submit(server, "/fail"))
    assert (body["status"], body["error"]) == ("failed", {"code": "exception", "message": "The task failed."})
    refused = await server.call("POST", "/add", {"b": 1, "c": 2})
    assert refused.status == 422
    assert [error["loc"] for error in refused.json()["errors"]] == ["$.a", "$.c"]
    given = await submit(server, "/square", {"x": 1})
    for path in ("/square/" + "0" * 32, f"/add/{given}"):
        for answer in (await server.call("GET", path), await server.call("POST", f"{path}/cancel")):
            assert (answer.status, answer.json()["code"]) == (404, "task_not_found")


async def test_a_time_out(servers: Servers) -> None:
    task_id = await submit(servers.server, "/limited")
    body = await ended(servers.server, "/limited", task_id)
    assert (body["status"], body["error"]["code"]) == ("failed", "deadline_exceeded")
    assert servers.server.marks.count(f"cleaned {task_id}") == 1


async def test_a_hundred_tasks_thirty_of_them_stopped(servers: Servers) -> None:
    """Every one of them once, all cleaned up, all reported right."""
    server = servers.server
    dice = random.Random(7)
    work = [("/square", {"x": number}) for number in range(35)] + [("/add", {"a": number}) for number in range(35)]
    work += [(path, {}) for path in dice.choices([*LONG], k=30)]
    dice.shuffle(work)
    given: dict[str, tuple[str, Any]] = {}
    async with trio.open_nursery() as nursery:

        async def see_through(path: str, body: Any) -> None:
            task_id = await submit(server, path, body)
            given[task_id] = (path, body)
            if path in LONG:
                await server.wait_mark(f"begin {task_id}", seconds=90)
                await trio.sleep(dice.uniform(0, 0.05))
                answer = await cancel(server, path, task_id)
                assert (answer["status"], answer["error"]["code"]) == ("cancelled", "stopped")

        for path, body in work:
            nursery.start_soon(see_through, path, body)
    assert len(given) == 100
    for task_id, (path, body) in given.items():
        answer = await ended(server, path, task_id, 60)
        if path in LONG:
            assert answer["status"] == "cancelled"
            assert answer["error"]["code"] == "stopped"
            assert "result" not in answer
        else:
            assert answer["status"] == "finished"
            assert answer["result"] == ({"result": body["x"] ** 2} if path == "/square" else body["a"] + 1)
    marks = Counter(server.marks)
    for task_id, (path, _) in given.items():
        assert marks[f"begin {task_id}"] == 1
        assert marks[f"cleaned {task_id}"] == (path in LONG)


async def test_one_that_waits_never_begins(servers: Servers) -> None:
    server = servers.server
    busy = [await submit(server, "/long") for _ in range(CONCURRENCY)]
    for task_id in busy:
        await server.wait_mark(f"begin {task_id}")
    waits = await submit(server, "/square", {"x": 1})
    assert (await look(server, "/square", waits))["status"] == "pending"
    body = await cancel(server, "/square", waits)
    assert (body["status"], body["started_at"]) == ("cancelled", None)
    for task_id in busy:
        await cancel(server, "/long", task_id)
    await ended(server, "/square", await submit(server, "/square", {"x": 2}))
    assert f"begin {waits}" not in server.marks
    # Repeating it, and cancelling what has ended, changes nothing.
    assert await cancel(server, "/square", waits) == body


async def test_the_agent_in_the_background(servers: Servers) -> None:
    server = servers.server
    asked = {"input": say(), "session_id": fresh(), "user_id": "u1", "id": fresh("run-number")}
    answer = await server.call("POST", "/process/task", asked)
    assert answer.status == 202
    given = answer.json()
    assert given == {**given, "task_id": asked["id"], "session_id": asked["session_id"], "user_id": "u1"}
    body = await ended(server, "/process/task", asked["id"])
    assert (body["status"], body["result"]["status"]) == ("finished", "completed")
    assert body["result"]["id"] == f"response_{asked['id']}"
    said = body["result"]["output"][0]["content"][0]["text"]
    # Not in the process of the app.
    assert said.startswith("Hello from ")
    assert said != f"Hello from {server.process.pid}"
    # The same request again is the same run.
    assert (await server.call("POST", "/process/task", asked)).json()["status"] == "finished"
    taken = await server.call("POST", "/process/task", {**asked, "user_id": "u2"})
    assert (taken.status, taken.json()["code"]) == (422, "validation_error")


@pytest.mark.parametrize("way", ["session", "run", "task"])
async def test_a_run_in_a_worker_is_one_of_its_session(servers: Servers, way: str) -> None:
    server = servers.server
    session = {"session_id": fresh(), "user_id": "u1"}
    task_id = await submit(server, "/process/task", {"input": say(), "do": "long", **session})
    await server.wait_mark(f"begin {task_id}")
    busy = await server.call("POST", "/process", {"input": say(), **session})
    assert (busy.status, busy.json()["active_run_id"]) == (409, task_id)
    refused = {"input": say(), "multitask_strategy": "reject", **session}
    body = await ended(server, "/process/task", await submit(server, "/process/task", refused))
    assert (body["status"], body["error"]["code"]) == ("failed", "session_busy")
    # Nobody waits for its answer, so it waits for its session.
    second = await submit(server, "/process/task", {"input": say(), **session})
    if way == "session":
        assert (await server.stop(wait=True, **session))["stopped"]
    elif way == "run":
        assert (await server.stop(wait=True, run_id=task_id))["stopped"]
    else:
        await cancel(server, "/process/task", task_id)
    body = await ended(server, "/process/task", task_id)
    assert (body["status"], body["error"]["code"]) == ("cancelled", "stopped")
    assert (body["result"]["status"], body["result"]["error"]["code"]) == ("canceled", "stopped")
    assert server.marks.count(f"cleaned {task_id}") == 1
    assert (await ended(server, "/process/task", second))["status"] == "finished"


async def test_a_worker_logs_in_the_format_of_the_app(own: Any) -> None:
    """Celery keeps level and destination; its own records, those of runs and those of tasks are told apart."""
    servers = own(AGENTAPP_LOG_FORMAT="json")
    run_id = await submit(servers.server, "/process/task", {"input": say("hi"), "session_id": "s1"})
    assert (await ended(servers.server, "/process/task", run_id))["status"] == "finished"
    await servers.server.wait_until(lambda: f"run {run_id} has ended" in servers.worker.log, "the end in the log")
    lines = [json.loads(line) for line in servers.worker.log.splitlines() if line.startswith("{")]
    of_run = [line for line in lines if line.get("run_id") == run_id]
    said = [line["message"] for line in of_run if line["message"].startswith(f"run {run_id} has ")]
    assert [words.split()[3] for words in said] == ["started", "ended:"]
    assert {line["session_hash"] for line in of_run} == {SessionKey("s1", "s1").digest}
    assert [line for line in lines if line["logger"].startswith("celery.") and line["node_id"]]


async def test_a_worker_that_is_told_to_leave(own: Any) -> None:
    """What runs may end within the drain; then it is stopped with its cleanup. What waits, waits for another."""
    servers = own(AGENT_OPTIONS='{"drain_timeout": 0.5}')
    server = servers.server
    ids = [await submit(server, path) for path in LONG]
    for task_id in ids:
        await server.wait_mark(f"begin {task_id}")
    waits = await submit(server, "/square", {"x": 3})
    servers.worker.send_signal(signal.SIGTERM)
    assert await servers.worker.wait_exit() == 0, servers.worker.log
    for path, task_id in zip(LONG, ids, strict=True):
        body = await ended(server, path, task_id)
        assert (body["status"], body["error"]["code"]) == ("cancelled", "shutdown")
        assert server.marks.count(f"cleaned {task_id}") == 1
    assert (await look(server, "/square", waits))["status"] == "pending"
    successor = Worker(servers.redis.url, server.folder)
    try:
        assert (await ended(server, "/square", waits, 30))["result"] == {"result": 9}
        for task_id in ids:
            assert server.marks.count(f"begin {task_id}") == 1
    finally:
        successor.kill()


async def test_a_worker_that_is_killed(own: Any) -> None:
    """Its tasks are reported lost, and are not begun again."""
    servers = own()
    server = servers.server
    function, agent = (
        await submit(server, "/long"),
        await submit(server, "/process/task", {"input": say(), "do": "long"}),
    )
    for task_id in (function, agent):
        await server.wait_mark(f"begin {task_id}")
    servers.worker.kill()
    for path, task_id in (("/long", function), ("/process/task", agent)):
        body = await ended(server, path, task_id)
        assert (body["status"], body["error"]["code"]) == ("failed", "worker_lost")
        assert await cancel(server, path, task_id) == body


async def test_redis_that_does_not_answer(own: Any) -> None:
    """Refused within a time, while the app goes on; the worker ends what it cannot answer for."""
    servers = own()
    server = servers.server
    task_id = await submit(server, "/long")
    await server.wait_mark(f"begin {task_id}")
    servers.redis.pause()
    try:
        for method, path in (("POST", "/square"), ("GET", f"/long/{task_id}"), ("POST", f"/long/{task_id}/cancel")):
            with trio.fail_after(10):
                answer = await server.call(method, path, {"x": 1} if method == "POST" else None)
            assert (answer.status, answer.json()["code"]) == (503, "backend_unavailable")
            assert answer.header("retry-after") is not None
            with trio.fail_after(5):
                assert (await server.call("GET", "/health")).status == 200
        await server.wait_mark(f"cleaned {task_id}")
    finally:
        servers.redis.resume()
    body = await ended(server, "/long", task_id)
    assert (body["status"], body["error"]["code"]) == ("failed", "worker_lost")
    task_id = await submit(server, "/square", {"x": 2})
    assert (await ended(server, "/square", task_id))["result"] == {"result": 4}


# The embedded worker.


def group_of(server: Server) -> set[int]:
    """The embedded worker of an app and its children: it leads a group of its own."""
    found = set()
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline") as file:
                command = file.read()
            with open(f"/proc/{name}/environ") as file:
                environment = file.read()
        except OSError:
            continue
        if "trio_agentapp.app.worker" in command and f"FOLDER={server.folder}\0" in environment:
            found.add(int(name))
    return found


async def wait_none_left(server: Server) -> None:
    await server.wait_until(lambda: not group_of(server), "end of the embedded worker", 20)


EMBEDDED = '{"enable_embedded_worker": true, "drain_timeout": 0.3}'


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_an_embedded_worker_lives_and_ends_with_its_app(own: Any, number: signal.Signals) -> None:
    server = own(worker=False, AGENT_OPTIONS=EMBEDDED).server
    task_id = await submit(server, "/square", {"x": 2})
    assert (await ended(server, "/square", task_id, 30))["result"] == {"result": 4}
    # It is started again when it dies.
    before = group_of(server)
    os.kill(min(before), signal.SIGKILL)
    task_id = await submit(server, "/square", {"x": 3})
    assert (await ended(server, "/square", task_id, 30))["result"] == {"result": 9}
    assert not before & group_of(server)
    # The app leaves: its tasks are stopped, with their cleanup.
    task_id = await submit(server, "/long")
    await server.wait_mark(f"begin {task_id}")
    [worker, *_] = before = sorted(group_of(server))
    os.kill(worker, signal.SIGUSR1)
    os.kill(worker, signal.SIGUSR2)
    server.send_signal(signal.SIGUSR2)
    await server.wait_until(lambda: "SIGUSR2 does nothing here" in server.log, "word")
    assert sorted(group_of(server)) == before
    server.send_signal(number)
    assert await server.wait_exit() == 0, server.log
    assert server.marks.count(f"cleaned {task_id}") == 1
    assert not group_of(server)


async def test_an_embedded_worker_does_not_outlive_its_app(own: Any) -> None:
    server = own(worker=False, AGENT_OPTIONS=EMBEDDED).server
    task_id = await submit(server, "/long")
    await server.wait_mark(f"begin {task_id}", seconds=30)
    server.process.kill()
    server.process.wait()
    await server.wait_mark(f"cleaned {task_id}")
    await wait_none_left(server)
