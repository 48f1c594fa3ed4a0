"""Tests of the shutdown: new runs are refused, live runs end with a terminal event, the process exits."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import trio

from .conftest import Start
from .harness import Chat, Server, fresh, output_text, say

CHATS = 50
DRAIN = 2.0


class Watchers:
    """Endless chats with a second of cleanup each, watched to their end."""

    def __init__(self, server: Server, count: int = CHATS, **fields: Any) -> None:
        self.server = server
        self.sessions = [fresh() for _ in range(count)]
        self.fields = {"period": 0.05, "cleanup": 1.0, **fields}
        self.chats: list[Chat] = []
        self.ends: list[dict[str, Any]] = []

    async def watch(self, nursery: trio.Nursery) -> None:
        """Until all talk."""
        for session in self.sessions:
            await nursery.start(self._one, session)

    async def _one(self, session: str, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with self.server.chat("endless", session_id=session, **self.fields) as chat:
            await chat.started()
            task_status.started()
            self.chats.append(chat)
            self.ends.append(await chat.finish(30))

    def assert_all_ended_well(self) -> None:
        assert len(self.ends) == len(self.sessions)
        for chat in self.chats:
            end = chat.events[-1]
            assert end["status"] == "canceled"
            assert end["error"] == {"code": "stopped", "message": "shutdown"}
            assert output_text(end) == chat.said
        marks = self.server.marks
        for session in self.sessions:
            assert marks.count(f"cleaned {session}") == 1, "a cleanup was cut"
            assert marks.count(f"end {session}") == 1


async def assert_refused(server: Server) -> None:
    """Told by the open listener, not by a closed port."""
    ready = await server.call("GET", "/readiness")
    assert ready.status == 503
    assert ready.json()["reason"] == "draining"
    assert ready.header("retry-after") == "1"
    session = fresh()
    answer = await server.call("POST", "/process", {"input": say(), "session_id": session})
    assert answer.status == 503
    assert answer.header("content-type") == "application/problem+json"
    assert answer.header("retry-after") == "1"
    problem = answer.json()
    assert (problem["code"], problem["status"], problem["retryable"]) == ("draining", 503, True)
    assert f"begin {session}" not in server.marks
    assert (await server.call("GET", "/liveness")).status == 200
    assert (await server.call("GET", "/health")).status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_fifty_chats_and_a_signal(start: Start, number: signal.Signals) -> None:
    server = start(drain_timeout=DRAIN)
    watchers = Watchers(server)
    async with trio.open_nursery() as nursery:
        await watchers.watch(nursery)
        began = trio.current_time()
        server.send_signal(number)
        with server.deadline(0.5, "readiness 503"):
            while (await server.call("GET", "/readiness")).status != 503:
                await trio.sleep(0.01)
        await assert_refused(server)
        # Clients that are connected can still query their runs and stop them.
        chat = watchers.chats[0]
        assert (await server.get(f"/runs/{chat.run_id}"))["state"] == "RUNNING"
        assert not any(mark.startswith("cleaning") for mark in server.marks), "stopped before drain_timeout"
        code = await server.wait_exit()
        took = trio.current_time() - began
    assert code == 0, server.log
    assert DRAIN <= took < DRAIN + 3, took
    watchers.assert_all_ended_well()
    server.assert_clean()


async def test_short_runs_finish_during_the_drain(start: Start) -> None:
    server = start(drain_timeout=15)
    async with server.chat("work", seconds=1.0) as chat:
        await chat.started()
        began = trio.current_time()
        server.send_signal()
        end = await chat.finish()
        assert end["status"] == "completed"
        assert len(chat.deltas) == 50
    assert await server.wait_exit() == 0
    assert trio.current_time() - began < 4, "it waits for nobody"
    server.assert_clean()


async def test_a_stop_during_the_drain(start: Start) -> None:
    server = start(drain_timeout=15)
    session = fresh()
    async with server.chat("endless", session_id=session) as chat:
        await chat.started()
        server.send_signal()
        with server.deadline(5):
            while (await server.call("GET", "/readiness")).status != 503:
                await trio.sleep(0.01)
        assert (await server.stop(wait=True, session_id=session))["stopped"] is True
        assert (await chat.finish())["error"]["message"] == "stopped"
    assert await server.wait_exit(5) == 0


async def test_a_second_signal_hurries(start: Start) -> None:
    server = start(drain_timeout=60)
    watchers = Watchers(server, 5)
    async with trio.open_nursery() as nursery:
        await watchers.watch(nursery)
        server.send_signal()
        with server.deadline(5):
            while (await server.call("GET", "/readiness")).status != 503:
                await trio.sleep(0.01)
        began = trio.current_time()
        server.send_signal(signal.SIGINT)
        assert await server.wait_exit() == 0
        assert trio.current_time() - began < 4
    watchers.assert_all_ended_well()
    server.assert_clean()


async def test_answers_that_are_not_streamed_are_told_too(start: Start) -> None:
    server = start(drain_timeout=0.3)
    async with server.connect() as client:
        session = fresh()
        body = {"input": say(), "do": "endless", "session_id": session, "stream": False}
        await client.send("POST", "/process", body)
        await server.wait_mark(f"begin {session}")
        server.send_signal()
        answer = await client.answer()
        assert answer.status == 200
        assert answer.json()["status"] == "canceled"
    assert await server.wait_exit() == 0
    assert f"cleaned {session}" in server.marks


async def test_a_run_without_watchers_is_cleaned_up(start: Start) -> None:
    server = start(drain_timeout=0.3)
    session = fresh()
    async with server.chat("endless", session_id=session, on_disconnect="continue") as chat:
        await chat.started()
        chat.client.reset()
    server.send_signal()
    assert await server.wait_exit() == 0
    assert f"cleaned {session}" in server.marks
    server.assert_clean()


async def test_a_handler_that_never_ends_ends_with_the_process(start: Start) -> None:
    """Its watcher is told, the others are not worse off, and the exit code is not 0."""
    server = start(drain_timeout=0.2, cleanup_budget=1.0, watchdog_margin=1.0)
    session = fresh()
    async with server.chat("forever") as stubborn, server.chat("endless", session_id=session) as good:
        await stubborn.started()
        await good.started()
        server.send_signal()
        assert (await good.finish())["status"] == "canceled"
        end = await stubborn.finish()
        assert (end["status"], end["error"]["code"]) == ("failed", "cleanup_timeout")
    assert await server.wait_exit() == 1
    assert f"cleaned {session}" in server.marks
    assert "Still alive" in server.log


async def test_a_client_that_does_not_read(start: Start) -> None:
    server = start(drain_timeout=0.3)
    async with server.chat("endless", period=0, cleanup=0.1) as deaf, server.chat("endless") as good:
        await deaf.started()
        await good.started()
        server.send_signal()
        assert (await good.finish())["status"] == "canceled"
        assert await server.wait_exit() == 0


async def test_the_port_is_free_for_the_next(start: Start) -> None:
    server = start(drain_timeout=0.2)
    async with server.chat("endless") as chat:
        await chat.started()
        server.send_signal()
        await chat.finish()
        assert await server.wait_exit() == 0
    after = start(env={"PORT": str(server.port)})
    async with after.chat() as chat:
        assert (await chat.finish())["status"] == "completed"
    after.close()


async def test_idle_it_ends_at_once(start: Start) -> None:
    server = start()
    async with server.connect() as idle:
        await idle.send("GET", "/health")
        await idle.answer()
        began = trio.current_time()
        server.send_signal()
        assert await server.wait_exit() == 0
        assert trio.current_time() - began < 2
    server.assert_clean()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("flags", [(), ("--workers", "0")], ids=["master", "no worker"])
async def test_fifty_chats_under_hypercorn(start: Start, number: signal.Signals, flags: tuple[str, ...]) -> None:
    """The listener closes at once, and there is no exit code to rely on; the runs end as well as anywhere."""
    server = start(way="hypercorn", flags=flags, drain_timeout=DRAIN)
    watchers = Watchers(server)
    async with trio.open_nursery() as nursery:
        await watchers.watch(nursery)
        server.send_signal(number)
        await server.wait_exit(30)
    watchers.assert_all_ended_well()
    server.assert_clean()


async def test_a_signal_to_hypercorns_worker(start: Start) -> None:
    """What systemd's control-group kill does first."""
    server = start(way="hypercorn", drain_timeout=0.5)
    worker = (await server.get("/test/live"))["pid"]
    assert worker != server.process.pid
    watchers = Watchers(server, 10)
    async with trio.open_nursery() as nursery:
        await watchers.watch(nursery)
        os.kill(worker, signal.SIGTERM)
        await server.wait_exit(30)
    watchers.assert_all_ended_well()
    server.assert_clean()


async def test_a_signal_to_the_whole_group_under_hypercorn(start: Start) -> None:
    server = start(way="hypercorn", drain_timeout=0.5)
    watchers = Watchers(server, 10)
    async with trio.open_nursery() as nursery:
        await watchers.watch(nursery)
        server.send_signal_to_group()
        await server.wait_exit(30)
    watchers.assert_all_ended_well()
    server.assert_clean()
