"""Programs that deploy, in processes of their own, and what they have left running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from trio_agentapp.deploy import LocalDeployManager

HERE = Path(__file__).parent

TIMEOUT = 20.0
"""Seconds. What is waited for takes a second when the machine is not busy."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The records of this test alone. What its services are still there at its end is killed."""
    folder = tmp_path / "home"
    monkeypatch.setenv("AGENTAPP_HOME", str(folder))
    monkeypatch.setenv("MARKS", str(tmp_path / "marks"))
    for name in ("HOST", "PORT"):
        monkeypatch.delenv(name, raising=False)
    yield folder
    for process in [*services_in(folder, "trio_agentapp.deploy.supervisor"), *services_in(folder)]:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def services_in(home: Path, program: str = "trio_agentapp.deploy.service") -> list[int]:
    """The processes that serve from these records."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):
            command = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            if program.encode() in command and str(home).encode() in command:
                found.append(int(name))
    return found


@pytest.fixture
def marks(tmp_path: Path) -> Callable[[], list[str]]:
    path = tmp_path / "marks"
    return lambda: path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A copy of `agent.py`, as a user has it: in a folder that is no package of ours."""
    path = tmp_path / "agent.py"
    path.write_text((HERE / "agent.py").read_text())
    return path


def run(*command: str | Path, cwd: Path | None = None, code: int = 0, **environment: str) -> str:
    """A program to its end; what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *map(str, command)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


def told(output: str) -> dict[str, Any]:
    """The last line of a program that prints JSON."""
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    return answer


async def wait_until(condition: Callable[[], object]) -> None:
    """Other processes do not tell when they have done something."""
    with trio.fail_after(TIMEOUT):
        while not condition():
            await trio.sleep(0.01)


class Chat(threading.Thread):
    """A chat that reads to its end, beside a program of either library."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.events: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self._url = url
        self._begun = threading.Event()

    def begin(self) -> Chat:
        self.start()
        assert self._begun.wait(TIMEOUT), self.events
        return self

    def run(self) -> None:
        body = {"input": [{"role": "user", "content": "Count"}], "session_id": "s1", "user_id": "u1"}
        with httpx.stream("POST", f"{self._url}/process", json=body, trust_env=False, timeout=TIMEOUT) as answer:
            self.headers = dict(answer.headers)
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    self.events.append(json.loads(line[6:]))
                    if self.events[-1].get("text") == "2 ":
                        self._begun.set()

    def end(self) -> dict[str, Any]:
        """Its last event."""
        self.join(TIMEOUT)
        return self.events[-1]


@pytest.fixture
def manager() -> LocalDeployManager:
    return LocalDeployManager(port=0)
