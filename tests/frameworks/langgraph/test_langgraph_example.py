"""The example works as its README says."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import trio

pytest.importorskip("langgraph", reason="it has an environment of its own: make test-frameworks")

APP = Path(__file__).parents[3] / "examples/langgraph/app.py"


async def test_it_asks_before_it_sends_and_remembers_a_stopped_answer() -> None:
    app = runpy.run_path(str(APP))["app"]

    async def play(text: str, *, stop: bool = False) -> Any:
        async with app.stream_query({"input": text, "user_id": "u", "session_id": "s"}) as events:
            async for event in events:
                if stop and event.object == "content" and event.delta:
                    stop = False
                    await app.stop_chat("u", "s")
        return event

    with trio.fail_after(30):
        async with app.runtime():
            end = await play("Write a letter to Ada.")
            assert end.output[-1].content[0].data["interrupt"] == "May I send the letter to Ada?"
            end = await play("yes", stop=True)
            assert end.status == "canceled"
            end = await play("And now?")
            assert end.output[-1].content[0].text.startswith("This was question 2 ")
