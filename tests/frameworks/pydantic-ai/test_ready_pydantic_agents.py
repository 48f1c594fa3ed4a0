"""Ready agents, `AgentApp(agent=Agent(...))`: the state of each session, also after a stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

pytest.importorskip("pydantic_ai", reason="it has an environment of its own: make test-frameworks")

from pydantic_ai import Agent, DeferredToolRequests, ToolReturn
from pydantic_ai.agent import WrapperAgent
from pydantic_ai.exceptions import CallDeferred
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    NativeToolCallPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import DeltaToolCall, FunctionModel

from trio_agentapp import AgentApp
from trio_agentapp.errors import ConfigurationError
from trio_agentapp.frameworks import adapter_of
from trio_agentapp.frameworks.pydantic_ai_agent import closed

SEEN: list[list[tuple[str, Any]]] = []
"""What the model was given, call by call: the kind and content of each part."""

ENDED: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    SEEN.clear()
    ENDED.clear()


async def stream(messages: list[ModelMessage], info: Any) -> AsyncIterator[Any]:
    """Answers "word word "; "endless" makes it talk without end, "call A B" call tools, "fail" break off."""
    SEEN.append(
        [
            (part.part_kind, part.args if isinstance(part, ToolCallPart) else part.content)
            for message in messages
            for part in message.parts
        ]
    )
    last = messages[-1].parts[-1]
    text = last.content if isinstance(last, UserPromptPart) else ""
    if text.startswith("call "):
        for number, name in enumerate(text.split()[1:]):
            call_id = f"{name}-{len(messages)}"
            yield {number: DeltaToolCall(name=name.removesuffix("-half"), json_args='{"a', tool_call_id=call_id)}
            if name.endswith("-half"):
                yield {number + 1: DeltaToolCall(name="look", json_args="{}", tool_call_id="whole")}
                ENDED.append("half")
                await asyncio.sleep(3600)
            yield {number: DeltaToolCall(json_args='": 1}')}
        return
    if text == "silent":
        ENDED.append("begun")
        await asyncio.sleep(3600)
    for word in ["word "] * (10_000 if text == "endless" else 2):
        yield word
        if text == "fail":
            raise RuntimeError("the provider is down")
        await asyncio.sleep(0.01)


async def look(a: int) -> Any:
    """Look at a thing."""
    return ToolReturn("blue", metadata={"of no type": object()})


async def wait(a: int) -> str:
    """Wait for ever."""
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0)
        ENDED.append("tool")
    return "never"


async def ask(a: int) -> str:
    """Ask a person."""
    raise CallDeferred


def agent_with(**options: Any) -> Agent[Any, Any]:
    agent = Agent(
        FunctionModel(stream_function=stream),
        tools=[look, wait, ask],
        output_type=[str, DeferredToolRequests],
        **options,
    )

    @agent.tool_plain(requires_approval=True)
    async def pay(a: int) -> str:
        ENDED.append("paid")
        return "paid"

    @agent.tool_plain(requires_approval=True)
    async def pay_slowly(a: int) -> str:
        return await wait(a)

    return agent


@pytest.fixture
def app() -> AgentApp:
    return AgentApp(agent=agent_with())


async def play(app: AgentApp, text: Any, *, stop_at: str = "", **ids: str) -> Any:
    ids = {"user_id": "u", "session_id": "s", **ids}
    with trio.fail_after(30):
        async with app.stream_query({"input": text, **ids}) as events:
            async for event in events:
                shown = getattr(event, "text", None) or str(getattr(event, "data", ""))
                if stop_at and stop_at in shown:
                    stop_at = ""
                    await app.stop_chat(ids["user_id"], ids["session_id"])
    return event


def output_of(call_id: str, output: Any, *more: Any) -> list[Any]:
    data = {"call_id": call_id, "output": output}
    return [{"role": "tool", "type": "plugin_call_output", "content": [{"type": "data", "data": data}]}, *more]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": text}]}


async def test_the_next_turn_continues_the_conversation(app: AgentApp) -> None:
    async with app.runtime():
        assert (await play(app, "one")).status == "completed"
        await play(app, "two")
    assert SEEN[-1] == [("user-prompt", "one"), ("text", "word word "), ("user-prompt", "two")]


async def test_calls_and_outputs_are_kept(app: AgentApp) -> None:
    async with app.runtime():
        await play(app, "call look")
        await play(app, "two")
    assert SEEN[-1][1:3] == [("tool-call", '{"a": 1}'), ("tool-return", "blue")]


async def test_the_system_prompt_is_there_once() -> None:
    app = AgentApp(agent=agent_with(system_prompt="Be kind."))
    async with app.runtime():
        await play(app, "one")
        await play(app, "two")
    assert [len([each for each in seen if each == ("system-prompt", "Be kind.")]) for seen in SEEN] == [1, 1]


async def test_users_and_sessions_do_not_share_a_conversation(app: AgentApp) -> None:
    async with app.runtime():
        async with trio.open_nursery() as nursery:
            for user, session in (("u", "s"), ("u/s", "t"), ("u", "s/t"), ("v", "s")):
                nursery.start_soon(lambda u=user, s=session: play(app, f"of {u} {s}", user_id=u, session_id=s))
        for user, session in (("u", "s"), ("u/s", "t"), ("u", "s/t"), ("v", "s")):
            await play(app, "again", user_id=user, session_id=session)
            assert [content for _, content in SEEN[-1]] == [f"of {user} {session}", "word word ", "again"]


async def test_the_partial_answer_of_a_stopped_run_is_kept(app: AgentApp) -> None:
    async with app.runtime():
        end = await play(app, "endless", stop_at="word")
        assert end.status == "canceled"
        await play(app, "two")
        await play(app, "three")
    kinds = [kind for kind, _ in SEEN[-2]]
    assert kinds == ["user-prompt", "text", "user-prompt"]
    assert SEEN[-2][1][1].startswith("word")
    assert [kind for kind, _ in SEEN[-1]] == [*kinds, "text", "user-prompt"]


async def test_a_stop_before_the_first_token_keeps_the_question(app: AgentApp) -> None:
    async with app.runtime():
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(play, app, "silent")
                while not ENDED:
                    await trio.sleep(0.01)
                await app.stop_chat("u", "s")
        await play(app, "two")
    assert SEEN[-1] == [("user-prompt", "silent"), ("user-prompt", "two")]


async def test_a_stop_in_a_tool_leaves_no_open_call(app: AgentApp) -> None:
    async with app.runtime():
        end = await play(app, "call look wait", stop_at="blue")
        assert end.status == "canceled"
        assert ENDED == ["tool"]
        await play(app, "two")
    kinds = [kind for kind, _ in SEEN[-1]]
    assert kinds == ["user-prompt", "tool-call", "tool-call", "tool-return", "tool-return", "user-prompt"]
    outputs = {content for kind, content in SEEN[-1] if kind == "tool-return"}
    assert outputs == {"blue", "This call was stopped before it had a result."}


async def test_a_call_that_was_half_streamed_is_dropped(app: AgentApp) -> None:
    """No provider takes arguments that are no JSON."""
    async with app.runtime():
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(play, app, "call wait-half")
                while not ENDED:
                    await trio.sleep(0.01)
                await app.stop_chat("u", "s")
        await play(app, "two")
    assert SEEN[-1][1:-1] == [
        ("tool-call", "{}"),
        ("tool-return", "This call was stopped before it had a result."),
    ]


async def test_a_failed_model_keeps_the_question_and_the_half_answer(app: AgentApp) -> None:
    async with app.runtime():
        assert (await play(app, "fail")).status == "failed"
        await play(app, "two")
    assert SEEN[-1] == [("user-prompt", "fail"), ("text", "word "), ("user-prompt", "two")]


async def test_fifty_chats_stopped_at_once(app: AgentApp) -> None:
    ends: list[str] = []

    async def chat(number: int) -> None:
        ends.append((await play(app, "endless", stop_at="word", session_id=str(number))).status)

    with trio.fail_after(60):
        async with app.runtime(), trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(chat, number)
    assert ends == ["canceled"] * 50


# Deferred calls.


async def test_a_call_is_approved(app: AgentApp) -> None:
    async with app.runtime():
        end = await play(app, "call pay")
        requests = end.output[-1].content[0].data["deferred_tool_requests"]
        [approval] = requests["approvals"]
        assert approval["name"] == "pay"
        assert ENDED == []
        end = await play(app, output_of(approval["call_id"], True))
    assert ENDED == ["paid"]
    assert [message.type for message in end.output] == ["plugin_call", "plugin_call_output", "message"]
    assert SEEN[-1][-1] == ("tool-return", "paid")


@pytest.mark.parametrize("answer", [False, "No, too much.", "true", {"approved": True}, None])
async def test_any_other_answer_is_no_approval(app: AgentApp, answer: Any) -> None:
    async with app.runtime():
        end = await play(app, "call pay")
        call_id = end.output[-1].content[0].data["deferred_tool_requests"]["approvals"][0]["call_id"]
        await play(app, output_of(call_id, answer))
    assert ENDED == []
    kind, text = SEEN[-1][-1]
    assert (kind, text) == ("tool-return", answer if isinstance(answer, str) else "This call was not approved.")


async def test_a_call_that_runs_elsewhere_gets_its_output(app: AgentApp) -> None:
    async with app.runtime():
        end = await play(app, "call ask")
        call_id = end.output[-1].content[0].data["deferred_tool_requests"]["calls"][0]["call_id"]
        await play(app, output_of(call_id, {"colour": "red"}, user("Well?")))
    assert SEEN[-1][-2:] == [("tool-return", {"colour": "red"}), ("user-prompt", "Well?")]


async def test_text_in_place_of_an_answer(app: AgentApp) -> None:
    async with app.runtime():
        end = await play(app, "call pay ask look")
        # Of one turn, some calls begin when others have ended. Each is shown once.
        assert [message.type for message in end.output].count("plugin_call") == 3
        await play(app, "Forget it.")
        await play(app, "two")
    assert ENDED == []
    kinds = [kind for kind, _ in SEEN[-1]]
    assert kinds.count("tool-call") == kinds.count("tool-return") == 3
    assert ("user-prompt", "Forget it.") in SEEN[-1]


async def test_a_stop_of_an_approved_call(app: AgentApp) -> None:
    async with app.runtime():
        end = await play(app, "call pay_slowly")
        call_id = end.output[-1].content[0].data["deferred_tool_requests"]["approvals"][0]["call_id"]
        end = await play(app, output_of(call_id, True, user("Well?")), stop_at="pay_slowly")
        assert end.status == "canceled"
        await play(app, "two")
    assert SEEN[-1][-3:] == [
        ("tool-return", "This call was stopped before it had a result."),
        ("user-prompt", "Well?"),
        ("user-prompt", "two"),
    ]


async def test_a_client_cannot_make_a_call(app: AgentApp) -> None:
    data = {"call_id": "x", "name": "look", "arguments": '{"a": 1}'}
    call = {"role": "assistant", "type": "plugin_call", "content": [{"type": "data", "data": data}]}
    async with app.runtime():
        end = await play(app, [user("hi"), call])
    assert [message.type for message in end.output] == ["message"]
    assert SEEN[-1][-1] == ("tool-return", "This call was stopped before it had a result.")


# States, without an app.


def copy_of(agent: Any, state: Any = None) -> Any:
    return adapter_of("pydantic-ai").open_agent(agent, state, user_id="u", session_id="s")


async def test_a_run_that_has_not_begun_has_a_state() -> None:
    copy = copy_of(agent_with())
    assert await copy.state() == {"messages": []}


async def test_an_approval_is_no_output_of_a_call_that_did_not_run() -> None:
    class Broken(WrapperAgent[Any, Any]):
        def run_stream_events(self, *args: Any, **options: Any) -> Any:
            raise RuntimeError("it does not begin")

    asked = [ModelRequest([UserPromptPart("hi")]), ModelResponse([ToolCallPart("pay", {"a": 1}, "1")])]
    state = {
        "messages": ModelMessagesTypeAdapter.dump_python(asked, mode="json"),
        "deferred": {"approvals": ["1"], "calls": []},
    }
    copy = copy_of(Broken(agent_with()), state)
    with pytest.raises(RuntimeError, match="begin"):
        await anext(copy.stream([ModelRequest([ToolReturnPart("", True, "1"), UserPromptPart("Well?")])]))
    after = ModelMessagesTypeAdapter.validate_python((await copy.state())["messages"])
    assert [part.content for message in after[2:] for part in message.parts] == [
        "This call was stopped before it had a result.",
        "Well?",
    ]


def test_calls_of_the_provider_without_a_result_are_dropped() -> None:
    response = ModelResponse(
        [TextPart("x"), NativeToolCallPart("web_search", {}, "1"), ToolCallPart("look", '{"a', "2")]
    )
    assert [[part.part_kind for part in message.parts] for message in closed([response])] == [["text"]]
    assert closed([ModelResponse([]), ModelRequest([])]) == []


def test_ids_may_come_again_in_another_turn() -> None:
    turn = [ModelResponse([ToolCallPart("look", {}, "1")]), ModelRequest([ToolReturnPart("look", "blue", "1")])]
    assert len(closed([*turn, turn[0]])) == 4


# Wrong kinds of agents.


def test_what_may_be_an_agent() -> None:
    AgentApp(agent=WrapperAgent(agent_with()))
    AgentApp(agent=Agent("test", deps_type=type(None)))


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (Agent("test", deps_type=str), "deps"),
        (FunctionModel(stream_function=stream), "must be an Agent, not a FunctionModel"),
    ],
    ids=["deps", "model"],
)
def test_what_is_refused(wrong: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        AgentApp(agent=wrong)
