"""Celery workers in processes of their own, and a Redis that they share with an app."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

from trio_agentapp.testing.redis_server import RedisServer

from .harness import AGENTS, TIMEOUT, Server

CONCURRENCY = 4


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer("valkey")
    trio.run(server.__aenter__)
    try:
        yield server
    finally:
        trio.run(server.aclose)


class Worker:
    """`celery -A tasks:celery worker`, as users start it, with its children in one process group."""

    def __init__(self, url: str, folder: Path, *options: str, **env: str) -> None:
        self._log = folder / f"worker-{len(list(folder.iterdir()))}"
        command = [sys.executable, "-m", "celery", "-A", "tasks:celery", "worker", "--loglevel=INFO"]
        command += [f"--concurrency={CONCURRENCY}", "--without-gossip", "--without-mingle", *options]
        environment = {**os.environ, "FOLDER": str(folder), "REDIS_URL": url, **env}
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=AGENTS, env=environment, start_new_session=True
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_ready(self, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while " ready." not in self.log:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < end, self.log
            time.sleep(0.02)

    async def wait_exit(self, seconds: float = 20) -> int:
        with trio.fail_after(seconds):
            while (code := self.process.poll()) is None:
                await trio.sleep(0.01)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """The whole group, as a machine that is lost."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


async def submit(server: Server, path: str, body: Any = None, **options: Any) -> str:
    answer = await server.call("POST", path, {} if body is None else body, **options)
    assert answer.status == 202, answer
    task_id: str = answer.json()["task_id"]
    return task_id


async def look(server: Server, path: str, task_id: str) -> dict[str, Any]:
    body: dict[str, Any] = await server.get(f"{path}/{task_id}")
    return body


async def ended(server: Server, path: str, task_id: str, seconds: float = TIMEOUT) -> dict[str, Any]:
    with server.deadline(seconds, f"end of task {task_id}"):
        while (body := await look(server, path, task_id))["status"] in ("pending", "running"):
            await trio.sleep(0.02)
    return body


async def cancel(server: Server, path: str, task_id: str, *, wait: bool = True) -> dict[str, Any]:
    answer = await server.call("POST", f"{path}/{task_id}/cancel?wait={int(wait)}")
    assert answer.status == (200 if wait else 202), answer
    body: dict[str, Any] = answer.json()
    return body
