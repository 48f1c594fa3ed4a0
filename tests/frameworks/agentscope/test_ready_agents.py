"""Ready agents of agentscope 1.0, `AgentApp(agent=ReActAgent(...))`: the state of each session."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

pytest.importorskip("agentscope.memory", reason="agentscope 1 has an environment of its own: make test-frameworks")

from agentscope.agent import AgentBase, ReActAgent, UserAgent
from agentscope.formatter import OpenAIChatFormatter
from agentscope.memory import InMemoryMemory, LongTermMemoryBase
from agentscope.message import Msg, TextBlock, ToolUseBlock
from agentscope.model import ChatModelBase, ChatResponse
from agentscope.plan import PlanNotebook
from agentscope.tool import Toolkit, ToolResponse
from agentscope.tts import TTSModelBase

from trio_agentapp import AgentApp
from trio_agentapp.errors import ConfigurationError
from trio_agentapp.frameworks import adapter_of

SEEN: list[list[tuple[str, str]]] = []
"""What the model was given, call by call, as a provider gets it."""


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    SEEN.clear()


class Model(ChatModelBase):
    """Says "word word ", or for "endless" more of them; "fail", "call NAMES" and "plan" do as they say."""

    def __init__(self) -> None:
        super().__init__("scripted", True)

    async def __call__(self, prompt: list[dict[str, Any]], **_: Any) -> AsyncIterator[ChatResponse]:
        open_calls: set[str] = set()
        for each in prompt:
            # As a strict provider does.
            if each["role"] == "tool":
                open_calls.remove(each["tool_call_id"])
            else:
                assert not open_calls, prompt
            open_calls.update(call["id"] for call in each.get("tool_calls") or ())
        assert not open_calls, prompt
        texts = [(each["role"], _text_of(each)) for each in prompt[1:]]
        SEEN.append([(role, text) for role, text in texts if not text.startswith("<system-hint>")])
        return self._stream(prompt[-1]["role"], [text for role, text in SEEN[-1] if role == "user"][-1])

    async def _stream(self, role: str, last: str) -> AsyncIterator[ChatResponse]:
        if last.startswith("call ") and role != "tool":
            calls = [_call(f"c{number}", name, {}) for number, name in enumerate(last.split()[1:])]
            yield ChatResponse(content=calls)
            return
        if last == "plan" and role != "tool":
            plan = {"name": "p", "description": "d", "expected_outcome": "o", "subtasks": []}
            yield ChatResponse(content=[_call("c0", "create_plan", plan)])
            return
        if last == "fail at once":
            raise RuntimeError("the provider is down")
        text = ""
        for _ in range(10_000 if last == "endless" else 2):
            text += "word "
            yield ChatResponse(content=[TextBlock(type="text", text=text)])
            await asyncio.sleep(0.01)
            if last == "fail":
                raise RuntimeError("the provider is down")


def _call(id: str, name: str, arguments: dict[str, Any]) -> ToolUseBlock:
    return ToolUseBlock(type="tool_use", id=id, name=name, input=arguments)


def _text_of(given: dict[str, Any]) -> str:
    content = given["content"]
    if isinstance(content, list):
        content = "".join(part.get("text", "") for part in content)
    return content or ""


async def look() -> ToolResponse:
    """Look at a thing."""
    return ToolResponse(content=[TextBlock(type="text", text="saw it")])


async def wait() -> AsyncIterator[ToolResponse]:
    """Wait for ever."""
    yield ToolResponse(content=[TextBlock(type="text", text="begun")], stream=True, is_last=True)
    await asyncio.sleep(3600)


def agent_with(**options: Any) -> ReActAgent:
    toolkit = Toolkit()
    toolkit.register_tool_function(look)
    toolkit.register_tool_function(wait)
    options.setdefault("memory", InMemoryMemory())
    agent = ReActAgent("Friday", "You look.", Model(), OpenAIChatFormatter(), toolkit, **options)
    agent.set_console_output_enabled(enabled=False)
    return agent


@pytest.fixture
def app() -> AgentApp:
    return AgentApp(agent=agent_with())


async def play(app: AgentApp, text: str, *, stop_at: str = "", **ids: str) -> Any:
    ids = {"user_id": "u", "session_id": "s", **ids}
    with trio.fail_after(30):
        async with app.stream_query({"input": text, **ids}) as events:
            async for event in events:
                shown = event.text or str(event.data) if event.object == "content" else ""
                if stop_at and stop_at in shown:
                    stop_at = ""
                    await app.stop_chat(ids["user_id"], ids["session_id"])
    return event


def said_by(role: str) -> list[str]:
    return [text for each, text in SEEN[-1] if each == role]


async def test_the_next_turn_continues_the_conversation() -> None:
    agent = agent_with()
    app = AgentApp(agent=agent)
    async with app.runtime():
        assert (await play(app, "one")).status == "completed"
        await play(app, "two")
    assert SEEN[-1] == [("user", "one"), ("assistant", "word word "), ("user", "two")]
    assert agent.memory.content == []


async def test_users_and_sessions_do_not_share_a_conversation(app: AgentApp) -> None:
    keys = (("u", "s"), ("u/s", "t"), ("u", "s/t"), ("v", "s"))
    async with app.runtime():
        async with trio.open_nursery() as nursery:
            for user, session in keys:
                nursery.start_soon(lambda u=user, s=session: play(app, f"of {u} {s}", user_id=u, session_id=s))
        for user, session in keys:
            await play(app, "again", user_id=user, session_id=session)
            assert SEEN[-1] == [("user", f"of {user} {session}"), ("assistant", "word word "), ("user", "again")]


@pytest.mark.parametrize(("question", "status"), [("endless", "canceled"), ("fail", "failed")])
async def test_the_partial_answer_is_kept(app: AgentApp, question: str, status: str) -> None:
    async with app.runtime():
        assert (await play(app, question, stop_at="word" if status == "canceled" else "")).status == status
        await play(app, "two")
        assert said_by("user") == [question, "two"]
        partial = said_by("assistant")
        assert partial[0].startswith("word ")
        await play(app, "three")
    assert said_by("assistant") == [*partial, "word word "]


async def test_a_model_that_fails_at_once_leaves_no_empty_answer(app: AgentApp) -> None:
    async with app.runtime():
        assert (await play(app, "fail at once")).status == "failed"
        state = await app.state.session_service.load_modules("u", "s")
    assert [msg["role"] for msg, _ in state["agent"]["memory"]["content"]] == ["user"]


@pytest.mark.parametrize("parallel", [True, False])
async def test_a_stop_in_a_tool_leaves_no_open_call(parallel: bool) -> None:
    app = AgentApp(agent=agent_with(parallel_tool_calls=parallel))
    async with app.runtime():
        assert (await play(app, "call wait look", stop_at="begun")).status == "canceled"
        assert (await play(app, "two")).status == "completed"
    assert said_by("user") == ["call wait look", "two"]
    interrupted, other = sorted(said_by("tool"), key=lambda text: "interrupted" not in text)
    assert "interrupted" in interrupted
    assert other == ("saw it" if parallel else "This call was stopped before it had a result.")


async def test_a_broken_tool_leaves_no_open_call(app: AgentApp, monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(*args: Any) -> Any:
        raise RuntimeError("a middleware is broken")

    async with app.runtime():
        with monkeypatch.context() as patch:
            patch.setattr(Toolkit, "call_tool_function", breaks)
            assert (await play(app, "call look wait")).status == "failed"
        assert (await play(app, "two")).status == "completed"
    assert said_by("user") == ["call look wait", "two"]


async def test_plans_belong_to_a_session() -> None:
    agent = agent_with(plan_notebook=PlanNotebook())
    app = AgentApp(agent=agent)
    async with app.runtime():
        assert (await play(app, "plan")).status == "completed"
        states = {}
        for session in ("s", "t"):
            await play(app, "two", session_id=session)
            states[session] = await app.state.session_service.load_modules("u", session)
    assert states["s"]["agent"]["plan_notebook"]["current_plan"]["name"] == "p"
    assert states["t"]["agent"]["plan_notebook"]["current_plan"] is None
    assert agent.plan_notebook.current_plan is None


def test_a_copy_has_methods_and_groups_of_its_own() -> None:
    agent = agent_with(enable_meta_tool=True, plan_notebook=PlanNotebook())
    copies = [adapter_of("agentscope").open_agent(agent, None, user_id=user, session_id="s") for user in "ab"]
    for copy in copies:
        own: Any = copy._agent  # type: ignore[attr-defined]
        own.toolkit.update_tool_groups(["plan_related"], active=True)
        tools = own.toolkit.tools
        assert tools["reset_equipped_tools"].original_func.__self__ is own.toolkit
        assert tools["create_plan"].original_func.__self__ is own.plan_notebook
        assert tools["look"].original_func is look
        assert own.model is agent.model
        assert own._instance_pre_reply_hooks is not agent._instance_pre_reply_hooks
    assert not agent.toolkit.groups["plan_related"].active


async def test_a_changed_prompt_takes_effect(app: AgentApp) -> None:
    async with app.runtime():
        await play(app, "one")
        state = (await app.state.session_service.load_modules("u", "s"))["agent"]
    agent = agent_with()
    agent._sys_prompt = "You look twice."
    copy: Any = adapter_of("agentscope").open_agent(agent, state, user_id="u", session_id="s")
    assert copy._agent.sys_prompt == "You look twice."
    json.dumps(state)


class Elsewhere(InMemoryMemory):
    """A memory that keeps its messages in a database, or in a connection."""

    def __init__(self, *, whole: bool) -> None:
        super().__init__()
        self.whole = whole
        self.connection = (each for each in ())

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() if self.whole else {"_compressed_summary": ""}


class LongTerm(LongTermMemoryBase):
    pass


class Speaker(TTSModelBase):
    supports_streaming_input = True

    def __init__(self) -> None:
        pass

    async def synthesize(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError


class Custom(AgentBase):
    """An agent of one's own, with a memory."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = InMemoryMemory()
        self.set_console_output_enabled(enabled=False)

    async def reply(self, msg: Any) -> Msg:
        await self.memory.add(msg)
        count = await self.memory.size()
        answer = Msg("Custom", f"{count} messages", "assistant")
        await self.print(answer)
        return answer


