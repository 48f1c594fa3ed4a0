"""`run.open_process`: a process, and all that it started, is gone before anybody is told that its run has ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

from trio_agentapp.protocol.lifecycle import CleanupResult

STOPPED = ("STOPPED", "stopped")
FINISHED = ("FINISHED", "returned")

CHILDREN = "sleep 300 & (sleep 300 & echo $! >>pids; wait) & echo $! $$ >>pids; "
"""A shell's: a child, a grandchild, and the shell itself."""


@pytest.fixture
def pids(tmp_path: Path):
    """The processes that have noted themselves; none may be left."""
    os.mkfifo(tmp_path / "unused")

    def noted() -> list[int]:
        path = tmp_path / "pids"
        return [int(word) for word in path.read_text().split()] if path.exists() else []

    yield noted
    left = [pid for pid in noted() if alive(pid)]
    for pid in left:
        os.kill(pid, 9)
    assert not left


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


async def wait_noted(pids, count: int = 3) -> list[int]:
    with trio.fail_after(10):
        while len(pids()) < count:
            await trio.sleep(0.01)
    return pids()


async def test_grandchildren_are_gone_when_the_receipt_comes(house, how, tmp_path, pids) -> None:
    async def handler(run):
        async with run.open_process(CHILDREN + "wait", shell=True, cwd=tmp_path) as process:
            yield str(process.pid)
            await process.wait()

    run = await house.start(handler)
    started = await wait_noted(pids)
    assert all(map(alive, started))
    receipt = await house.stop(run, wait=True)
    assert not any(map(alive, started))
    assert (receipt.stopped, receipt.cleanup) == (True, CleanupResult.DONE)
    assert how(run) == STOPPED


@pytest.mark.parametrize("way", ["returns", "raises", "breaks", "deadline"])
async def test_whatever_ends_the_block(house, how, tmp_path, pids, way) -> None:
    """The process itself may have ended before: what it left behind ends with the block."""

    async def items(run):
        async with run.open_process(CHILDREN, shell=True, cwd=tmp_path) as process:
            assert await process.wait() == 0
            assert sum(map(alive, await wait_noted(pids))) == 2
            yield "left"
            if way == "raises":
                raise ValueError("a handler's")
            if way == "deadline":
                await trio.sleep_forever()

    async def handler(run):
        stream = items(run)
        async for item in stream:
            yield item
            if way == "breaks":
                break
        await stream.aclose()
        assert not any(map(alive, pids()))

    run = await house.play(handler, timeout_s=1.0 if way == "deadline" else None)
    assert len(pids()) == 3
    assert how(run)[1] == {"raises": "exception", "deadline": "deadline_exceeded"}.get(way, "returned")


async def test_sigterm_first_and_sigkill_for_what_stays(house, how, tmp_path, pids) -> None:
    """One that cleans up has its time; one that ignores SIGTERM, and one that is suspended, are ended as well."""
    polite = "trap 'sleep 0.2; echo bye >farewell; exit' TERM; "
    stubborn = "(trap '' TERM; echo $BASHPID >>pids; while :; do sleep 0.1; done) & "
    stopped = "(echo $BASHPID >>pids; kill -STOP $BASHPID) & "
    command = ["bash", "-c", polite + stubborn + stopped + "echo $$ >>pids; while :; do sleep 0.1; done"]

    async def handler(run):
        async with run.open_process(command, cwd=tmp_path, grace=1.0):
            await trio.sleep_forever()

    run = await house.start(handler)
    started = await wait_noted(pids)
    before = time.monotonic()
    await house.stop(run, wait=True)
    assert not any(map(alive, started))
    assert (tmp_path / "farewell").read_text() == "bye\n"
    assert time.monotonic() - before >= 1.0, "it was killed before its time"
    assert how(run) == STOPPED


async def test_it_is_killed_within_the_cleanup_budget(open_house, how, tmp_path, pids) -> None:
    async def handler(run):
        command = "trap '' TERM; echo $$ >>pids; while :; do sleep 0.1; done"
        async with run.open_process(command, shell=True, cwd=tmp_path, grace=3600):
            await trio.sleep_forever()

    async with open_house(cleanup_budget=2.0) as house:
        run = await house.start(handler)
        await wait_noted(pids, 1)
        receipt = await house.stop(run, wait=True)
        assert not any(map(alive, pids()))
        # In time: the run was stopped, and its cleanup was not cut.
        assert how(run) == STOPPED
        assert receipt.cleanup is CleanupResult.DONE


async def test_also_when_the_budget_is_used_up(open_house, tmp_path, pids) -> None:
    async def handler(run):
        async with run.open_process("echo $$ >>pids; sleep 300", shell=True, cwd=tmp_path):
            try:
                await trio.sleep_forever()
            finally:
                async with run.cleanup():
                    await trio.sleep(60)

    async with open_house(cleanup_budget=0.3) as house:
        run = await house.start(handler)
        await wait_noted(pids, 1)
        await house.stop(run, wait=True)
        assert not any(map(alive, pids()))
        assert run.lifecycle.ending.cause.value == "cleanup_timeout"


async def test_pipes(house, how, tmp_path) -> None:
    said = []

    async def handler(run):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        async with run.open_process(["cat"], **pipes) as process:
            await process.stdin.send_all(b"to and fro")
            await process.stdin.aclose()
            async for piece in process.stdout:
                said.append(bytes(piece))
            assert await process.wait() == 0
        with pytest.raises(trio.ClosedResourceError):
            await process.stdout.receive_some()
        # Without a word nothing is read from the server's own input, and there is no terminal to wait for.
        program = "import os, sys; assert sys.stdin.read() == ''; os.open('/dev/tty', os.O_RDWR)"
        async with run.open_process([sys.executable, "-c", program], stderr=subprocess.DEVNULL) as process:
            assert await process.wait() == 1
        with pytest.raises(FileNotFoundError):
            async with run.open_process([str(tmp_path / "none")]):
                raise AssertionError
        yield "done"

    before = len(os.listdir("/proc/self/fd"))
    run = await house.play(handler)
    assert how(run) == FINISHED
    assert b"".join(said) == b"to and fro"
    assert len(os.listdir("/proc/self/fd")) == before


async def test_after_a_stop_nothing_is_started(house, how, tmp_path, pids) -> None:
    async def handler(run):
        try:
            await trio.sleep_forever()
        finally:
            async with run.open_process("echo $$ >>pids", shell=True, cwd=tmp_path):
                raise AssertionError

    run = await house.start(handler)
    await trio.testing.wait_all_tasks_blocked()
    await house.stop(run, wait=True)
    assert how(run) == STOPPED
    assert pids() == []


async def test_who_leaves_the_group_is_not_reached(house, tmp_path, pids) -> None:
    """As the documentation says: a session of one's own is out of reach."""

    async def handler(run):
        async with run.open_process("setsid sh -c 'echo $$ >>pids; sleep 300' & wait", shell=True, cwd=tmp_path):
            await trio.sleep_forever()

    run = await house.start(handler)
    [daemon] = await wait_noted(pids, 1)
    await house.stop(run, wait=True)
    assert alive(daemon)
    os.kill(daemon, 9)
    with trio.fail_after(5):
        while alive(daemon):
            await trio.sleep(0.01)
