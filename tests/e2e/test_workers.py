"""Several workers behind one port, over a real server that keeps their sessions."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, contextmanager, suppress

import pytest

from trio_agentapp.testing.redis_server import RedisServer

from .conftest import Start
from .harness import Server, fresh

AGENT = "shared"


@pytest.fixture
async def redis() -> AsyncIterator[str]:
    async with RedisServer("valkey") as server:
        yield server.url


def workers_of(server: Server) -> list[int]:
    """The processes whose parent is the master."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{name}/stat") as stat:
            if int(stat.read().rpartition(")")[2].split()[1]) == server.process.pid:
                found.append(int(name))
    return found


def alive(pid: int) -> bool:
    with suppress(OSError), open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] != "Z"
    return False


@contextmanager
def none_left(server: Server):
    """A worker is in a group of its own, so the harness would not reach one that outlived its master."""
    seen = workers_of(server)
    try:
        yield seen
    finally:
        for pid in {*seen, *workers_of(server)}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def test_a_stop_reaches_the_right_worker(start: Start, redis: str) -> None:
    server = start(AGENT, env={"REDIS_URL": redis, "WORKERS": "2"})
    with none_left(server) as workers:
        assert len(workers) == 2
        assert len(re.findall("is ready on", server.log)) == 1
        served: set[str] = set()
        async with AsyncExitStack() as stack:
            chats = {}
            # The kernel chooses which worker accepts: until both have.
            while len(served) < 2 or len(chats) < 6:
                session = fresh()
                chat = chats[session] = await stack.enter_async_context(server.chat(session_id=session))
                await chat.started()
                served.add(chat.deltas[0])
                assert len(chats) < 200, "one worker serves all"
            for session, chat in chats.items():
                receipt = (await server.call("POST", "/stop?wait=1", {"session_id": session})).json()
                assert (receipt["accepted"], receipt["stopped"], receipt["state"]) == (True, True, "STOPPED")
                assert f"cleaned {session}" in server.marks
                assert (await chat.finish())["status"] == "canceled"
        assert {int(pid) for pid in served} == set(workers)
        server.send_signal()
        assert await server.wait_exit() == 0
        assert not any(map(alive, workers))


async def test_a_stop_of_all_cleans_up_in_each(start: Start, redis: str) -> None:
    server = start(AGENT, env={"REDIS_URL": redis, "WORKERS": "2"})
    with none_left(server) as workers:
        async with AsyncExitStack() as stack:
            sessions = [fresh() for _ in range(8)]
            chats = [await stack.enter_async_context(server.chat(session_id=session)) for session in sessions]
            for chat in chats:
                await chat.started()
            server.send_signal(signal.SIGINT)
            for chat in chats:
                assert (await chat.finish())["status"] == "canceled"
        assert await server.wait_exit() == 0
        assert sorted(server.marks) == sorted(f"cleaned {session}" for session in sessions)
        assert not any(map(alive, workers))


async def wait_for_successor(server: Server, workers: list[int]) -> None:
    """Until a worker that is not one of `workers` has served a chat. Until then a signal would kill it."""
    successors = set(workers_of(server)) - set(workers)
    with server.deadline(30, "chat of the new worker"):
        while True:
            async with server.chat(session_id=fresh()) as chat:
                await chat.started()
                if int(chat.deltas[0]) in successors:
                    break


@pytest.mark.parametrize("ready", [True, False], ids=["and serves", "and is stopped while it imports the app"])
async def test_a_worker_that_dies_is_started_again(start: Start, redis: str, ready: bool) -> None:
    server = start(AGENT, env={"REDIS_URL": redis, "WORKERS": "2"})
    with none_left(server) as workers:
        os.kill(workers[0], signal.SIGKILL)
        await server.wait_until(
            lambda: workers[0] not in (now := workers_of(server)) and len(now) == 2, "new worker", 20
        )
        if ready:
            await wait_for_successor(server, workers)
        server.send_signal()
        assert await server.wait_exit() == 0


def value_of(name: str, page: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE)
    assert found, f"{name} is not in:\n{page}"
    return float(found[1])


