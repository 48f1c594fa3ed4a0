"""`launch` from outside: signals in, exit codes and lines out."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

Start = Callable[..., Awaitable[Any]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_clean_stop_drains_and_exits_0(start_server: Start, number: signal.Signals) -> None:
    server = await start_server(drain_timeout=60)
    async with server.connect() as client:
        await client.get("/stream?cleanup=0.3")
        await client.read_until(b"tick")
        server.signal(number)
        await server.wait_traced("draining")
        async with server.connect() as late:
            await late.get("/plain")
            await late.read_until(b"hello")  # the listener is still open: the app answers for itself
        server.signal(number)
        await server.wait_traced("hurried")
        assert (await client.read_to_eof()).endswith(b"goodbye\n\r\n0\r\n\r\n")
        assert await server.wait_exit() == 0
    assert server.trace[-2:] == ["after serving", "runtime closed"]
    assert "Traceback" not in server.log


async def test_the_ready_line_names_the_real_port(start_server: Start) -> None:
    server = await start_server()
    line = server.log.splitlines()[0]
    assert re.fullmatch(r"sample is ready on http://127\.0\.0\.1:[1-9]\d* \(Ctrl-C stops it; node node-1\)", line)


async def test_a_third_signal_ends_the_process_on_the_spot(start_server: Start) -> None:
    server = await start_server(drain_timeout=60)
    async with server.connect() as client:
        await client.get("/stream?cleanup=60")
        await client.read_until(b"tick")
        server.signal()
        await server.wait_traced("draining")
        server.signal()
        await server.wait_traced("hurried")
        server.signal(signal.SIGINT)
        assert await server.wait_exit(3) == 130


async def test_a_blocked_loop_does_not_make_it_deaf(start_server: Start) -> None:
    server = await start_server()
    async with server.connect() as client:
        await client.get("/blocked-loop")
        await server.wait_traced("loop blocked")
        with server.deadline(5):
            while server.process.poll() is None:
                server.signal()
                await trio.sleep(0.1)
    assert server.process.returncode == 130


async def test_a_failed_start_exits_1_with_a_traceback(start_server: Start) -> None:
    server = await start_server(ready=False, before_serving_fails=True)
    assert await server.wait_exit() == 1
    assert "start-up failed: ZeroDivisionError: bug in before_serving" in server.log
    assert "Traceback" in server.log
    assert server.trace[-1] == "runtime closed"


async def test_an_expected_failure_exits_1_with_one_line(start_server: Start) -> None:
    server = await start_server(ready=False, runtime_fails=True)
    assert await server.wait_exit() == 1
    line = r"\S+Z CRITICAL trio_agentapp\.server: The start-up failed: ConnectionRefusedError: no backend"
    assert re.fullmatch(line + r" \[node=node-1\]\n", server.log)


async def test_a_busy_port_exits_1_before_the_app_starts(start_server: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = await start_server(ready=False, port=port)
        assert await server.wait_exit() == 1
    hint = "choose another one with app.run(port=...), --port or PORT"
    assert server.log == f"Cannot listen on 127.0.0.1:{port}: the port is in use; {hint}\n"
    assert server.trace == []


async def test_a_signal_during_start_up_ends_it(start_server: Start) -> None:
    server = await start_server(ready=False, start_hangs=True)
    await server.wait_traced("before serving")
    server.signal()
    assert await server.wait_exit(5) == 0
    assert server.trace[-1] == "runtime closed"
    assert "ready" not in server.log


async def test_a_background_crash_exits_1(start_server: Start) -> None:
    """With a stream open: the process ends, and what is live is cleaned up."""
    server = await start_server()
    async with server.connect() as client, server.connect() as other:
        await client.get("/stream?cleanup=0.3")
        await client.read_until(b"tick")
        await other.get("/crash")
        assert (await client.read_to_eof()).endswith(b"goodbye\n\r\n0\r\n\r\n")
        assert await server.wait_exit() == 1
    assert "ZeroDivisionError: background bug" in server.log
    assert server.trace[-1] == "runtime closed"


async def test_a_crash_in_while_serving_exits_1(start_server: Start) -> None:
    server = await start_server(while_serving="crash")
    assert await server.wait_exit() == 1
    assert "The server stops: ZeroDivisionError: bug in while_serving" in server.log
    assert server.trace[-1] == "runtime closed"


async def test_while_serving_nurseries_close_in_reverse(start_server: Start) -> None:
    server = await start_server(while_serving="yes")
    server.signal()
    assert await server.wait_exit() == 0
    assert server.trace[-3:] == ["b closed", "a closed", "runtime closed"]


async def test_background_tasks_get_their_timeout(start_server: Start) -> None:
    """T9."""
    server = await start_server(background_timeout=5, work=0.5)
    async with server.connect() as client:
        await client.get("/background")
        await client.read_until(b"working")
        server.signal()
        assert await server.wait_exit() == 0
    assert "background work done" in server.trace


@pytest.mark.parametrize("path", ["/stuck", "/shielded"])
async def test_the_watchdog_ends_what_does_not_end(start_server: Start, path: str) -> None:
    """A thread that a task waits for, and a task that shields itself."""
    server = await start_server(cleanup_budget=-9.0, background_timeout=0)  # the watchdog's patience: 1 s
    async with server.connect() as client:
        await client.get(path)
        await client.read_until(b"200")
        server.signal()
        assert await server.wait_exit(5) == 1
    assert "Still alive 1 s after the drain" in server.log
    assert ("sample_app.py" in server.log) if path == "/shielded" else ("thread sleep from" in server.log)


PROGRAM = """
import sys
from trio_agentapp.server.launcher import imported_by_launcher
print("imported" if imported_by_launcher() else "run")
app = None
"""


@pytest.mark.parametrize(
    ("how", "answer"),
    [
        ("import runpy; runpy.run_path('program.py', run_name='__main__')", "run"),
        ("import program", "run"),
        ("from hypercorn.utils import load_application\nload_application('program:app', 1)", "imported"),
        (
            "import sys, types, importlib\n"
            "cli = types.ModuleType('trio_agentapp.cli'); cli.__dict__['importlib'] = importlib\n"
            "exec('def load(name): return importlib.import_module(name)', cli.__dict__)\n"
            "cli.load('program')",
            "imported",
        ),
        (
            "import multiprocessing.spawn\nmultiprocessing.spawn._fixup_main_from_path('program.py')",
            "imported",
        ),
        (
            "import types, importlib\n"
            "cli = types.ModuleType('celery.loaders.base'); cli.__dict__['importlib'] = importlib\n"
            "exec('def load(name): return importlib.import_module(name)', cli.__dict__)\n"
            "cli.load('program')",
            "imported",
        ),
    ],
)
async def test_who_imports(tmp_path: Path, how: str, answer: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    root = str(Path(__file__).parent.parent.parent)
    code = f"import sys; sys.path[:0] = [{root!r}, '.']\n{how}"
    run = await trio.run_process(
        [sys.executable, "-c", code], cwd=tmp_path, capture_stdout=True, stderr=subprocess.STDOUT, check=False
    )
    assert run.stdout.decode().splitlines()[0] == answer
