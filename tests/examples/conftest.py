"""Start examples as their READMEs say, and run the documented curl commands."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

ROOT = Path(__file__).parents[2]
READY = re.compile(r"(?:ready|Running) on (http://127\.0\.0\.1:\d+)")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


async def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Poll a condition: files and processes do not notify about changes."""
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.02)


class Stream:
    """A running `curl -N`, and its output so far."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path) -> None:
        self.process = process
        self._path = path

    @property
    def text(self) -> str:
        return self._path.read_text()

    @property
    def events(self) -> list[dict[str, Any]]:
        whole = self.text.rpartition("\n\n")[0]
        return [json.loads(line[6:]) for line in whole.splitlines() if line.startswith("data: ")]

    @property
    def words(self) -> str:
        """The text of all deltas so far."""
        return "".join(event["text"] for event in self.events if event.get("delta") and event["type"] == "text")

    def messages(self, kind: str) -> list[dict[str, Any]]:
        """The finished messages of a type, in order."""
        return [
            e for e in self.events if e["object"] == "message" and e["type"] == kind and e["content"] is not None
        ]

    async def wait_for(self, text: str, seconds: float = 10) -> None:
        await wait_until(lambda: text in self.text, seconds)

    async def wait_end(self, seconds: float = 20) -> dict[str, Any]:
        """The terminal event."""
        await wait_until(lambda: self.process.poll() is not None, seconds)
        assert self.process.returncode == 0, self.text
        return self.events[-1]


class Example:
    """A started example."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        self.url = ""
        self._folder = folder
        self._streams: list[subprocess.Popen[bytes]] = []

    @property
    def out(self) -> str:
        return (self._folder / "stdout").read_text()

    @property
    def err(self) -> str:
        return (self._folder / "stderr").read_text()

    async def wait_ready(self, seconds: float = 20) -> None:
        await wait_until(lambda: bool(READY.search(self.err)) or self.process.poll() is not None, seconds)
        found = READY.search(self.err)
        assert found is not None, self.err
        self.url = found[1]

    async def wait_printed(self, text: str, seconds: float = 10) -> None:
        await wait_until(lambda: text in self.out, seconds)

    def _address(self, command: str) -> str:
        """Return the documented command with the port of this process."""
        documented = re.compile(r"http://127\.0\.0\.1:809\d")
        assert documented.search(command)
        return documented.sub(self.url, command)

    def stream(self, command: str) -> Stream:
        """Start a documented `curl -N` line."""
        path = self._folder / f"stream-{len(self._streams)}"
        with path.open("wb") as file:
            process = subprocess.Popen(
                ["bash", "-c", "exec " + self._address(command)], stdout=file, stderr=subprocess.DEVNULL
            )
        self._streams.append(process)
        return Stream(process, path)

    async def call(self, command: str) -> dict[str, Any]:
        """Run a documented curl line, and return its JSON."""
        done = await trio.run_process(
            ["bash", "-c", self._address(command)], capture_stdout=True, capture_stderr=True
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    async def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        await wait_until(lambda: self.process.poll() is not None, 15)
        return self.process.wait()

    def kill(self) -> None:
        for process in (self.process, *self._streams):
            process.kill()
            process.wait()


Start = Callable[..., Example]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a documented command line with this Python and a free port."""
    started: list[Example] = []

    def start_one(command: str, **environment: str) -> Example:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        words = command.split()
        assert words[0] in ("python", ".venv/bin/python")
        env = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTAPP_", "OPENAI_"))}
        env |= {"PORT": "0", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **environment}
        with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
            process = subprocess.Popen([sys.executable, *words[1:]], cwd=ROOT, env=env, stdout=out, stderr=err)
        started.append(Example(process, folder))
        return started[-1]

    yield start_one
    for example in started:
        example.kill()


class Document:
    """The fenced blocks of a page."""

    def __init__(self, path: Path) -> None:
        self.blocks = FENCE.findall(path.read_text())

    def commands(self, containing: str) -> list[str]:
        """Return the shell blocks that contain a text, in order."""
        return [code.strip() for kind, code in self.blocks if kind == "bash" and containing in code]

    def code(self, kind: str) -> list[str]:
        return [code for found, code in self.blocks if found == kind]


@pytest.fixture
def document() -> Callable[[str], Document]:
    return lambda name: Document(ROOT / name)
