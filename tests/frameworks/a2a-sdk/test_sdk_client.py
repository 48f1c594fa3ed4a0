"""The Python SDK of A2A, 1.3.0, as the client of an app: A2A 1.0 over both bindings."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.frameworks.a2a_clients import CHECKS, peer

pytest.importorskip("a2a", reason="it has an environment of its own: make test-frameworks")

CLIENT = [sys.executable, str(Path(__file__).parent / "sdk_client.py")]


@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
@pytest.mark.parametrize("name", CHECKS)
async def test_the_sdk_as_client(tmp_path: Path, name: str, binding: str) -> None:
    async with peer(tmp_path, CLIENT, binding) as one:
        await CHECKS[name](one)
