"""The example works as its README says."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import trio

pytest.importorskip("pydantic_ai", reason="it has an environment of its own: make test-frameworks")

APP = Path(__file__).parents[3] / "examples/pydantic_ai/app.py"


async def test_it_looks_asks_and_buys() -> None:
    app = runpy.run_path(str(APP))["app"]

    async def play(*messages: Any) -> Any:
        async with app.stream_query({"input": [*messages], "user_id": "u", "session_id": "s"}) as events:
            *_, end = [event async for event in events]
        assert end.status == "completed"
        return end.output

    with trio.fail_after(30):
        async with app.runtime():
            *_, answer = await play({"role": "user", "content": "How is the moon?"})
            assert "the moon is bright tonight" in answer.content[0].text
            *_, asked = await play({"role": "user", "content": "Buy a telescope!"})
            [approval] = asked.content[0].data["deferred_tool_requests"]["approvals"]
            data = {"call_id": approval["call_id"], "output": True}
            content = [{"type": "data", "data": data}]
            *_, answer = await play({"role": "tool", "type": "plugin_call_output", "content": content})
            assert "a telescope for the moon" in answer.content[0].text
