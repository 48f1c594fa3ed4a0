"""The Python SDK of A2A, 0.3.26, as the client of an app: 0.3 over JSON-RPC, by a hybrid card and a pure one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.frameworks.a2a_clients import CHECKS, peer

pytest.importorskip("a2a", reason="it has an environment of its own: make test-frameworks")

CLIENT = [sys.executable, str(Path(__file__).parent / "sdk_client.py")]
NOT_IN_0_3 = {"list"}


@pytest.mark.parametrize("name", [name for name in CHECKS if name not in NOT_IN_0_3])
async def test_the_sdk_as_client(tmp_path: Path, name: str) -> None:
    async with peer(tmp_path, CLIENT, "JSONRPC") as one:
        await CHECKS[name](one)


async def test_a_card_of_0_3_alone(tmp_path: Path) -> None:
    async with peer(tmp_path, CLIENT, "JSONRPC", VERSIONS="0.3") as one:
        await CHECKS["stream"](one)
