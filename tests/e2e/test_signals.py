"""SIGHUP drains, as SIGTERM does; SIGUSR1 and SIGUSR2 harm nobody; who has taken one of them keeps it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
import trio

from trio_agentapp.testing.redis_server import RedisServer

from .conftest import Start
from .harness import Server, fresh

WAYS = ("run", "hypercorn without workers", "hypercorn")


def begin(start: Start, way: str) -> Server:
    flags = ("--workers", "0") if way.endswith("without workers") else ()
    return start(way=way.partition(" ")[0], flags=flags, drain_timeout=0.3)


async def serving_process(server: Server) -> int:
    """The process that serves, which may be Hypercorn's worker."""
    pid: int = (await server.get("/test/live"))["pid"]
    return pid


@pytest.mark.parametrize("way", WAYS)
async def test_a_terminal_that_is_closed_drains(start: Start, way: str) -> None:
    server = begin(start, way)
    pid = await serving_process(server)
    session = fresh()
    async with server.chat("endless", session_id=session) as chat:
        await chat.started()
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            os.kill(pid, number)
            await server.wait_until(lambda number=number: f"{number.name} does nothing here" in server.log, "word")
        assert (await server.call("GET", "/readiness")).status == 200
        assert (await server.get("/test/live")) == {"live": 1, "pid": pid}
        # Twice, as when a shell passes on what the kernel sends as well: it must not hurry.
        os.kill(pid, signal.SIGHUP)
        os.kill(pid, signal.SIGHUP)
        assert (await chat.finish())["error"]["message"] == "shutdown"
    await server.wait_mark(f"cleaned {session}")
    code = await server.wait_exit()
    assert code == 0, server.log
    server.assert_clean(allowed=r"^.*SIGUSR[12] does nothing here.*$")


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGKILL])
async def test_a_hypercorn_master_that_dies_leaves_no_worker(start: Start, number: signal.Signals) -> None:
    """It dies of SIGUSR1 on the spot: that is Hypercorn's. Its worker drains, and frees the port."""
    server = begin(start, "hypercorn")
    pid = await serving_process(server)
    assert pid != server.process.pid
    session = fresh()
    async with server.chat("endless", session_id=session) as chat:
        await chat.started()
        server.send_signal(number)
        assert await server.wait_exit() == -number
        assert (await chat.finish())["error"]["message"] == "shutdown"
    await server.wait_mark(f"cleaned {session}")
    await server.wait_until(lambda: not alive(pid), "end of the worker")
    assert "the master process is gone; this worker drains and ends" in server.log


async def see_the_worker_drain(server: Server, pid: int, send: Callable[[signal.Signals], None]) -> None:
    """After a SIGHUP, its chat and its cleanup included."""
    session = fresh()
    async with server.chat("endless", session_id=session) as chat:
        await chat.started()
        send(signal.SIGHUP)
        assert (await chat.finish())["error"]["message"] == "shutdown"
    await server.wait_mark(f"cleaned {session}")
    await server.wait_until(lambda: not alive(pid), "end of the old worker")


async def test_hypercorn_reloads_and_the_old_worker_drains(start: Start) -> None:
    """SIGHUP to its master alone starts the workers anew: that, too, is Hypercorn's."""
    server = begin(start, "hypercorn")
    pid = await serving_process(server)
    await see_the_worker_drain(server, pid, server.send_signal)
    server.wait_ready()
    assert await serving_process(server) != pid
    server.close()


async def test_a_terminal_that_is_closed_ends_hypercorn(start: Start) -> None:
    server = begin(start, "hypercorn")
    pid = await serving_process(server)
    await see_the_worker_drain(server, pid, server.send_signal_to_group)
    await server.wait_exit()


async def test_workers(start: Start) -> None:
    async with RedisServer() as redis:
        server = start("shared", env={"REDIS_URL": redis.url, "WORKERS": "2"})
        await signal_workers(server)


async def signal_workers(server: Server) -> None:
    session = fresh()
    async with server.chat(session_id=session) as chat:
        await chat.started()
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            server.send_signal(number)
            await server.wait_until(lambda number=number: f"{number.name} does nothing here" in server.log, "word")
            os.kill(int(chat.deltas[0]), number)
        await server.wait_until(lambda: server.log.count("does nothing here") == 4, "words of the worker")
        server.send_signal(signal.SIGHUP)
        assert (await chat.finish())["status"] == "canceled"
    assert await server.wait_exit() == 0
    assert f"cleaned {session}" in server.marks


@pytest.mark.parametrize("way", ["run", "hypercorn"])
async def test_nohup_is_obeyed(start: Start, way: str) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        server = begin(start, way)
    finally:
        signal.signal(signal.SIGHUP, before)
    pid = await serving_process(server)
    async with server.chat("endless", session_id=fresh()) as chat:
        await chat.started()
        os.kill(pid, signal.SIGHUP)
        os.kill(pid, signal.SIGUSR1)
        await server.wait_until(lambda: "SIGUSR1 does nothing here" in server.log, "word")
        seen = len(chat.events)
        while len(chat.events) < seen + 20:
            assert await chat.next() is not None
    assert (await server.call("GET", "/readiness")).status == 200


PROGRAM = """
import faulthandler, signal, sys
from trio_agentapp import AgentApp

faulthandler.register(signal.SIGUSR1)
signal.signal(signal.SIGUSR2, lambda *_: print("mine", file=sys.stderr, flush=True))
app = AgentApp()
app.run(port=0)
"""


async def test_a_handler_of_the_program_stays() -> None:
    """Also one that C code has set, of which Python does not know."""
    process = await trio.lowlevel.open_process([sys.executable, "-c", PROGRAM], stderr=subprocess.PIPE)
    assert process.stderr is not None
    try:
        with trio.fail_after(30):
            said = b""
            for number, expected in (
                (None, b"is ready on"),
                (signal.SIGUSR1, b"(most recent call first)"),
                (signal.SIGUSR2, b"mine"),
            ):
                if number is not None:
                    process.send_signal(number)
                while expected not in said:
                    piece = await process.stderr.receive_some()
                    assert piece, said
                    said += piece
            process.send_signal(signal.SIGHUP)
            async for piece in process.stderr:
                said += piece
            assert await process.wait() == 0
            assert b"does nothing here" not in said
    finally:
        process.kill()


def alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


@pytest.mark.parametrize("how", ["stop", "drain", "hang-up"])
async def test_the_processes_of_a_tool_end_with_its_run(start: Start, how: str) -> None:
    server = start(drain_timeout=0.1)
    session = fresh()
    async with server.chat("shell", session_id=session) as chat:
        while len(pids := [*map(int, "".join(chat.deltas).split())]) < 2:
            assert await chat.next() is not None
        assert all(alive(pid) for pid in pids)
        if how == "stop":
            receipt = await server.stop(wait=True, session_id=session)
            assert (receipt["stopped"], receipt["cleanup"]) == (True, "done")
        elif how == "drain":
            server.send_signal()
            assert await server.wait_exit() == 0
    if how == "hang-up":
        await server.wait_until(lambda: not any(alive(pid) for pid in pids), "end of the tool")
    assert not any(alive(pid) for pid in pids)
