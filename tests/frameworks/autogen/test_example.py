"""The example with a team of AutoGen."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import trio

pytest.importorskip("autogen_agentchat", reason="it has an environment of its own: make test-frameworks")

EXAMPLE = Path(__file__).parents[3] / "examples/autogen/app.py"


async def test_the_members_take_turns() -> None:
    app = runpy.run_path(str(EXAMPLE))["app"]
    with trio.fail_after(60):
        async with app.stream_query({"input": "A line about the sky, please."}) as events:
            *_, end = [event async for event in events]
    assert [message.metadata["original_name"] for message in end.output] == ["writer", "critic"]
    assert end.output[0].content[0].text.endswith("I have read 1 messages. ")
    assert end.output[1].content[0].text.endswith("I have read 2 messages. ")