async def test_each_worker_answers_for_the_metrics_of_all(start: Start, redis: str) -> None:
    server = start(AGENT, env={"REDIS_URL": redis, "WORKERS": "2", "AGENTAPP_METRICS": "1"})
    ended, stopped = 'agent_run_ends_total{cause="stopped"}', "agent_runs_active"
    with none_left(server) as workers:
        served: dict[str, int] = {}
        remote = 'agent_stop_latency_seconds_count{scope="remote"}'
        page = ""
        # Until a stop has reached the other worker.
        while len(served) < 2 or sum(served.values()) < 6 or remote not in page:
            session = fresh()
            async with server.chat(session_id=session) as chat:
                await chat.started()
                worker = chat.deltas[0].strip()
                served[worker] = served.get(worker, 0) + 1
                await server.call("POST", "/stop?wait=1", {"session_id": session})
                await chat.finish()
            page = (await server.call("GET", "/metrics")).body.decode()
        for _ in range(8):
            page = (await server.call("GET", "/metrics")).body.decode()
            assert value_of(ended, page) == sum(served.values())
            assert value_of("agent_backend_up", page) == 1
            local = page.count('agent_stop_latency_seconds_count{scope="local"}')
            counted = value_of(remote, page) + (value_of(remote.replace("remote", "local"), page) if local else 0)
            assert counted == sum(served.values())
        both = value_of("process_resident_memory_bytes", page)
        os.kill(workers[0], signal.SIGKILL)
        await server.wait_until(lambda: len(set(workers_of(server)) - set(workers)) == 1, "a new worker", 20)
        # What the dead one has counted stays; its memory and its live runs do not count any more.
        page = (await server.call("GET", "/metrics")).body.decode()
        assert value_of(ended, page) == sum(served.values())
        assert value_of("process_resident_memory_bytes", page) < 1.5 * both
        assert value_of(stopped, page) == 0
        await wait_for_successor(server, workers)
        server.send_signal()
        assert await server.wait_exit() == 0


async def test_no_worker_outlives_its_master(start: Start, redis: str) -> None:
    server = start(AGENT, env={"REDIS_URL": redis, "WORKERS": "2"})
    with none_left(server) as workers:
        server.send_signal(signal.SIGKILL)
        await server.wait_until(lambda: not any(map(alive, workers)), "end of the workers", 20)


async def test_workers_that_cannot_start_end_it_all(start: Start) -> None:
    server = start(AGENT, env={"REDIS_URL": "redis://127.0.0.1:1", "WORKERS": "2"}, ready=False)
    assert await server.wait_exit(40) == 1
    assert "before all had started" in server.log


async def test_without_redis_they_are_refused(start: Start) -> None:
    server = start(AGENT, env={"WORKERS": "2"}, ready=False)
    assert await server.wait_exit() == 1
    assert "set interrupt_redis_url" in server.log


async def test_hypercorn_workers_share_their_sessions(start: Start, redis: str) -> None:
    server = start(AGENT, "hypercorn", flags=("--workers", "2"), env={"REDIS_URL": redis})
    served: set[str] = set()
    for _ in range(60):
        session = fresh()
        async with server.chat(session_id=session) as chat:
            await chat.started()
            served.add(chat.deltas[0])
            receipt = (await server.call("POST", "/stop?wait=1", {"session_id": session})).json()
            assert (receipt["accepted"], receipt["state"]) == (True, "STOPPED")
            assert (await chat.finish())["status"] == "canceled"
        if len(served) == 2:
            break
    assert len(served) == 2
    assert sys.platform == "linux"


async def test_an_operator_ends_all_workers_through_one(start: Start, redis: str) -> None:
    token = "correct-horse-battery"
    server = start(AGENT, env={"REDIS_URL": redis, "WORKERS": "2", "AGENTAPP_ADMIN_TOKEN": token})
    with none_left(server) as workers:
        headers = {"Authorization": f"Bearer {token}"}
        answer = await server.call("POST", "/admin/shutdown", headers=headers)
        assert (answer.status, answer.json()["status"]) == (202, "shutting down")
        assert await server.wait_exit() == 0
        assert not any(map(alive, workers))
