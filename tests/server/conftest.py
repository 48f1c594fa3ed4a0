"""Servers in processes of their own, and a client that sees every byte."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

HERE = Path(__file__).parent
READY = re.compile(r"ready on https?://[\d.]+:(\d+)|Running on https?://[\d.]+:(\d+)")


class Server:
    def __init__(self, process: trio.Process, folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.port = 0

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def trace(self) -> list[str]:
        path = self.folder / "trace"
        return path.read_text().splitlines() if path.exists() else []

    async def wait_ready(self) -> None:
        with self.deadline(15):
            while (match := READY.search(self.log)) is None:
                if self.process.poll() is not None:
                    raise AssertionError(f"ended with {self.process.returncode}:\n{self.log}")
                await trio.sleep(0.02)
            self.port = int(match[1] or match[2])
            while self.trace.count("runtime opened") == 0:  # another process's state
                await trio.sleep(0.02)

    async def wait_traced(self, text: str, count: int = 1, seconds: float = 8) -> None:
        with self.deadline(seconds):
            while self.trace.count(text) < count:  # another process's state
                await trio.sleep(0.01)

    async def wait_logged(self, text: str, seconds: float = 8) -> None:
        with self.deadline(seconds):
            while text not in self.log:  # another process's state
                await trio.sleep(0.01)

    async def wait_exit(self, seconds: float = 15) -> int:
        with self.deadline(seconds):
            return await self.process.wait()

    def deadline(self, seconds: float) -> Any:
        return _Deadline(self, seconds)

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Client]:
        with trio.fail_after(5):
            stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        async with stream:
            yield Client(stream)


class _Deadline:
    """`fail_after` that shows the server's side."""

    def __init__(self, server: Server, seconds: float) -> None:
        self.server, self.seconds = server, seconds

    def __enter__(self) -> None:
        self.scope = trio.fail_after(self.seconds)
        self.scope.__enter__()

    def __exit__(self, *exc: Any) -> bool | None:
        try:
            return self.scope.__exit__(*exc)
        except trio.TooSlowError:
            server = self.server
            raise AssertionError(f"not within {self.seconds} s; trace {server.trace}, log:\n{server.log}") from None


class Client:
    """One plain connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.seen = b""

    async def get(self, path: str, *headers: str, version: str = "1.1") -> None:
        lines = [f"GET {path} HTTP/{version}", "Host: test", *headers, "", ""]
        await self.stream.send_all("\r\n".join(lines).encode())

    async def read_until(self, text: bytes, count: int = 1, seconds: float = 8) -> bytes:
        with trio.fail_after(seconds):
            while self.seen.count(text) < count:
                data = await self.stream.receive_some(65536)
                if not data:
                    raise AssertionError(f"EOF before {text!r}: {self.seen!r}")
                self.seen += data
        return self.seen

    async def read_to_eof(self, seconds: float = 8) -> bytes:
        with trio.fail_after(seconds):
            async for data in self.stream:
                self.seen += data
        return self.seen

    def reset(self) -> None:
        """Close with an RST."""
        linger = (1).to_bytes(4, sys.byteorder) + (0).to_bytes(4, sys.byteorder)
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.stream.socket.close()


Start = Callable[..., Awaitable[Server]]


@pytest.fixture
async def start_server(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts the sample app: with our launcher, or (with arguments) under the `hypercorn` command."""
    async with AsyncExitStack() as stack:
        number = 0

        async def start_one(*hypercorn: str, ready: bool = True, **options: Any) -> Server:
            nonlocal number
            number += 1
            folder = tmp_path / str(number)
            folder.mkdir()
            env = {**os.environ, "SAMPLE": json.dumps(options), "TRACE": str(folder / "trace")}
            env["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parent.parent)])
            command = [sys.executable, "-W", "error", str(HERE / "sample_app.py")]
            if hypercorn:
                bind = ("--bind", f"127.0.0.1:{free_port()}")
                command = [sys.executable, "-m", "hypercorn", "-k", "trio", *bind, *hypercorn, "sample_app:app"]
            with open(folder / "log", "wb") as log:  # noqa: ASYNC230
                process = await trio.lowlevel.open_process(
                    command, stdout=log, stderr=log, cwd=HERE, env=env, start_new_session=True
                )
            stack.push_async_callback(kill, process)
            server = Server(process, folder)
            if ready:
                await server.wait_ready()
            return server

        yield start_one


async def kill(process: trio.Process) -> None:
    """The whole process group, workers included."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    await process.wait()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
