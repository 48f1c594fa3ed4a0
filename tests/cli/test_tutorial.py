"""The tutorial from one handler to two nodes, typed as it stands there."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path

import trio

from trio_agentapp.testing.redis_server import RedisServer

from .conftest import TIMEOUT, Running, Shell, Terminal

PAGE = (Path(__file__).parents[2] / "docs/tutorials/from-one-handler-to-two-nodes.md").read_text()
BIN = str(Path(sys.executable).parent)

QUICK = """timings=Timings(
    lease=2, heartbeat=0.3, cutoff=1, offline_cleanup=0.5, margin=0.5, call_timeout=0.5, reaper=0.5
)"""
"""The reader waits 15 seconds for what comes here after two."""


def commands() -> list[str]:
    return [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


def command(containing: str, number: int = 0) -> str:
    return [line for line in commands() if containing in line][number]


def free_port() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return str(sock.getsockname()[1])


async def test_the_tutorial(tmp_path: Path) -> None:
    async with RedisServer("valkey") as redis:
        await trio.to_thread.run_sync(follow, Shell(tmp_path), redis.url)


def follow(shell: Shell, redis: str) -> None:
    code, client = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    quick = code.replace("AgentApp(\n", f"AgentApp(\n    {QUICK},\n")
    quick = quick.replace("Message, Run", "Message, Run, Timings")
    (shell.folder / "agent.py").write_text(quick)
    here, there = free_port(), free_port()

    def words(line: str, **values: str) -> tuple[str, ...]:
        for documented, real in (
            (".venv/bin/", f"{BIN}/"),
            ("8091", here),
            ("8092", there),
            ("redis://127.0.0.1:6379", redis),
        ):
            line = line.replace(documented, real)
        for name, value in values.items():
            line = line.replace(f'"${name}"', value)
        return ("bash", "-c", f"exec {line}" if "REDIS_URL" not in line else line)

    try:
        talk(shell)
        # 3: served, and stopped by its session.
        server = shell.start(command=words(command(" run ")))
        server.url()
        count_and_stop(shell, words(command(" invoke ", 0)), words(command(" stop ", 0)))
        assert server.stop(signal.SIGINT) == 0
        # 6: two nodes.
        ids = [shell.call(command=words(command("REDIS_URL", number))).stdout.strip() for number in range(2)]
        count_and_stop(shell, words(command(" invoke ", 1)), words(command(" stop ", 1)))
        # 7: the same from Python.
        namespace: dict = {}
        exec(client, namespace)
        urls = (f"http://127.0.0.1:{port}" for port in (here, there))
        status, receipt = trio.run(namespace["count_here_stop_there"], *urls)
        assert (status, receipt.stopped, receipt.cleanup) == ("canceled", True, "done")
        # 8: a node dies.
        lost = shell.start(command=words(command("--session s3")))
        lost.wait_for("3 ")
        first, second = json.loads(shell.call("list", "--json").stdout)
        assert [first["deploy_id"], second["deploy_id"]] == ids
        os.kill(first["pid"], signal.SIGKILL)
        assert lost.process.wait(TIMEOUT) == 3
        found = re.search(r"--user s3 --run (\w+)", lost.output)
        assert found, lost.output
        end = time.monotonic() + TIMEOUT
        while (run := ask(shell, words(command("$RUN"), RUN=found[1])))["state"] != "ERROR":
            assert time.monotonic() < end, run
        assert run["reason"] == "owner_lost"
        for deploy_id in ids:
            shell.call("stop", deploy_id)
    finally:
        shell.close()


def talk(shell: Shell) -> None:
    assert command(" chat ") == ".venv/bin/trio-agentapp chat agent.py"
    chat = shell.terminal("chat", "agent.py")
    chat.wait_for("> ")
    chat.type("count to 5\n")
    assert "1 2 3 4 5 \r\n" in chat.wait_for("> ")
    chat.type("count to 500\n")
    chat.wait_for("1 2 3 ")
    chat.type(Terminal.CTRL_C)
    shown = chat.wait_for("> ")
    assert re.search(r"\r\nprocess \d+: stopped at \d+\r\n", shown)
    found = re.search(r"Stopped run \w{32} in (\d+) ms, cleanup done\.", shown)
    assert found, shown
    assert int(found[1]) >= 200
    chat.type(Terminal.CTRL_D)
    assert chat.wait_exit() == 0


def count_and_stop(shell: Shell, count: tuple[str, ...], stop: tuple[str, ...]) -> None:
    counting: Running = shell.start(command=count)
    counting.wait_for("3 ")
    assert re.fullmatch(r"Stopped run \w{32} in \d+ ms, cleanup done\.\n", shell.call(command=stop).stderr)
    assert counting.process.wait(TIMEOUT) == 5


def ask(shell: Shell, command: tuple[str, ...]) -> dict:
    return json.loads(shell.call(command=command).stdout)
