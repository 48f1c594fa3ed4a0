"""A proxy that cuts connections, and processes of agents, for the tests of clients and servers of A2A."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import trio

HERE = Path(__file__).parent
CARD = "/.well-known/agent-card.json"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Proxy:
    """Passes bytes on, to a server on a port of this machine."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.accepted = 0
        self._to = port
        self._open: set[trio.CancelScope] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Close all connections, in the middle of whatever they carry."""
        for scope in self._open:
            scope.cancel()

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._pass, listeners)

    async def _pass(self, client: trio.SocketStream) -> None:
        self.accepted += 1
        with trio.CancelScope() as scope:
            self._open.add(scope)
            try:
                server = await trio.open_tcp_stream("127.0.0.1", self._to)
                async with client, server, trio.open_nursery() as nursery:
                    nursery.start_soon(self._copy, client, server, scope)
                    nursery.start_soon(self._copy, server, client, scope)
            finally:
                self._open.discard(scope)

    async def _copy(self, source: trio.SocketStream, to: trio.SocketStream, scope: trio.CancelScope) -> None:
        try:
            async for piece in source:
                await to.send_all(piece)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()


@asynccontextmanager
async def proxied(port: int) -> AsyncIterator[Proxy]:
    async with trio.open_nursery() as nursery:
        proxy = Proxy(port)
        await nursery.start(proxy.serve)
        yield proxy
        nursery.cancel_scope.cancel()


class Agent:
    """An agent in a process of its own, with what it has printed."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, port: int) -> None:
        self.process = process
        self.port = port
        self._log = log

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self._log.read_text()

    async def wait_ready(self) -> None:
        async with httpx.AsyncClient(trust_env=False) as http:
            with trio.fail_after(60):
                while True:
                    assert self.process.poll() is None, self.log
                    try:
                        if (await http.get(self.url + CARD)).status_code == 200:
                            return
                    except httpx.TransportError:
                        pass
                    await trio.sleep(0.05)


async def wait_until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not condition():
            await trio.sleep(0.01)


@asynccontextmanager
async def agent(folder: Path, command: list[str], port: int, **env: str) -> AsyncIterator[Agent]:
    """Start `command` with this Python, and end it with the block."""
    log = folder / f"log-{port}"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *command], stdout=out, stderr=out, env={**os.environ, "PYTHONUNBUFFERED": "1", **env}
        )
    try:
        started = Agent(process, log, port)
        await started.wait_ready()
        yield started
    finally:
        process.kill()
        process.wait()
