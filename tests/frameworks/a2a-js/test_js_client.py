"""The JavaScript SDK of A2A, 1.3, as the client of an app: A2A 1.0 over both bindings, and 0.3."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.frameworks.a2a_clients import CHECKS, peer

HERE = Path(__file__).parent
NODE = HERE.parents[2] / ".venv-frameworks" / "a2a-js" / "node"
NOT_IN_0_3 = {"list"}
WAYS = [(name, binding) for binding in ("JSONRPC", "HTTP+JSON") for name in CHECKS]
WAYS += [(name, "JSONRPC 0.3") for name in CHECKS if name not in NOT_IN_0_3]

pytestmark = [
    pytest.mark.skipif(
        Path(sys.prefix).name != HERE.name, reason="it has an environment of its own: make test-frameworks"
    ),
    pytest.mark.skipif(not (shutil.which("node") and shutil.which("npm")), reason="the client needs node and npm"),
]


@pytest.fixture(scope="module")
def client() -> str:
    """The program beside its packages, which are installed once."""
    package, program = (HERE / name for name in ("package.json", "client.js"))
    if not (NODE / "package.json").exists() or (NODE / "package.json").read_text() != package.read_text():
        NODE.mkdir(parents=True, exist_ok=True)
        shutil.copy(package, NODE / "package.json.new")
        (NODE / "package.json.new").replace(NODE / "package.json")
        installed = subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(NODE)], check=False
        )
        if installed.returncode:
            (NODE / "package.json").unlink()
        assert installed.returncode == 0
    return str(shutil.copy(program, NODE / "client.js"))


@pytest.mark.parametrize(("name", "binding"), WAYS)
async def test_the_sdk_as_client(tmp_path: Path, client: str, name: str, binding: str) -> None:
    env = {"VERSIONS": "0.3"} if binding.endswith(" 0.3") else {}
    async with peer(tmp_path, ["node", client], binding, **env) as one:
        await CHECKS[name](one)
