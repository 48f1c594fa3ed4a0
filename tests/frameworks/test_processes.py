"""Processes of asyncio handlers: they end with the run, and what they have started, too."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trio

from trio_agentapp import AgentApp
from trio_agentapp.frameworks.processes import ProcessGroup

DESCENDANTS = "sleep 1000 & echo $! $$; wait"
STUBBORN = "trap '' TERM; echo $$ $$; while :; do sleep 0.1; done"


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def app_with(command: str, *, wait: bool = True, **options: Any) -> AgentApp:
    app = AgentApp(**options)

    @app.query(framework="asyncio")
    async def chat() -> AsyncIterator[str]:
        process = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        yield (await process.stdout.readline()).decode()
        if wait:
            await process.wait()

    return app


async def pids_of(app: AgentApp, *, stop: bool = True) -> list[int]:
    pids: list[int] = []
    with trio.fail_after(20):
        async with app.runtime(), app.stream_query({"input": "", "user_id": "u", "session_id": "s"}) as events:
            async for event in events:
                if event.object == "content" and event.delta:
                    pids = [int(pid) for pid in event.text.split()]
                    if stop:
                        await app.stop_chat("u", "s")
    return pids


async def test_a_stop_ends_a_process_and_its_descendants() -> None:
    pids = await pids_of(app_with(DESCENDANTS))
    assert len(pids) == 2
    assert not any(map(is_alive, pids))


async def test_a_process_that_ignores_sigterm_is_killed_within_the_cleanup_budget() -> None:
    pids = await pids_of(app_with(STUBBORN, cleanup_budget=1.0))
    assert pids
    assert not any(map(is_alive, pids))


@pytest.fixture
def adopts_orphans() -> Iterator[None]:
    """This process inherits orphaned descendants, as process 1 of a container does."""
    libc, set_child_subreaper = ctypes.CDLL(None), 36
    assert libc.prctl(set_child_subreaper, 1) == 0
    yield
    assert libc.prctl(set_child_subreaper, 0) == 0


async def test_descendants_that_this_process_inherits_are_reaped(
    adopts_orphans: None, caplog: pytest.LogCaptureFixture
) -> None:
    pids = await pids_of(app_with(DESCENDANTS))
    assert len(pids) == 2
    assert not any(map(is_alive, pids))
    assert "could not be ended" not in caplog.text


async def test_a_process_that_a_handler_leaves_is_ended_and_told_of(caplog: pytest.LogCaptureFixture) -> None:
    pids = await pids_of(app_with(DESCENDANTS, wait=False), stop=False)
    assert not any(map(is_alive, pids))
    assert "left processes" in caplog.text


async def test_a_process_of_the_lifespan_outlives_the_call_that_started_it() -> None:
    async def start() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec("sleep", "1000")

    app = AgentApp()
    with trio.fail_after(20):
        async with app.runtime():
            process = await app.bridge.run(start)
            assert is_alive(process.pid)

            async def end() -> None:
                process.kill()
                await process.wait()

            await app.bridge.run(end)


def test_a_group_without_processes_is_not_alive() -> None:
    class Ended:
        def get_pid(self) -> int:
            return 2**22 + 1  # beyond what Linux gives

        def get_returncode(self) -> int:
            return 0

    assert not ProcessGroup(Ended()).is_alive  # type: ignore[arg-type]
