"""A server of a model that follows a script, agents that ask it, and the rules of strict providers."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from trio_agentapp import AgentApp
from trio_agentapp.agents import Agent, ChatModel
from trio_agentapp.testing import ModelServer, model_server

SESSION = {"user_id": "u1", "session_id": "s1"}


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_agentapp.agents.model.FIRST_DELAY", 0.01)


def check_strict(messages: list[dict[str, Any]]) -> None:
    """Fail if a strict provider would refuse the conversation."""
    open_calls: list[str] = []
    for message in messages:
        role = message["role"]
        assert role in ("system", "user", "assistant", "tool"), message
        if role == "tool":
            assert message["tool_call_id"] in open_calls, "a result without its call"
            assert isinstance(message["content"], str)
            open_calls.remove(message["tool_call_id"])
            continue
        assert not open_calls, "a call without a result"
        if role == "assistant":
            assert message["content"] or message.get("tool_calls"), "an empty answer"
        for call in message.get("tool_calls", ()):
            assert call["type"] == "function"
            assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", call["function"]["name"])
            assert isinstance(json.loads(call["function"]["arguments"]), dict)
            assert call["id"] not in open_calls, "two calls with one id"
            open_calls.append(call["id"])
    assert not open_calls, "a call without a result"
    json.dumps(messages)


class Asked:
    """An app with an agent, and the server of its model."""

    def __init__(self, app: AgentApp, server: ModelServer) -> None:
        self.app = app
        self.server = server

    async def ask(self, text: str, **session: str) -> Any:
        """Return the terminal event."""
        async with self.app.stream_query({"input": text, **SESSION, **session}) as events:
            async for event in events:
                last = event
        return last

    async def ask_and_stop(self, text: str, seen: Callable[[Any], bool]) -> Any:
        """Stop the run when an event was seen. Return the terminal event."""
        async with self.app.stream_query({"input": text, **SESSION}) as events:
            stopped = False
            async for event in events:
                last = event
                if not stopped and seen(event):
                    stopped = True
                    receipt = await self.app.stop_chat("u1", "s1", wait=True)
                    assert receipt.stopped
        return last

    async def saved(self, **session: str) -> list[dict[str, Any]]:
        session = SESSION | session
        states = await self.app.state.session_service.load_modules(session["user_id"], session["session_id"])
        messages: list[dict[str, Any]] = states["agent"]["messages"]
        check_strict(messages)
        return messages


@pytest.fixture
def asked() -> Any:
    @asynccontextmanager
    async def open_app(
        *answers: Any, agent: Callable[[ChatModel], Agent] = Agent, **options: Any
    ) -> AsyncIterator[Asked]:
        async with model_server(*answers) as server:
            chat = ChatModel("scripted", base_url=server.url)
            app = AgentApp(agent=agent(chat), lifespan=chat.lifespan, **options)
            async with app.runtime():
                yield Asked(app, server)
            for request in server.requests:
                check_strict(request["messages"])

    return open_app


@pytest.fixture
def strict() -> Callable[[list[dict[str, Any]]], None]:
    return check_strict
