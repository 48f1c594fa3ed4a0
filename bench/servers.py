"""Servers and load clients as real processes, and their cost according to /proc."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).parent
READY = re.compile(r"is ready on (http://\S+)")
READY_WITHIN = 60.0
STOPPED_WITHIN = 20.0
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Server:
    """Start `script` and wait until it is ready; end it after the `with`. Its output goes to `log`."""

    def __init__(self, script: Path, log: Path, settings: dict[str, str] | None = None) -> None:
        self._script = script
        self._log = log
        # Only the settings of the scenario, without those of the shell.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AGENTAPP_")}
        self._environment = inherited | {"PYTHONUNBUFFERED": "1"} | (settings or {})
        self.url = ""
        self.start_s = 0.0
        """Seconds from the start of the process to its ready line."""

    def __enter__(self) -> Self:
        command = [sys.executable, str(self._script), "--port", "0"]
        began = time.perf_counter()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
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
                raise RuntimeError(f"{self._script.name} is not ready:\n{self._log.read_text()}")
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
        """Wait until the node is ready: with a Redis that has just started this takes one lease."""
        deadline = time.perf_counter() + READY_WITHIN
        while time.perf_counter() < deadline:
            with suppress(urllib.error.HTTPError), urllib.request.urlopen(f"{self.url}/readiness"):
                return
            time.sleep(0.1)
        raise RuntimeError(f"no runs can be started:\n{self._log.read_text()}")

    def cpu_s(self) -> float:
        """User and system time of all its threads so far, in steps of a clock tick."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND

    def rss_kib(self) -> int:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)[1])

    def load(self, model: str, **options: float) -> dict[str, Any]:
        """Run chats of one kind to their end; the client's report, with the server's CPU time as `cpu_s`."""
        before = self.cpu_s()
        with LoadClient(self.url, model, options) as client:
            report = client.report()
        return report | {"cpu_s": self.cpu_s() - before}

    def hold(self, model: str, **options: float) -> "LoadClient":
        """Open chats, and keep them open until the end of the `with`."""
        return LoadClient(self.url, model, options, "--hold")


class LoadClient:
    """A running `client.py`."""

    def __init__(self, url: str, model: str, options: dict[str, float], *flags: str) -> None:
        arguments = [f"--{name}={value}" for name, value in options.items()]
        self._command = [
            sys.executable, str(HERE / "client.py"), url, f"--model={model}", *arguments, *flags
        ]  # fmt: skip

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    def wait_holding(self) -> None:
        """Wait until every chat has received its first delta."""
        line = json.loads(self._process.stdout.readline() or "{}")
        if "holding" not in line:
            raise RuntimeError(f"not every chat has begun: {line}")

    def report(self) -> dict[str, Any]:
        """End held chats, and wait for the end of the others."""
        output, _ = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError("the load client failed")
        return json.loads(output)
