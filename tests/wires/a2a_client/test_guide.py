"""The functions of the guide are called, with an agent of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.frameworks import a2a_cuts as cuts
from tests.wires.a2a_client.test_own_agents import AGENT
from trio_agentapp.wires.a2a_client import client, stream

from ...docs.test_client_pages import functions_of

GUIDE = Path(__file__).parents[3] / "docs/how-to/call-other-agents.md"


async def test_the_guide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port = cuts.free_port()
    async with cuts.agent(tmp_path, [str(AGENT)], port, FOLDER=str(tmp_path), PORT=str(port)) as agent:
        page: dict[str, Any] = functions_of(GUIDE)
        page["report"].__globals__["RESEARCHER"] = agent.url
        app = page["app"]
        async with app.runtime(), app.stream_query("say a b") as events:
            end = [event async for event in events][-1]
        assert [(message.type, message.content[0].text) for message in end.output] == [("message", "a b ")]
        await page["ask"](agent.url)


def test_the_limits_of_the_guide() -> None:
    page = GUIDE.read_text()
    given = client.A2AClient("http://127.0.0.1:9")
    mebibytes = {name: getattr(given._bounds, name) // 2**20 for name in ("max_body", "max_stream")}
    assert f"| {mebibytes['max_body']} MiB | `max_body` |" in page
    assert f"| {mebibytes['max_stream']} MiB | `max_stream` |" in page
    assert f"| {given._timeout:.0f} s | `timeout` |" in page
    assert f"| {given._bounds.connect_timeout:.0f} s | `connect_timeout` |" in page
    assert f"| {given._bounds.silence:.0f} s | `silence` |" in page
    assert f"one after the other | {stream.ATTEMPTS} |" in page
