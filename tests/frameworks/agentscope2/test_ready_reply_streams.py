"""Ready agents of agentscope 2, `AgentApp(agent=Agent(...))`: the state of each session, also after a stop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
import trio

pytest.importorskip("agentscope.event", reason="agentscope 2 has an environment of its own: make test-frameworks")

from agentscope.agent import Agent, ContextConfig
from agentscope.credential import CredentialBase
from agentscope.formatter import OpenAIChatFormatter
from agentscope.message import Msg, TextBlock, ToolCallBlock
from agentscope.model import ChatModelBase, ChatResponse
from agentscope.permission import PermissionBehavior, PermissionDecision
from agentscope.tool import FunctionTool, ToolBase, ToolChunk, Toolkit

from trio_agentapp import AgentApp
from trio_agentapp.errors import ConfigurationError
from trio_agentapp.frameworks import adapter_of
from trio_agentapp.protocol.message import Message

SEEN: list[list[tuple[str, str]]] = []
"""What the model was given, call by call, as a provider gets it."""


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    SEEN.clear()


class Model(ChatModelBase):
    """Says "word word ", or for "endless" more of them; "fail", "call NAME" and "cut NAME" do as they say."""

    def __init__(self) -> None:
        super().__init__(CredentialBase(), "scripted", self.Parameters())
        self.formatter = OpenAIChatFormatter()

    async def _call_api(self, model_name: str, messages: list[Msg], **_: Any) -> AsyncIterator[ChatResponse]:
        given = await self.formatter.format([msg.model_copy(deep=True) for msg in messages])
        open_calls: set[str] = set()
        for each in given:
            # As a strict provider does.
            if each["role"] == "tool":
                open_calls.remove(each["tool_call_id"])
            else:
                assert not open_calls, given
            for call in each.get("tool_calls", ()):
                json.loads(call["function"]["arguments"])
                open_calls.add(call["id"])
        assert not open_calls, given
        texts = [(each["role"], _text_of(each)) for each in given[1:]]
        SEEN.append([(role, text) for role, text in texts if "<system-reminder>\nThe" not in text])
        return self._stream(
            given[-1]["role"], next(text for role, text in reversed(texts) if role == "user" and "<" not in text)
        )

    async def _stream(self, role: str, last: str) -> AsyncIterator[ChatResponse]:
        if last.startswith(("call ", "cut ")) and role != "tool":
            name = last.split()[1]
            yield ChatResponse([ToolCallBlock(id="c1", name=name, input='{"a"')], is_last=False)
            if last.startswith("cut"):
                yield ChatResponse([TextBlock(text="cut", id="t")], is_last=False)
                await asyncio.sleep(3600)
            yield ChatResponse([ToolCallBlock(id="c1", name=name, input=": 1}")], is_last=False)
            return
        for word in ["word "] * (10_000 if last == "endless" else 2):
            yield ChatResponse([TextBlock(text=word, id="t")], is_last=False)
            await asyncio.sleep(0.01)
            if last == "fail":
                raise RuntimeError("the provider is down")


def _text_of(given: dict[str, Any]) -> str:
    content = given["content"]
    if isinstance(content, list):
        content = "".join(part.get("text", "") for part in content)
    return content or ""


async def look(a: int) -> ToolChunk:
    """Look at a thing."""
    return ToolChunk(content=[TextBlock(text=f"saw {a}")])


async def wait(a: int) -> AsyncIterator[ToolChunk]:
    """Wait for ever."""
    yield ToolChunk(content=[], is_last=False, metadata={"mcp_progress": {"progress": 0.5}})
    await asyncio.sleep(3600)


class Outside(ToolBase):
    """A tool of the client."""

    name = "outside"
    description = "Look from there."
    input_schema: ClassVar[Any] = {"type": "object", "properties": {"a": {"type": "integer"}}}
    is_concurrency_safe = True
    is_read_only = True
    is_external_tool = True
    is_state_injected = False
    is_mcp = False

    async def check_permissions(self, *args: Any, **options: Any) -> PermissionDecision:
        return ALLOWED


ALLOWED = PermissionDecision(behavior=PermissionBehavior.ALLOW, message="")


def agent_with(**options: Any) -> Agent:
    tools = [
        FunctionTool(look, permission=ALLOWED),
        FunctionTool(wait, permission=ALLOWED),
        FunctionTool(look, name="ask"),
        Outside(),
    ]
    return Agent("Friday", "You look.", Model(), Toolkit(tools), **options)


@pytest.fixture
def agent() -> Agent:
    return agent_with()


@pytest.fixture
def app(agent: Agent) -> AgentApp:
    return AgentApp(agent=agent)


async def play(app: AgentApp, given: Any, *, stop_at: str = "", **ids: str) -> Any:
    ids = {"user_id": "u", "session_id": "s", **ids}
    with trio.fail_after(30):
        async with app.stream_query({"input": given, **ids}) as events:
            async for event in events:
                shown = event.text or str(event.data) if event.object == "content" else ""
                if stop_at and stop_at in shown:
                    stop_at = ""
                    await app.stop_chat(ids["user_id"], ids["session_id"])
    return event


async def test_the_next_turn_continues_the_conversation(app: AgentApp, agent: Agent) -> None:
    async with app.runtime():
        assert (await play(app, "one")).status == "completed"
        await play(app, "two")
    assert [each for each in SEEN[-1] if "<" not in each[1]] == [
        ("user", "one"),
        ("assistant", "word word "),
        ("user", "two"),
    ]
    assert agent.state.context == []


async def test_users_and_sessions_do_not_share_a_conversation(app: AgentApp) -> None:
    keys = (("u", "s"), ("u/s", "t"), ("u", "s/t"), ("v", "s"))
    async with app.runtime():
        async with trio.open_nursery() as nursery:
            for user, session in keys:
                nursery.start_soon(lambda u=user, s=session: play(app, f"of {u} {s}", user_id=u, session_id=s))
        for user, session in keys:
            await play(app, "again", user_id=user, session_id=session)
            assert said_by("user") == [f"of {user} {session}", "again"]


def said_by(role: str) -> list[str]:
    return [text for each, text in SEEN[-1] if each == role and "<system-reminder>" not in text]


@pytest.mark.parametrize(("question", "status"), [("endless", "canceled"), ("fail", "failed")])
async def test_the_partial_answer_is_kept(app: AgentApp, question: str, status: str) -> None:
    async with app.runtime():
        assert (await play(app, question, stop_at="word" if status == "canceled" else "")).status == status
        await play(app, "two")
        assert said_by("user") == [question, "two"]
        [partial] = said_by("assistant")
        assert partial.startswith("word ")
        await play(app, "three")
    assert said_by("assistant") == [partial, "word word "]


@pytest.mark.parametrize(("question", "at"), [("call wait", "mcp_progress"), ("cut look", "cut")])
async def test_a_stop_in_a_tool_leaves_no_open_call(app: AgentApp, question: str, at: str) -> None:
    async with app.runtime():
        assert (await play(app, question, stop_at=at)).status == "canceled"
        assert (await play(app, "two")).status == "completed"
    assert "interrupted" in dict(SEEN[-1])["tool"]
    assert said_by("user") == [question, "two"]


async def test_a_tool_that_breaks_leaves_no_open_call(app: AgentApp, monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(*args: Any) -> AsyncIterator[Any]:
        raise RuntimeError("a middleware is broken")
        yield

    async with app.runtime():
        with monkeypatch.context() as patch:
            patch.setattr(Toolkit, "call_tool", breaks)
            assert (await play(app, "call look")).status == "failed"
        assert (await play(app, "two")).status == "completed"
    assert dict(SEEN[-1])["tool"] == "This call was stopped before it had a result."


@pytest.mark.parametrize(("yes", "output"), [(True, "saw 1"), (False, "denied")])
async def test_a_tool_call_is_confirmed(app: AgentApp, yes: bool, output: str) -> None:
    async with app.runtime():
        end = await play(app, "call ask")
        assert end.output[-1].content[0].data["event"] == "REQUIRE_USER_CONFIRM"
        answer = {"type": "data", "data": {"confirmed": {"c1": yes}}}
        assert (await play(app, [{"role": "user", "content": [answer]}])).status == "completed"
    assert output in dict(SEEN[-1])["tool"]
    assert said_by("user") == ["call ask"]


async def test_the_client_executes_a_tool_call(app: AgentApp) -> None:
    async with app.runtime():
        end = await play(app, "call outside")
        assert end.output[-1].content[0].data["event"] == "REQUIRE_EXTERNAL_EXECUTION"
        result = {"call_id": "c1", "name": "outside", "output": "from there"}
        message = {"role": "tool", "type": "plugin_call_output", "content": [{"type": "data", "data": result}]}
        assert (await play(app, [message])).status == "completed"
    assert dict(SEEN[-1])["tool"] == "from there"


@pytest.mark.parametrize("tool", ["ask", "outside"])
async def test_any_other_message_interrupts_a_call_that_waits(app: AgentApp, tool: str) -> None:
    async with app.runtime():
        await play(app, f"call {tool}")
        assert (await play(app, "two")).status == "completed"
    assert "interrupted" in dict(SEEN[-1])["tool"]
    assert said_by("user") == [f"call {tool}", "two"]


async def test_an_earlier_conversation_goes_into_the_state(app: AgentApp) -> None:
    call = {"call_id": "c0", "name": "look", "arguments": "{}"}
    earlier = [
        {"role": "user", "content": [{"type": "text", "text": "one"}]},
        {"role": "assistant", "type": "plugin_call", "content": [{"type": "data", "data": call}]},
        {
            "role": "tool",
            "type": "plugin_call_output",
            "content": [{"type": "data", "data": {"call_id": "c0", "output": "saw 0"}}],
        },
        {"role": "user", "content": [{"type": "text", "text": "two"}]},
    ]
    async with app.runtime():
        assert (await play(app, earlier)).status == "completed"
    assert [role for role, text in SEEN[-1] if "<" not in text] == ["user", "assistant", "tool", "user"]


async def test_copies_do_not_share_tools_that_agents_add() -> None:
    """An agent adds its own tool for compression to its toolkit; in a shared one another user would call it."""
    agent = agent_with(context_config=ContextConfig(compression_tool_enabled=True))
    app = AgentApp(agent=agent)
    async with app.runtime():
        for user in ("ann", "bob"):
            await play(app, "hi", user_id=user)
    assert "CompressContext" not in [tool.name for tool in agent.toolkit.tool_groups[0].tools]
    adapter = adapter_of("agentscope")
    ann, bob = (adapter.open_agent(agent, None, user_id=user, session_id="s") for user in ("ann", "bob"))
    for copy in (ann, bob):
        async with app.runtime():
            await app.bridge.run(drain, copy)
        tool = await copy._agent.toolkit.get_tool("CompressContext")
        assert tool._func.__self__ is copy._agent
        assert copy._agent._engine.context is copy._agent.state.permission_context


async def drain(copy: Any) -> None:
    async for _ in copy.stream(adapter_of("agentscope").messages([Message("user", content="hi")])):
        pass
    json.dumps(await copy.state())


class Remote:
    """An agent of the package that is no Agent, such as A2AAgent."""


Remote.__module__ = "agentscope.agent"


@pytest.mark.parametrize("wrong", [Model(), Toolkit(), Remote()], ids=lambda wrong: type(wrong).__name__)
def test_what_is_no_agent_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"not a {type(wrong).__name__}|must be a function or an agent"):
        AgentApp(agent=wrong)


async def test_fifty_chats_stopped_at_once(app: AgentApp) -> None:
    begun = 0
    ends: list[str] = []
    all_talk = trio.Event()

    async def chat(number: int) -> None:
        nonlocal begun
        async with app.stream_query({"input": "endless", "user_id": "u", "session_id": str(number)}) as events:
            first = True
            async for event in events:
                if event.object == "content" and first:
                    first = False
                    begun += 1
                    if begun == 50:
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
