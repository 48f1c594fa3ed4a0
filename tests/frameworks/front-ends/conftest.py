"""The agent for front ends, and the clients from npm in a folder of their own."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio

HERE = Path(__file__).parent
INSTALL_TIMEOUT = 300
SCENARIO_TIMEOUT = 30


def _harness() -> ModuleType:
    path = HERE.parents[1] / "e2e" / "harness.py"
    spec = importlib.util.spec_from_file_location("front_ends_harness", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    server = _harness().Server("front", "run", tmp_path_factory.mktemp("front"), {})
    try:
        server.wait_ready()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def peers() -> Path:
    """A folder with the packages of `package.json`, made again when it changes."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("the clients of AG-UI and the AI SDK need Node and npm")
    wanted = (HERE / "package.json").read_bytes()
    folder = Path(sys.prefix) / f"node-{hashlib.sha256(wanted).hexdigest()[:12]}"
    if not (folder / "installed").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "package.json").write_bytes(wanted)
        command = [npm, "install", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(command, cwd=folder, check=True, timeout=INSTALL_TIMEOUT, stdin=subprocess.DEVNULL)
        (folder / "installed").touch()
    for script in HERE.glob("*.mjs"):
        shutil.copy(script, folder)
    return folder


@pytest.fixture
def play(server: Any, peers: Path) -> Callable[..., Any]:
    """Plays a scenario of a script against the server, and returns what the client has seen."""

    async def play(script: str, path: str, scenario: str) -> Any:
        command = ["node", script, f"http://127.0.0.1:{server.port}{path}", scenario]
        with server.deadline(SCENARIO_TIMEOUT, f"end of {script} {scenario}"):
            done = await trio.run_process(command, cwd=peers, capture_stdout=True, capture_stderr=True, check=False)
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        return json.loads(done.stdout.decode().splitlines()[-1])

    return play
