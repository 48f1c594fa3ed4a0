"""Agents of the real package, with a scripted model: what they stream, and what a stop leaves in their memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

pytest.importorskip("agentscope.memory", reason="agentscope 1 has an environment of its own: make test-frameworks")

from agentscope.agent import ReActAgent
from agentscope.formatter import OpenAIChatFormatter
from agentscope.memory import InMemoryMemory
from agentscope.message import Msg, TextBlock, ToolUseBlock
from agentscope.model import ChatModelBase, ChatResponse
from agentscope.pipeline import stream_printing_messages
from agentscope.tool import Toolkit, ToolResponse

from trio_agentapp import AgentApp, AgentRequest
from trio_agentapp.errors import ItemError
from trio_agentapp.frameworks import adapter_of
from trio_agentapp.protocol.message import Message

ENDED: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_has_ended() -> None:
    ENDED.clear()


class Model(ChatModelBase):
    """Asks for the tool first, if it has one, and then talks without end, or to the end of its sentence."""

    def __init__(self, *, tool: str = "look", endless: bool = False, fails: bool = False) -> None:
        super().__init__("scripted", True)
        self.tool = tool
        self.endless = endless
        self.fails = fails

    async def __call__(self, prompt: Any, *_: Any, **__: Any) -> AsyncIterator[ChatResponse]:
        return self._call_tool() if self.tool and prompt[-1]["role"] != "tool" else self._talk()

    async def _call_tool(self) -> AsyncIterator[ChatResponse]:
        text = TextBlock(type="text", text="Let me look.")
        yield ChatResponse(content=[text])
        yield ChatResponse(
            content=[text, ToolUseBlock(type="tool_use", id="c1", name=self.tool, input={"what": "sky"})]
        )

    async def _talk(self) -> AsyncIterator[ChatResponse]:
        text = ""
        try:
            for word in ["The ", "sky ", "is ", "blue "] * (1000 if self.endless else 1):
                text += word
                yield ChatResponse(content=[TextBlock(type="text", text=text)])
                await asyncio.sleep(0.01)
                if self.fails:
                    raise RuntimeError("the provider is down")
        finally:
            ENDED.append("model")


async def look(what: str) -> ToolResponse:
    """Look at a thing."""
    return ToolResponse(content=[TextBlock(type="text", text=f"{what}: blue")])


async def wait(what: str) -> AsyncIterator[ToolResponse]:
    """Wait for ever."""
    yield ToolResponse(content=[TextBlock(type="text", text="begun")], stream=True)
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0)
        ENDED.append("tool")


def app_with(saved: list[Any], **options: Any) -> AgentApp:
    app = AgentApp()

    @app.query(framework="agentscope")
    async def chat(self: Any, msgs: Any, **kwargs: Any) -> AsyncIterator[Any]:
        memory, toolkit = InMemoryMemory(), Toolkit()
        toolkit.register_tool_function(look)
        toolkit.register_tool_function(wait)
        agent = ReActAgent(
            name="Friday",
            model=Model(**options),
            sys_prompt="You look.",
            toolkit=toolkit,
            memory=memory,
            formatter=OpenAIChatFormatter(),
        )
        agent.set_console_output_enabled(enabled=False)
        try:
            async for msg, last in stream_printing_messages(agents=[agent], coroutine_task=agent(msgs)):
                yield msg, last
        except asyncio.CancelledError:
            await agent.interrupt()
            raise
        finally:
            ENDED.append("handler")
            saved.extend(await memory.get_memory())

    return app


async def test_an_agent_streams_text_a_call_and_its_output() -> None:
    with trio.fail_after(30):
        async with app_with([]).stream_query("What is above?") as events:
            *_, end = [event async for event in events]
    assert end.status == "completed"
    assert [message.type for message in end.output] == ["message", "plugin_call", "plugin_call_output", "message"]
    assert end.output[1].content[0].data == {"call_id": "c1", "name": "look", "arguments": '{"what": "sky"}'}
    assert end.output[-1].content[0].text.strip() == "The sky is blue"


async def play(app: AgentApp, stop_at: str = "") -> Any:
    """Stop the chat where text or data has `stop_at`."""
    request = {"input": "What is above?", "user_id": "u", "session_id": "s"}
    with trio.fail_after(30):
        async with app.runtime(), app.stream_query(request) as events:
            async for event in events:
                shown = event.text or str(event.data) if event.object == "content" else ""
                if stop_at and stop_at in shown:
                    stop_at = ""
                    await app.stop_chat("u", "s")
    return event


@pytest.mark.parametrize(("at", "endless"), [("The ", True), ("sky ", True), ("blue ", False)])
@pytest.mark.parametrize("tool", ["look", ""])
async def test_the_partial_answer_is_saved_after_a_stop(at: str, endless: bool, tool: str) -> None:
    saved: list[Any] = []
    end = await play(app_with(saved, tool=tool, endless=endless), at)
    assert end.status == "canceled"
    assert ENDED == ["model", "handler"]
    # The last one is the agent's note that it was interrupted.
    answer = saved[-2]
    assert (answer.role, at in answer.get_text_content()) == ("assistant", True)


async def test_a_stop_in_a_tool_ends_the_tool_and_closes_its_call() -> None:
    saved: list[Any] = []
    end = await play(app_with(saved, tool="wait"), "begun")
    assert end.status == "canceled"
    assert ENDED == ["tool", "handler"]
    [call] = [block for msg in saved for block in msg.get_content_blocks("tool_use")]
    [result] = [block for msg in saved for block in msg.get_content_blocks("tool_result")]
    assert call["id"] == result["id"]
    assert "interrupted" in str(result["output"])


async def test_the_partial_answer_of_a_model_that_fails_is_saved() -> None:
    saved: list[Any] = []
    end = await play(app_with(saved, tool="", fails=True))
    assert (end.status, end.error.code) == ("failed", "exception")
    assert ENDED == ["model", "handler"]
    assert [msg.get_text_content() for msg in saved] == ["What is above?", "The "]


class Hangs(ReActAgent):
    """An agent that does not come back from a method which a stop calls."""

    def __init__(self, at: str, **options: Any) -> None:
        super().__init__(**options)
        self.at = at

    async def interrupt(self, msg: Any = None) -> None:
        await self._hang_at("interrupt")
        await super().interrupt(msg)

    async def handle_interrupt(self, *args: Any, **options: Any) -> Msg:
        await self._hang_at("handle_interrupt")
        return await super().handle_interrupt(*args, **options)

    async def _hang_at(self, place: str) -> None:
        if self.at == place:
            try:
                await asyncio.Event().wait()
            finally:
                ENDED.append(place)


@pytest.mark.parametrize("at", ["interrupt", "handle_interrupt"])
async def test_an_agent_that_hangs_in_interrupt_ends_with_the_cleanup_budget(at: str) -> None:
    """The partial answer is saved, other chats go on, and the session is free afterwards."""
    saved: list[Any] = []
    app = AgentApp(cleanup_budget=0.5)

    @app.query(framework="agentscope")
    async def chat(self: Any, msgs: Any, request: AgentRequest, **kwargs: Any) -> AsyncIterator[Any]:
        memory = InMemoryMemory()
        agent = Hangs(
            at if request.session_id == "s" else "",
            name="Friday",
            model=Model(tool="", endless=msgs[-1].get_text_content() == "Talk."),
            sys_prompt="You talk.",
            memory=memory,
            formatter=OpenAIChatFormatter(),
        )
        agent.set_console_output_enabled(enabled=False)
        try:
            async for msg, last in stream_printing_messages(agents=[agent], coroutine_task=agent(msgs)):
                yield msg, last
        except asyncio.CancelledError:
            await agent.interrupt()
            raise
        finally:
            saved.extend(await memory.get_memory())

    async def ask(text: str, session: str, stop: bool = False) -> Any:
        async with app.stream_query({"input": text, "user_id": "u", "session_id": session}) as events:
            async for event in events:
                if stop and event.object == "content" and "sky " in event.text:
                    stop = False
                    await app.stop_chat("u", "s")
                    assert (await ask("Hello.", "other")).status == "completed"
                    saved.clear()
        return event

    with trio.fail_after(30):
        async with app.runtime():
            end = await ask("Talk.", "s", stop=True)
            assert (end.status, end.error.code) == ("failed", "cleanup_timeout")
            assert at in ENDED
            assert [msg.role for msg in saved][:2] == ["user", "assistant"]
            assert "sky " in saved[1].get_text_content()
            assert (await ask("Hello.", "s")).status == "completed"


def test_messages_arrive_in_its_types() -> None:
    [msg] = adapter_of("agentscope").messages([Message("user", content="hi")])
    assert isinstance(msg, Msg)
    assert (msg.role, msg.content) == ("user", [{"type": "text", "text": "hi"}])


def test_an_unknown_block_is_an_error_that_names_it_unless_it_has_a_converter() -> None:
    msg = Msg("Friday", [{"type": "hologram", "shape": "cube"}], "assistant")
    with pytest.raises(ItemError, match="'hologram'"):
        list(adapter_of("agentscope").reader().read((msg, True)))
    reader = adapter_of("agentscope", {"hologram": lambda block: [block["shape"]]}).reader()
    assert list(reader.read((msg, True))) == ["cube"]


@pytest.mark.parametrize(
    ("block", "kind", "content"),
    [
        ({"type": "text", "text": "hi"}, "message", "hi"),
        ({"type": "thinking", "thinking": "hm"}, "reasoning", "hm"),
        (
            {"type": "tool_use", "id": "1", "name": "look", "input": {"a": 1}},
            "plugin_call",
            {"call_id": "1", "name": "look", "arguments": '{"a": 1}'},
        ),
        (
            {"type": "tool_use", "id": "1", "name": "look", "input": {}, "tool_type": "mcp"},
            "mcp_call",
            {"call_id": "1", "name": "look", "arguments": "{}"},
        ),
        (
            {"type": "tool_result", "id": "1", "name": "look", "output": "blue"},
            "plugin_call_output",
            {"call_id": "1", "name": "look", "output": "blue"},
        ),
        ({"type": "image", "source": {"type": "url", "url": "https://a/b"}}, "message", "https://a/b"),
    ],
)
def test_each_block_becomes_a_message(block: dict[str, Any], kind: str, content: object) -> None:
    [item] = adapter_of("agentscope").reader().read((Msg("Friday", [block], "assistant"), True))
    message = item[0] if isinstance(item, tuple) else item
    assert message.type == kind
    [part] = message.content
    assert content in (getattr(part, name, None) for name in ("text", "data", "image_url"))
