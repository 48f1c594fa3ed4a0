"""Checks a build context without a container: installs it into a fresh environment, and serves the app from it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import trio

from ..errors import DeployError
from .installer import run_installer
from .packaging import CODE, BuildContext

__all__ = ["check_context"]

INSTALL_TIMEOUT = 600.0
START_TIMEOUT = 60.0
STOP_TIMEOUT = 15.0
"""Seconds. The app that is checked has no runs, so it has nothing to drain."""

INHERITED = ("PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
MISSING = re.compile(r"No (?:such file or directory: '([^']+)'|module named '([^']+)')")


async def check_context(
    context: BuildContext,
    *,
    environment: Mapping[str, str] | None = None,
    index_url: str | None = None,
    report: Callable[[str], object] = lambda _: None,
) -> None:
    """Install the context into a new virtual environment in an empty folder, and wait until the app answers there.

    The app gets `environment` and nothing of this process's but its PATH and language. It has to answer
    `/liveness`. Servers that it needs for its start, such as Redis, must be there. Files that it opens later
    are not checked. `report` is called with the name of each step.

    Raises:
        DeployError: a package cannot be installed, or the app does not start; with the file or module that is
            missing.
    """
    with tempfile.TemporaryDirectory(prefix="agentapp-check-") as name:
        folder = Path(name)
        context.write(folder / "context")
        python = folder / "venv" / "bin" / "python"
        report("Making a virtual environment")
        await _run([sys.executable, "-m", "venv", str(folder / "venv")], folder)
        report(f"Installing {len(context.requirements.lines)} packages")
        index = [] if index_url is None else ["--index-url", index_url]
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *index]
        wheel = next(str(folder / "context" / each) for each in context.files if each.endswith(".whl"))
        if context.requirements.lines:
            await _run([*pip, "-r", "context/requirements.txt"], folder)
        await _run([*pip, "--no-deps", wheel], folder)
        await _run([str(python), "-m", "pip", "check", "--disable-pip-version-check"], folder)
        report("Starting the app")
        await _serve(context, folder, {**(environment or {})})


async def _run(command: Sequence[str], folder: Path) -> None:
    late = f"{' '.join(command[1:4])} did not end in {INSTALL_TIMEOUT:g} s"
    fault = "the context cannot be installed"
    await run_installer(command, timeout=INSTALL_TIMEOUT, late=late, fault=fault, folder=folder)


async def _serve(context: BuildContext, folder: Path, environment: dict[str, str]) -> None:
    from .readiness import wait_ready

    home = folder / "home"
    home.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    complete = {name: os.environ[name] for name in INHERITED if name in os.environ}
    complete |= {"HOME": str(home), **environment, "HOST": "127.0.0.1", "PORT": str(port)}
    log = folder / "log"
    command = [str(folder / "venv" / "bin" / "trio-agentapp"), "run", context.entry]
    with log.open("wb") as output:
        process = await trio.lowlevel.open_process(
            command,
            cwd=folder / "context" / CODE,
            env=complete,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        reason = await wait_ready(f"http://127.0.0.1:{port}", START_TIMEOUT, process.wait, path="/liveness")
    finally:
        with trio.CancelScope(shield=True):
            code = process.returncode
            await _end(process)
    if code is not None or reason is not None:
        text = log.read_text(errors="replace").replace(f"{folder / 'context' / CODE}{os.sep}", "")
        raise DeployError(_failure(context, text, reason, code))


async def _end(process: trio.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    with trio.move_on_after(STOP_TIMEOUT):
        await process.wait()
        return
    process.kill()
    await process.wait()


def _failure(context: BuildContext, log: str, reason: str | None, code: int | None) -> str:
    lines = [line for line in log.splitlines() if line.strip()]
    state = f"it ended with code {code}" if code is not None else f"{reason} after {START_TIMEOUT:g} s"
    message = f"the app does not start from its context: {state}. Its log ends with:\n  " + "\n  ".join(lines[-5:])
    found = MISSING.search(log)
    if found is None:
        return message
    name = Path(found[1]).name if found[1] else found[2].partition(".")[0]
    left = [path for path in context.left_out if name in (Path(path).name, Path(path).stem)]
    if left:
        rule = context.left_out[left[0]]
        return f"{message}\n{left[0]} was left out by the rules of {rule}; take it in again with !{left[0]} there"
    if found[1]:
        return (
            f"{message}\n{found[1]} is not in the context; put it beside the app, and open it relative to its file"
        )
    return f"{message}\n{name} is not in the context; copy the module there, or name its package as a requirement"
