"""Ready agents and teams, `AgentApp(agent=...)`: the state of each session, also after a stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import trio

pytest.importorskip("autogen_agentchat", reason="it has an environment of its own: make test-frameworks")

from autogen_agentchat.agents import AssistantAgent, BaseChatAgent
from autogen_agentchat.base import Response
from autogen_agentchat.messages import BaseChatMessage, TextMessage
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_agentchat.tools import AgentTool
from autogen_core import FunctionCall, SingleThreadedAgentRuntime
from autogen_core.model_context import BufferedChatCompletionContext
from autogen_core.models import (
    AssistantMessage,
    ChatCompletionClient,
    CreateResult,
    FunctionExecutionResultMessage,
    ModelInfo,
    RequestUsage,
)
from pydantic import BaseModel

from trio_agentapp import AgentApp
from trio_agentapp.errors import ConfigurationError

SEEN: list[list[tuple[str, str]]] = []
"""What the model was given, call by call."""

BEGUN: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    SEEN.clear()
    BEGUN.clear()


class Model(ChatCompletionClient):
    """Says two words; "endless" makes it talk without end, "call NAME" call a tool."""

    component_config_schema = BaseModel
    model_info = ModelInfo(
        vision=True, function_calling=True, json_output=True, family="unknown", structured_output=True
    )
    capabilities: Any = model_info
    fails = False

    def __init__(self) -> None:
        self.lock = asyncio.Lock  # what is shared need not be copied
        self.words: Any = (word for word in ())

    async def create_stream(self, messages: Any, **options: Any) -> AsyncIterator[str | CreateResult]:
        SEEN.append([(type(each).__name__, _text_of(each)) for each in messages])
        last = _text_of(messages[-1])
        if last.startswith("call ") and not isinstance(messages[-1], FunctionExecutionResultMessage):
            yield "calling"
            yield self.result([FunctionCall("c1", '{"task": "one"}', last[5:])])
            return
        for number in range(10_000 if last == "endless" else 2):
            if number and self.fails:
                raise RuntimeError("the provider is down")
            yield "word "
            await asyncio.sleep(0.01)
        yield self.result("word word ")

    def result(self, content: Any) -> CreateResult:
        usage = RequestUsage(prompt_tokens=1, completion_tokens=1)
        return CreateResult(finish_reason="stop", content=content, usage=usage, cached=False)

    async def create(self, *args: Any, **options: Any) -> CreateResult:
        return [item async for item in self.create_stream(*args, **options)][-1]  # type: ignore[return-value]

    async def close(self) -> None:
        pass

    def actual_usage(self) -> RequestUsage:
        return RequestUsage(0, 0)

    total_usage = actual_usage

    def count_tokens(self, messages: Any, **options: Any) -> int:
        return 0

    remaining_tokens = count_tokens


def _text_of(message: Any) -> str:
    if isinstance(message.content, str):
        return message.content
    return "; ".join(getattr(part, "content", None) or getattr(part, "name", "") for part in message.content)


async def wait(task: str) -> str:
    """Wait for ever."""
    BEGUN.append("tool")
    await asyncio.sleep(3600)
    return task


def assistant(name: str = "friday", **options: Any) -> AssistantAgent:
    options = {"tools": [wait], "model_client_stream": True, "system_message": None, **options}
    return AssistantAgent(name, Model(), **options)


def pair(**options: Any) -> RoundRobinGroupChat:
    return RoundRobinGroupChat([assistant("ann"), assistant("bob")], **{"max_turns": 1, **options})


async def play(app: AgentApp, text: str, *, stop_at: str = "", begun: str = "", **ids: str) -> Any:
    """Chat; stop it at a content with the text `stop_at`, when `begun` has."""
    ids = {"user_id": "u", "session_id": "s", **ids}
    with trio.fail_after(30):
        async with app.stream_query({"input": text, **ids}) as events:
            async for event in events:
                shown = getattr(event, "text", None) or str(getattr(event, "data", ""))
                if stop_at and event.object == "content" and stop_at in shown:
                    stop_at = ""
                    while begun and begun not in BEGUN:
                        await trio.sleep(0.001)
                    await app.stop_chat(ids["user_id"], ids["session_id"])
    return event


ANSWERED = [("UserMessage", "one"), ("AssistantMessage", "word word "), ("UserMessage", "two")]


@pytest.mark.parametrize("context", [None, BufferedChatCompletionContext(20)], ids=str)
async def test_the_next_turn_continues_the_conversation(context: Any) -> None:
    app = AgentApp(agent=assistant(model_context=context))
    async with app.runtime():
        assert (await play(app, "one")).status == "completed"
        await play(app, "two")
    assert SEEN[-1] == ANSWERED


async def test_users_and_sessions_do_not_share_a_conversation() -> None:
    app = AgentApp(agent=assistant())
    async with app.runtime():
        async with trio.open_nursery() as nursery:
            for user, session in (("u", "s"), ("u/s", "t"), ("u", "s/t"), ("v", "s")):
                nursery.start_soon(lambda u=user, s=session: play(app, f"of {u} {s}", user_id=u, session_id=s))
        for user, session in (("u", "s"), ("u/s", "t"), ("u", "s/t"), ("v", "s")):
            await play(app, "again", user_id=user, session_id=session)
            assert [text for _, text in SEEN[-1]] == [f"of {user} {session}", "word word ", "again"]


async def test_the_partial_answer_of_a_stopped_run_is_kept() -> None:
    app = AgentApp(agent=assistant())
    async with app.runtime():
        assert (await play(app, "endless", stop_at="word")).status == "canceled"
        await play(app, "two")
        await play(app, "three")
    first, partial, *_ = SEEN[-2]
    assert (first, partial[0], partial[1][:5]) == (
        ("UserMessage", "endless"),
        "AssistantMessage",
        "word ",
    )
    kinds = ["UserMessage", "AssistantMessage", "UserMessage", "AssistantMessage", "UserMessage"]
    assert [kind for kind, _ in SEEN[-1]] == kinds


async def test_a_stop_in_a_tool_leaves_no_open_call() -> None:
    app = AgentApp(agent=assistant())
    async with app.runtime():
        assert (await play(app, "call wait", stop_at="'wait'", begun="tool")).status == "canceled"
        await play(app, "two")
    assert SEEN[-1] == [
        ("UserMessage", "call wait"),
        ("AssistantMessage", "wait"),
        ("FunctionExecutionResultMessage", "This call was stopped before it had a result."),
        ("UserMessage", "two"),
    ]


async def test_a_failed_model_keeps_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    app = AgentApp(agent=assistant())
    async with app.runtime():
        monkeypatch.setattr(Model, "fails", True)
        assert (await play(app, "one")).status == "failed"
        monkeypatch.setattr(Model, "fails", False)
        await play(app, "two")
    assert [text for _, text in SEEN[-1]] == ["one", "word ", "two"]


# Teams.


async def test_a_team_continues() -> None:
    app = AgentApp(agent=pair())
    async with app.runtime():
        assert (await play(app, "one")).output[0].metadata["original_name"] == "ann"
        end = await play(app, "two")
    # Its second member goes on, and has read what the first has said.
    assert end.output[0].metadata["original_name"] == "bob"
    assert SEEN[-1] == [("UserMessage", "one"), ("UserMessage", "word word "), ("UserMessage", "two")]


@pytest.mark.parametrize("how", ["stopped", "stopped in a tool", "failed"])
async def test_what_a_team_knows_after_a_turn_that_did_not_end(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = AgentApp(agent=pair())
    async with app.runtime():
        if how == "stopped":
            assert (await play(app, "endless", stop_at="word")).status == "canceled"
        elif how == "stopped in a tool":
            assert (await play(app, "call wait", stop_at="'wait'", begun="tool")).status == "canceled"
        else:
            monkeypatch.setattr(Model, "fails", True)
            assert (await play(app, "one")).status == "failed"
            monkeypatch.setattr(Model, "fails", False)
        await play(app, "two")
        of_bob = SEEN[-1]
        await play(app, "three")
        of_ann = SEEN[-1]
    asked = {"stopped": "endless", "stopped in a tool": "call wait", "failed": "one"}[how]
    mine = [asked] + (["word "] if how != "stopped in a tool" else ["wait", "This call was stopped"])
    heard = mine[:2] if how != "stopped in a tool" else mine[:1]
    assert [text[: len(said)] for (_, text), said in zip(of_bob, [*heard, "two"], strict=True)] == [*heard, "two"]
    expected = [*mine, "two", "word word ", "three"]
    assert [text[: len(said)] for (_, text), said in zip(of_ann, expected, strict=True)] == expected


async def test_a_team_within_a_team_is_stopped_and_continues() -> None:
    app = AgentApp(agent=RoundRobinGroupChat([pair(), assistant("carl")], max_turns=1))
    async with app.runtime():
        assert (await play(app, "endless", stop_at="word")).status == "canceled"
        await play(app, "two")
        of_carl = SEEN[-1]
        await play(app, "three")
    assert [text[:5] for _, text in of_carl] == ["endle", "word ", "two"]
    # Bob of the inner team.
    assert [text[:5] for _, text in SEEN[-1]] == ["endle", "word ", "two", "word ", "three"]


async def test_users_do_not_share_a_team() -> None:
    app = AgentApp(agent=pair())
    async with app.runtime():
        async with trio.open_nursery() as nursery:
            for user in ("u", "v"):
                nursery.start_soon(lambda user=user: play(app, f"of {user}", user_id=user))
        for user in ("u", "v"):
            await play(app, "again", user_id=user)
            assert [text for _, text in SEEN[-1]] == [f"of {user}", "word word ", "again"]


# Copies.


async def test_an_agent_within_a_tool_is_copied() -> None:
    inner = assistant("inner")
    app = AgentApp(agent=assistant(tools=[AgentTool(inner)]))
    async with app.runtime(), trio.open_nursery() as nursery:
        for user in ("u", "v", "w"):
            nursery.start_soon(lambda user=user: play(app, "call inner", user_id=user))
    assert [seen for seen in SEEN if seen == [("UserMessage", "one")]] == [[("UserMessage", "one")]] * 3
    assert (await inner.save_state())["llm_context"]["messages"] == []


class Counter(BaseChatAgent):
    """An agent of one's own."""

    def __init__(self, held: Any = None) -> None:
        super().__init__("counter", "It counts.")
        self.texts: list[str] = []
        self.held = held

    produced_message_types = (TextMessage,)

    async def on_messages(self, messages: Sequence[BaseChatMessage], cancellation_token: Any) -> Response:
        self.texts += [message.to_model_text() for message in messages]
        return Response(chat_message=TextMessage(content=str(len(self.texts)), source=self.name))

    async def on_reset(self, cancellation_token: Any) -> None:
        self.texts.clear()

    async def save_state(self) -> Any:
        return {"texts": self.texts}

    async def load_state(self, state: Any) -> None:
        self.texts = [*state["texts"]]


async def test_an_agent_of_ones_own() -> None:
    app = AgentApp(agent=Counter())
    async with app.runtime():
        ends = [await play(app, "one", user_id=user) for user in ("u", "u", "v")]
    assert [end.output[0].content[0].text for end in ends] == ["1", "2", "1"]


def has_run() -> Any:
    team = pair()
    team._initialized = True
    return team


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda: Counter(word for word in ()), r"copy for each run cannot be made .*in a handler"),
        (lambda: pair(runtime=SingleThreadedAgentRuntime()), "without runtime="),
        (has_run, "has not run yet"),
        (lambda: AssistantMessage(content="", source=""), "must be a function or an agent"),
        (lambda: TextMessage(content="", source=""), "must be an agent or a team"),
    ],
)
def test_what_cannot_be_copied_is_refused(wrong: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        AgentApp(agent=wrong())