async def test_an_agent_of_ones_own_with_a_memory() -> None:
    app = AgentApp(agent=Custom())
    async with app.runtime():
        await play(app, "one")
        end = await play(app, "two")
    assert end.output[0].content[0].text == "2 messages"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UserAgent("Ann"), "be a UserAgent"),
        (lambda: agent_with(memory=Elsewhere(whole=False)), r"have a Elsewhere: .*state_dict"),
        (lambda: agent_with(memory=Elsewhere(whole=True)), "have a Elsewhere as its memory: it cannot be copied"),
        (lambda: agent_with(long_term_memory=LongTerm(), long_term_memory_mode="static_control"), "LongTerm"),
        (lambda: agent_with(tts_model=Speaker()), "Speaker"),
        (Model, "must be a function or an agent|be a Model"),
    ],
)
def test_what_cannot_be_copied_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        AgentApp(agent=make())


async def test_fifty_chats_stopped_at_once(app: AgentApp) -> None:
    begun: set[int] = set()
    ends: list[str] = []
    all_talk = trio.Event()

    async def chat(number: int) -> None:
        async with app.stream_query({"input": "endless", "user_id": "u", "session_id": str(number)}) as events:
            async for event in events:
                if event.object == "content":
                    begun.add(number)
                    if len(begun) == 50:
                        all_talk.set()
        ends.append(event.status)

    with trio.fail_after(60):
        async with app.runtime():
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(chat, number)
                await all_talk.wait()
                for number in range(50):
                    nursery.start_soon(app.stop_chat, "u", str(number))
            assert ends == ["canceled"] * 50
            await play(app, "two", session_id="7")
    assert said_by("user") == ["endless", "two"]
