"""The stores of an app in asyncio handlers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from trio_agentapp import AgentApp
from trio_agentapp.stores import MemoryStateStore


class Counter:
    """Has a state, which belongs to the loop."""

    def __init__(self) -> None:
        self.count = 0

    async def state_dict(self) -> Any:
        await asyncio.sleep(0)
        return {"count": self.count}

    def load_state_dict(self, state: Any) -> None:
        self.count = state["count"]


def app_that_counts() -> AgentApp:
    app = AgentApp()

    @app.query(framework="asyncio")
    async def chat(msgs: Any, request: Any) -> AsyncIterator[str]:
        counter = Counter()
        ids = {"user_id": request.user_id, "session_id": request.session_id}
        await app.state.session.load_session_state(**ids, counter=counter)
        seen = await app.state.state_service.load(**ids) or {"texts": []}
        try:
            yield f"{counter.count} {seen['texts']}"
            if msgs[-1].text == "wait":
                await asyncio.sleep(3600)
        finally:
            counter.count += 1
            await app.state.session.save_session_state(**ids, counter=counter)
            await app.state.state_service.save(**ids, state={"texts": [*seen["texts"], msgs[-1].text]})

    return app


async def say(app: AgentApp, text: str) -> str:
    said = ""
    with trio.fail_after(10):
        async with app.stream_query({"input": text, "user_id": "u", "session_id": "s"}) as events:
            async for event in events:
                if event.object == "content" and event.delta:
                    said += event.text
                    if text == "wait":
                        await app.stop_chat("u", "s")
    return said


async def test_states_are_loaded_and_saved_on_the_loop_also_after_a_stop() -> None:
    app = app_that_counts()
    async with app.runtime():
        assert await say(app, "one") == "0 []"
        assert await say(app, "wait") == "1 ['one']"
        assert await say(app, "three") == "2 ['one', 'wait']"
        assert await app.state.state_service.load("u", "s") == {"texts": ["one", "wait", "three"]}


async def test_objects_may_have_the_methods_of_autogen() -> None:
    class Team:
        def __init__(self, count: int) -> None:
            self.count = count

        async def save_state(self) -> Any:
            return {"count": self.count}

        async def load_state(self, state: Any) -> None:
            self.count = state["count"]

    app, team = AgentApp(), Team(0)
    async with app.runtime():
        await app.state.session.save_session_state("s", "u", team=Team(3))
        await app.state.session.load_session_state("s", "u", team=team)
        assert team.count == 3
        with pytest.raises(TypeError, match=r"no state_dict\(\) and no save_state\(\)"):
            await app.state.session.save_session_state("s", "u", team=object())


async def test_an_error_of_a_store_reaches_the_asyncio_code() -> None:
    app = AgentApp()
    async with app.runtime():

        async def save() -> None:
            await app.state.state_service.save("u", "s", {"x": object()})

        with trio.fail_after(10), pytest.raises(TypeError, match="object"):
            await app.bridge.run(save)


async def test_what_would_end_the_node_ends_the_call_only() -> None:
    """A store of the user's raises it, in the nursery that all runs share."""

    class Leaving(MemoryStateStore):
        async def load(self, user_id: str, session_id: str) -> Any:
            raise SystemExit(f"no state of {user_id}")

    app = app_that_counts()
    app.state.state_service = Leaving()
    with trio.fail_after(10):
        async with app.runtime():
            async with app.stream_query({"input": "one"}) as events:
                *_, end = [event async for event in events]
            assert end.status == "failed"
            assert await app.bridge.run(asyncio.sleep, 0, "alive") == "alive"
