"""The command as a shell starts it, in pipes or in a terminal of its own."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

AGENT = Path(__file__).parent / "agent.py"
COMMAND = str(Path(sys.executable).parent / "trio-agentapp")
READY = re.compile(r"ready on (http://127\.0\.0\.1:\d+)")

TIMEOUT = 20.0
"""Seconds. What is waited for takes a second when the machine is not busy."""


def environment(**more: str) -> dict[str, str]:
    """One that begins with nothing of ours set."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("AGENTAPP_")}
    for name in ("HOST", "PORT"):
        known.pop(name, None)
    return {**known, "PYTHONWARNINGS": "error", "TERM": "xterm", **more}


class Shell:
    """Commands of one test: with records and a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self._background: list[subprocess.Popen[str]] = []
        self._terminals: list[Terminal] = []

    def environment(self, **more: str) -> dict[str, str]:
        return environment(AGENTAPP_HOME=str(self.home), **more)

    def call(
        self, *words: str, code: int = 0, stdin: str = "", command: tuple[str, ...] = (COMMAND,), **more: str
    ) -> subprocess.CompletedProcess[str]:
        """A command to its end, with the exit code that it must have."""
        done = subprocess.run(
            [*command, *words],
            capture_output=True,
            text=True,
            timeout=60,
            input=stdin,
            cwd=self.folder,
            env=self.environment(**more),
            check=False,
        )
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def start(self, *words: str, command: tuple[str, ...] = (COMMAND,), **more: str) -> Running:
        running = Running([*command, *words], self.folder, self.environment(**more), len(self._background))
        self._background.append(running.process)
        return running

    def terminal(self, *words: str) -> Terminal:
        terminal = Terminal([COMMAND, *words], self.folder, self.environment())
        self._terminals.append(terminal)
        return terminal

    def close(self) -> None:
        for process in self._background:
            process.kill()
            process.wait()
        for terminal in self._terminals:
            terminal.close()
        for record in self.home.glob("deployments/*.json"):
            text = record.read_text()
            # The supervisor first: it would start the process again.
            for role in ("supervisor", "process"):
                found = re.search(rf'"{role}": \{{\s*"pid": (\d+)', text)
                with suppress(ProcessLookupError):
                    if found:
                        os.kill(int(found[1]), signal.SIGKILL)


class Running:
    """A command in the background; what it writes goes to a file."""

    def __init__(self, command: list[str], folder: Path, env: dict[str, str], number: int) -> None:
        self._path = folder / f"output-{number}"
        with self._path.open("wb") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder, env=env, text=True
            )

    @property
    def output(self) -> str:
        return self._path.read_text()

    def wait_for(self, text: str, count: int = 1) -> None:
        end = time.monotonic() + TIMEOUT
        while self.output.count(text) < count:
            assert time.monotonic() < end, f"no {text!r} in:\n{self.output}"
            time.sleep(0.02)

    def url(self) -> str:
        self.wait_for("ready on http")
        found = READY.search(self.output)
        assert found, self.output
        return found[1]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT)


class Terminal:
    """A command in a pseudo-terminal: what is typed there, and what is seen."""

    CTRL_C, CTRL_D = "\x03", "\x04"

    def __init__(self, command: list[str], folder: Path, env: dict[str, str]) -> None:
        # As a child of a thread-free parent would be; between fork and exec nothing of ours runs.
        parent, child = pty.openpty()
        self._fd = parent
        self.process = subprocess.Popen(
            command,
            stdin=child,
            stdout=child,
            stderr=child,
            cwd=folder,
            env=env,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(child)
        self.seen = ""
        self._looked = 0

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def wait_for(self, pattern: str) -> str:
        """Until the screen shows it, after what was waited for before; what was shown until then."""
        end = time.monotonic() + TIMEOUT
        while (found := re.compile(pattern).search(self.seen, self._looked)) is None:
            left = end - time.monotonic()
            assert left > 0, f"no {pattern!r} in:\n{self.seen[self._looked :]!r}"
            assert self._read(left), f"ended without {pattern!r}:\n{self.seen[self._looked :]!r}"
        shown = self.seen[self._looked : found.end()]
        self._looked = found.end()
        return shown

    def leave_the_prompt(self) -> int:
        """Ctrl-C at the prompt, and again after a second, as a person would who sees nothing happen.

        CPython's readline notices a signal when it interrupts its wait for a key. One that comes between the prompt
        and that wait, where no person's finger is quick enough, is noticed with the next key only.

        The code is as a shell shows it: 130 also if the second one came while the process was leaving.
        """
        end = time.monotonic() + TIMEOUT
        typed = 0
        while self.process.poll() is None and time.monotonic() < end:
            self.type(self.CTRL_C)
            typed += 1
            again = time.monotonic() + 1
            while self._read(max(0.0, again - time.monotonic())):
                pass
        code = self.wait_exit()
        return 128 + signal.SIGINT if typed > 1 and code == -signal.SIGINT else code

    def wait_exit(self) -> int:
        end = time.monotonic() + TIMEOUT
        while self._read(max(0.0, end - time.monotonic())):
            pass
        return self.process.wait(max(0.1, end - time.monotonic()))

    def _read(self, seconds: float) -> bool:
        readable, _, _ = select.select([self._fd], [], [], seconds)
        try:
            data = os.read(self._fd, 65536) if readable else b""
        except OSError:  # how Linux says that nobody holds the other end
            data = b""
        self.seen += re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", data.decode())
        return bool(data)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._fd)


def _take_terminal() -> None:
    """In the new process: this terminal is the one whose Ctrl-C it gets."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    yield shell
    shell.close()


@pytest.fixture(scope="module")
def parrot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the agent, served by `run` for all tests of a module."""
    shell = Shell(tmp_path_factory.mktemp("parrot"))
    running = shell.start("run", str(AGENT), "--port", "0")
    try:
        yield running.url()
        assert running.stop() == 0, running.output
    finally:
        shell.close()


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    """A copy, to be changed."""
    path = tmp_path / "agent.py"
    path.write_text(AGENT.read_text())
    return path


Start = Callable[..., Running]
