"""Servers and load clients as real processes, and what they cost according to /proc."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).parent
READY = re.compile(r"(?:is ready on|Uvicorn running on) (http://\S+)")
READY_WITHIN = 60.0
STOPPED_WITHIN = 20.0
SETTINGS = ("AGENTAPP_", "BENCH_")


@dataclass(frozen=True)
class Program:
    """A server that can be started: it takes `--port 0` and prints the line READY."""

    script: Path
    python: Path = Path(sys.executable)


class Server:
    """A program, started and ready inside the `with`; its output goes to `log`."""

    def __init__(
        self, program: Program, log: Path, settings: dict[str, str] | None = None, options: Sequence[str] = ()
    ) -> None:
        self._script = program.script
        self._command = [str(program.python), str(program.script), "--port", "0", *options]
        self._log = log
        # Only the settings of the scenario: none of the shell's may decide what is measured.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
        # All chats come from one address.
        limits = {"AGENTAPP_REQUESTS_PER_SECOND": "0", "AGENTAPP_MAX_RUNS_PER_USER": "10000"}
        self._environment = inherited | {"PYTHONUNBUFFERED": "1"} | limits | (settings or {})
        self.url = ""
        self.start_s = 0.0
        """Seconds from the start of the process to the line that says it is ready."""

    def __enter__(self) -> Self:
        began = time.perf_counter()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self.url = self._wait_ready(began + READY_WITHIN)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        self.start_s = time.perf_counter() - began
        return self

    def _wait_ready(self, deadline: float) -> str:
        while not (ready := READY.search(self._log.read_text())):
            if self._process.poll() is not None or time.perf_counter() > deadline:
                raise RuntimeError(f"{self._script.name} is not ready:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.002)
        return ready[1]

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOPPED_WITHIN)
            return
        print(f"{self._script.name} did not stop within {STOPPED_WITHIN:.0f} s and was killed", file=sys.stderr)
        self._process.kill()
        self._process.wait()

    def wait_ready_for_runs(self) -> None:
        """Until the readiness probe says so: a Redis that has just started is not trusted with sessions.

        The replaced product has no such probe, and takes runs at once.
        """
        deadline = time.perf_counter() + READY_WITHIN
        while time.perf_counter() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/readiness"):
                    return
            except urllib.error.HTTPError as error:
                if error.code == HTTPStatus.NOT_FOUND:
                    return
            time.sleep(0.1)
        raise RuntimeError(f"no runs can be started:\n{self._log.read_text()[-2000:]}")

    def cpu_s(self) -> float:
        """User and system time so far, of all threads and of the processes that it has started."""
        return sum(cpu_s(process) for process in family(self._process.pid))

    def rss_kib(self) -> int:
        return sum(rss_kib(process) for process in family(self._process.pid))

    def load(self, model: str, *flags: str, client: str = "client.py", **options: float | str) -> dict[str, Any]:
        """Chats of one kind to their end, and the client's report; `cpu_s` is what they cost the server."""
        before = self.cpu_s()
        with self.chats(model, *flags, client=client, **options) as running:
            report = running.report()
        return report | {"cpu_s": self.cpu_s() - before}

    def chats(self, model: str, *flags: str, client: str = "client.py", **options: float | str) -> "LoadClient":
        """Chats of one kind that run meanwhile; with `--hold` they stay open until the end of the `with`."""
        return LoadClient(self.url, model, options, *flags, client=client)


class LoadClient:
    """A running `client.py`, or another client with its options and report."""

    def __init__(
        self, url: str, model: str, options: dict[str, float | str], *flags: str, client: str = "client.py"
    ) -> None:
        arguments = [f"--{name}={value}" for name, value in options.items()]
        self._command = [
            sys.executable, str(HERE / client), url, f"--model={model}", *arguments, *flags
        ]  # fmt: skip

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    def wait_holding(self) -> None:
        """Until every chat has had its first delta."""
        line = json.loads(self._process.stdout.readline() or "{}")
        if "holding" not in line:
            raise RuntimeError(f"not every chat has begun: {line}")

    def report(self) -> dict[str, Any]:
        """Let go of held chats, wait for the end of the others."""
        output, _ = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError("the load client failed")
        return json.loads(output)


def stops(what: str, chats: Server, stops: Server, *flags: str, **options: int) -> dict[str, Any]:
    """A run of `stops.py`, and its report."""
    arguments = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, str(HERE / "stops.py"), what, chats.url, stops.url, *arguments, *flags]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise RuntimeError("the client of stops failed")
    return json.loads(done.stdout)


def family(pid: int) -> Iterator[int]:
    """A process and those below it."""
    yield pid
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            yield from family(int(child))


def cpu_s(pid: int) -> float:
    """CPU seconds of a process: its clock, as `clock_getcpuclockid` names it; finer than the ticks of `/proc`."""
    return time.clock_gettime((~pid << 3) | 2)


def rss_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)[1])
