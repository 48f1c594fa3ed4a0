"""OpenAI's client for Node against an agent."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trio

pytest.importorskip("openai", reason="it has an environment of its own: make test-frameworks")

from ...e2e.harness import Server, fresh

HERE = Path(__file__).parent
FOLDER = HERE.parents[2] / ".venv-frameworks" / "openai" / "node"


@pytest.fixture(scope="module")
def node() -> Path:
    """A folder with the script and its package."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed; on Debian: apt install nodejs npm")
    FOLDER.mkdir(parents=True, exist_ok=True)
    pins = (HERE / "package.json").read_text()
    if not (FOLDER / "node_modules").exists() or (FOLDER / "package.json").read_text() != pins:
        (FOLDER / "package.json").write_text(pins)
        subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=FOLDER, check=True, timeout=300
        )
    shutil.copy(HERE / "client.mjs", FOLDER / "client.mjs")
    return FOLDER


async def test_what_the_client_for_node_sees(node: Path, server: Server) -> None:
    session = fresh()
    base = f"http://127.0.0.1:{server.port}/v1"
    command = ["node", "client.mjs", base, session]
    with trio.fail_after(120):
        ended = await trio.run_process(command, cwd=node, capture_stdout=True, capture_stderr=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    found: dict[str, Any] = json.loads(ended.stdout)
    hello = "word0 word1 word2 "
    assert (found["text"], found["usage"], found["retrieved"]) == (hello, 18, hello)
    assert (found["hello"]["text"], found["hello"]["types"][-1]) == (hello, "completed")
    assert found["think"]["output"] == ["reasoning", "message"]
    assert found["own-tools"]["output"] == ["message", "mcp_call", "message"]
    assert found["call f g"]["output"] == ["function_call", "function_call"]
    assert found["stream-call"]["types"].count("function_call_arguments.delta") == 3
    assert found["approve"]["output"] == ["message", "mcp_approval_request"]
    assert (found["gapless"], found["background"], found["cancelled"]) == (True, "completed", "cancelled")
    assert (found["tool"], found["approved"]) == ("The tool said sunny.", "Deleted.")
    assert (found["chat"], found["streamed"], found["chatUsage"]) == (hello, hello, 18)
    assert found["arguments"] == '{"city": "Paris"}'
    assert found["ran"] == "The tool said sunny in Paris."
    assert found["models"] == ["test-friday"]
    assert found["missing"] == ["NotFoundError", 404, "run_not_found"]
    assert found["wrong"] == ["BadRequestError", 400, "n"]
    await server.wait_mark(f"stopped {session}")
