"""Graphs of the real package, with a scripted model: what they stream, and how they are stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio

pytest.importorskip("langgraph", reason="it has an environment of its own: make test-frameworks")

from langchain.agents import create_agent
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGenerationChunk
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import START
from langgraph.types import Command, interrupt

from trio_agentapp import AgentApp
from trio_agentapp.errors import ItemError
from trio_agentapp.frameworks import adapter_of
from trio_agentapp.frameworks.langgraph import UnfinishedTurn
from trio_agentapp.protocol.content import DataContent, ImageContent, TextContent
from trio_agentapp.protocol.message import Message

from ..chats import fifty_stopped, said, sent_back

ENDED: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_has_ended() -> None:
    ENDED.clear()


class Model(BaseChatModel):
    """Calls its tool, if it has one, and then talks to the end of its sentence, or without end."""

    sentence: str = "The sky is blue"
    endless: bool = False
    fails: bool = False
    tool: str = "look"

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **options: Any) -> Model:
        return self

    def _generate(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError

    async def _astream(self, messages: list[BaseMessage], *args: Any, **options: Any) -> AsyncIterator[Any]:
        try:
            if self.tool and not isinstance(messages[-1], ToolMessage):
                async for chunk in self._call():
                    yield ChatGenerationChunk(message=chunk)
                return
            if self.fails:
                raise RuntimeError("the provider is down")
            yield ChatGenerationChunk(message=AIMessageChunk([{"type": "reasoning", "reasoning": "Hm."}]))
            for word in self.sentence.split() * (1000 if self.endless else 1):
                yield ChatGenerationChunk(message=AIMessageChunk(f"{word} "))
                await asyncio.sleep(0.01)
        finally:
            ENDED.append("model")

    async def _call(self) -> AsyncIterator[AIMessageChunk]:
        yield AIMessageChunk("Let me look.")
        for name, arguments, id in ((self.tool, '{"wh', "c1"), (None, 'at": "sky"}', None)):
            part = {"name": name, "args": arguments, "id": id, "index": 0}
            yield AIMessageChunk("", tool_call_chunks=[part])
        usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
        yield AIMessageChunk("", usage_metadata=usage)


async def look(what: str) -> str:
    """Look at a thing."""
    get_stream_writer()({"progress": 0.5})
    return f"{what}: blue"


async def wait(what: str) -> str:
    """Wait for ever."""
    get_stream_writer()({"waits": True})
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0)
        ENDED.append("tool")
    return what


async def ask(what: str) -> str:
    """Ask a person."""
    return str(interrupt({"question": what}))


def app_with(
    tools: list[Callable[..., Any]], *, modes: Any = "messages", saved: list[Any] | None = None, **options: Any
) -> AgentApp:
    app = AgentApp()
    agent = create_agent(Model(**options), tools, checkpointer=InMemorySaver())

    @app.query(framework="langgraph")
    async def chat(self: Any, msgs: Any, request: Any, **kwargs: Any) -> AsyncIterator[Any]:
        config = {"configurable": {"thread_id": f"{request.user_id}/{request.session_id}"}}
        given = Command(resume=msgs[-1].text) if (await agent.aget_state(config)).interrupts else {"messages": msgs}
        try:
            async for item in agent.astream(given, config, stream_mode=modes):
                yield item
        finally:
            ENDED.append("handler")
            if saved is not None:
                saved.extend((await agent.aget_state(config)).values["messages"])

    return app


async def play(app: AgentApp, text: str = "What is above?", **ids: str) -> Any:
    with trio.fail_after(30):
        async with app.stream_query({"input": text, **ids}) as events:
            *_, end = [event async for event in events]
    return end


CALL = ("plugin_call", {"call_id": "c1", "name": "look", "arguments": '{"what": "sky"}'})
OUTPUT = ("plugin_call_output", {"call_id": "c1", "name": "look", "output": "sky: blue"})


async def test_text_a_call_its_output_reasoning_and_usage() -> None:
    end = await play(app_with([look]))
    assert end.status == "completed"
    assert said(end) == [
        ("message", "Let me look."),
        CALL,
        OUTPUT,
        ("reasoning", "Hm."),
        ("message", "The sky is blue "),
    ]
    assert {name: end.usage[name] for name in ("input_tokens", "output_tokens", "total_tokens")} == {
        "input_tokens": 3,
        "output_tokens": 4,
        "total_tokens": 7,
    }


async def test_text_comes_in_deltas() -> None:
    with trio.fail_after(30):
        async with app_with([], tool="").stream_query("hi") as events:
            deltas = [event.text async for event in events if event.object == "content" and event.delta]
    assert deltas == ["Hm.", "The ", "sky ", "is ", "blue "]


async def test_several_stream_modes() -> None:
    end = await play(app_with([look], modes=["messages", "custom", "updates"]))
    assert said(end)[1:4] == [CALL, ("message", {"progress": 0.5}), OUTPUT]


async def test_an_interrupt_is_shown_and_resumed() -> None:
    app = app_with([ask], tool="ask", modes=["messages", "updates"])
    ids = {"user_id": "u", "session_id": "s"}
    async with app.runtime():
        end = await play(app, **ids)
        kind, data = said(end)[-1]
        assert (kind, data["interrupt"]) == ("message", {"question": "sky"})
        end = await play(app, "blue", **ids)
    assert said(end)[0] == ("plugin_call_output", {"call_id": "c1", "name": "ask", "output": "blue"})
    assert end.status == "completed"


@pytest.mark.parametrize("at", ["The ", "sky "])
async def test_a_stop_while_the_model_talks(at: str) -> None:
    saved: list[Any] = []
    app = app_with([], tool="", endless=True, saved=saved)
    with trio.fail_after(30):
        async with app.runtime():
            async with app.stream_query({"input": "hi", "user_id": "u", "session_id": "s"}) as events:
                async for event in events:
                    if getattr(event, "text", "") == at and event.delta:
                        await app.stop_chat("u", "s")
            # The graph had ended when the handler saved.
            assert ENDED == ["model", "handler"]
            assert [message.text for message in saved] == ["hi"]
    assert event.status == "canceled"


async def test_a_handler_keeps_the_partial_answer() -> None:
    """As the manual says."""
    app, saver = AgentApp(), InMemorySaver()
    agent = create_agent(Model(tool="", endless=True), [], checkpointer=saver)
    config = {"configurable": {"thread_id": "1"}}

    @app.query(framework="langgraph")
    async def chat(msgs: Any) -> AsyncIterator[Any]:
        turn = UnfinishedTurn()
        try:
            async for item in agent.astream({"messages": msgs}, config, stream_mode="messages"):
                turn.note(item[0])
                yield item
        except asyncio.CancelledError:
            if rest := turn.rest(await agent.aget_state(config)):
                await agent.aupdate_state(config, {"messages": rest}, as_node=START)
            raise

    with trio.fail_after(30):
        async with app.runtime():
            async with app.stream_query({"input": "hi", "user_id": "u", "session_id": "s"}) as events:
                async for event in events:
                    if getattr(event, "text", "") == "sky " and event.delta:
                        await app.stop_chat("u", "s")
            question, answer = (await app.bridge.run(agent.aget_state, config)).values["messages"]
    assert question.text == "hi"
    assert answer.text.startswith("The sky ")


async def test_a_stop_in_a_tool_ends_the_tool_and_closes_its_call() -> None:
    app = app_with([wait], tool="wait", modes=["messages", "custom"])
    with trio.fail_after(30):
        async with app.runtime(), app.stream_query({"input": "hi", "user_id": "u", "session_id": "s"}) as events:
            async for event in events:
                if event.object == "content" and event.data == {"waits": True}:
                    await app.stop_chat("u", "s")
    assert event.status == "canceled"
    assert ENDED == ["model", "tool", "handler"]
    kinds = [message.type for message in event.output]
    assert kinds == ["message", "plugin_call", "message", "plugin_call_output"]
    # A strict provider takes this as the beginning of the next turn.
    history = adapter_of("langgraph").messages([Message("user", content="hi"), *sent_back(event.output)])
    history.pop(2)  # what the tool has shown
    assert [type(message) for message in history] == [HumanMessage, AIMessage, ToolMessage]
    assert history[1].tool_calls[0]["id"] == history[2].tool_call_id == "c1"


async def test_a_stop_in_a_tool_leaves_a_thread_that_a_strict_provider_accepts() -> None:
    """As the manual says, with a checkpointer of one's own."""
    prompts: list[list[BaseMessage]] = []

    class Strict(Model):
        async def _astream(self, messages: list[BaseMessage], *args: Any, **options: Any) -> AsyncIterator[Any]:
            prompts.append(messages)
            if messages[-1].text == "And now?":
                yield ChatGenerationChunk(message=AIMessageChunk("Well."))
                return
            async for chunk in super()._astream(messages, *args, **options):
                yield chunk

    app = AgentApp()
    agent = create_agent(Strict(tool="wait"), [wait], checkpointer=InMemorySaver())

    @app.query(framework="langgraph")
    async def chat(msgs: Any) -> AsyncIterator[Any]:
        config = {"configurable": {"thread_id": "1"}}
        turn = UnfinishedTurn()
        try:
            async for mode, item in agent.astream({"messages": msgs}, config, stream_mode=["messages", "custom"]):
                if mode == "messages":
                    turn.note(item[0])
                yield mode, item
        except asyncio.CancelledError:
            if rest := turn.rest(await agent.aget_state(config)):
                await agent.aupdate_state(config, {"messages": rest}, as_node=START)
            raise

    async with app.runtime():
        with trio.fail_after(30):
            async with app.stream_query({"input": "hi", "user_id": "u", "session_id": "s"}) as events:
                async for event in events:
                    if event.object == "content" and event.data == {"waits": True}:
                        await app.stop_chat("u", "s")
        assert event.status == "canceled"
        assert (await play(app, "And now?", user_id="u", session_id="s")).status == "completed"
    assert [type(message) for message in prompts[-1]] == [HumanMessage, AIMessage, ToolMessage, HumanMessage]
    assert prompts[-1][2].tool_call_id == "c1"  # type: ignore[attr-defined]
    assert prompts[-1][1].text == "Let me look."


async def test_a_model_that_fails() -> None:
    end = await play(app_with([look], fails=True))
    assert (end.status, end.error.code) == ("failed", "exception")
    assert said(end) == [("message", "Let me look."), CALL, OUTPUT]


async def test_two_users_at_once_have_their_own_threads() -> None:
    app = app_with([look])
    ends = {}

    async def chat(user: str) -> None:
        ends[user] = await play(app, user_id=user, session_id="s")

    async with app.runtime(), trio.open_nursery() as nursery:
        for user in ("ann", "bob"):
            nursery.start_soon(chat, user)
    assert said(ends["ann"]) == said(ends["bob"])
    assert len(said(ends["ann"])) == 5


async def test_fifty_chats_stopped_at_once() -> None:
    app = app_with([], tool="", endless=True)
    assert await fifty_stopped(app) == ["canceled"] * 50
    assert ENDED.count("handler") == ENDED.count("model") == 50


# Messages in.


def test_messages_arrive_in_its_types() -> None:
    made = adapter_of("langgraph").messages(
        [
            Message("system", content="Be kind."),
            Message("user", content=[TextContent("What?"), ImageContent("https://a/b")]),
            Message("assistant", "reasoning", "Hm."),
            Message("assistant", content="Let me look."),
            Message("assistant", "plugin_call", [_data(call_id="1", name="look", arguments='{"a": 1}')]),
            Message("assistant", "plugin_call", [_data(call_id="2", name="look", arguments="not JSON")]),
            Message("tool", "plugin_call_output", [_data(call_id="1", name="look", output="blue")]),
            Message("tool", "plugin_call_output", [_data(call_id="2", name="look", output=[1])]),
        ]
    )
    assert [type(message) for message in made] == [
        SystemMessage,
        HumanMessage,
        AIMessage,
        AIMessage,
        ToolMessage,
        ToolMessage,
    ]
    assert made[1].content == [{"type": "text", "text": "What?"}, {"type": "image", "url": "https://a/b"}]
    assert made[2].content == [{"type": "reasoning", "reasoning": "Hm."}]
    assert [(call["id"], call["args"]) for call in made[3].tool_calls] == [("1", {"a": 1}), ("2", {})]
    assert [(message.tool_call_id, message.text) for message in made[4:]] == [("1", "blue"), ("2", "[1]")]


def _data(**data: Any) -> Any:
    return DataContent(data)


# What handlers may yield.


def read(*items: object, **converters: Any) -> list[Any]:
    reader = adapter_of("langgraph", converters).reader()
    return [made for item in items for made in reader.read(item)] + [*reader.end()]


@pytest.mark.parametrize(
    ("item", "kind", "content"),
    [
        ((AIMessage("hi"), {}), "message", "hi"),
        ((AIMessage("hi"), True), "message", "hi"),
        (AIMessage("hi"), "message", "hi"),
        (("messages", (AIMessage("hi"), {})), "message", "hi"),
        ((("sub:1",), (AIMessage("hi"), {})), "message", "hi"),
        ((("sub:1",), "messages", (AIMessage("hi"), {})), "message", "hi"),
        (AIMessage([{"type": "reasoning", "reasoning": "hm"}]), "reasoning", "hm"),
        (AIMessage([{"type": "image", "url": "https://a/b"}]), "message", "https://a/b"),
        (
            AIMessage([{"type": "image", "base64": "AA==", "mime_type": "image/png"}]),
            "message",
            "data:image/png;base64,AA==",
        ),
        (AIMessage([{"type": "audio", "base64": "AA==", "mime_type": "audio/wav"}]), "message", "AA=="),
        (AIMessage([{"type": "video", "url": "https://a/b"}]), "message", "https://a/b"),
        (AIMessage([{"type": "file", "url": "https://a/b"}]), "message", "https://a/b"),
        (
            AIMessage("", tool_calls=[{"id": "1", "name": "look", "args": {"a": 1}}]),
            "plugin_call",
            {"call_id": "1", "name": "look", "arguments": '{"a": 1}'},
        ),
        (
            AIMessage("", invalid_tool_calls=[{"id": "1", "name": "look", "args": "{", "error": None}]),
            "plugin_call",
            {"call_id": "1", "name": "look", "arguments": "{"},
        ),
        (
            ToolMessage([{"type": "text", "text": "x"}], tool_call_id="1", name="look"),
            "plugin_call_output",
            {"call_id": "1", "name": "look", "output": '[{"type": "text", "text": "x"}]'},
        ),
        (HumanMessage("me"), "message", "me"),
        (SystemMessage("it"), "message", "it"),
    ],
    ids=str,
)
def test_each_item_becomes_a_message(item: object, kind: str, content: object) -> None:
    made = read(item)[-1]
    message = made[0] if isinstance(made, tuple) else made
    assert message.type == kind
    [part] = message.content
    values = ("text", "data", "image_url", "video_url", "file_url")
    assert content in [getattr(part, name, None) for name in values]


def test_what_is_no_message_stays_as_it_is() -> None:
    assert read("text", RemoveMessage("1")) == ["text"]


@pytest.mark.parametrize(
    ("item", "names"),
    [
        ((1, 2, 3), "int, int, int"),
        (("debug", {}), "str, dict"),
        ((AIMessage("hi"), 1), "AIMessage, int"),
        (AIMessage([{"type": "hologram"}]), "'non_standard'"),
        (ChatMessage("hi", role="judge"), "ChatMessage"),
    ],
    ids=str,
)
def test_what_is_not_known_is_named(item: object, names: str) -> None:
    with pytest.raises(ItemError, match=names):
        read(item)


def test_converters_come_first() -> None:
    assert read(AIMessage([{"type": "hologram"}]), non_standard=lambda block: [block["value"]["type"]]) == [
        "hologram"
    ]
    assert read(("custom", 5), custom=lambda data: [str(data)]) == ["5"]
    reader = adapter_of("langgraph", {ChatMessage: lambda message: [message.role]}).reader()
    assert [*reader.read(ChatMessage("hi", role="judge"))] == ["judge"]


@pytest.mark.parametrize("sync", [False, True])
async def test_input_that_cannot_be_converted_is_told_to_the_client(sync: bool) -> None:
    app = AgentApp()
    if sync:

        @app.query(framework="langgraph")
        def chat(msgs: Any) -> str:
            return "never"

    else:

        @app.query(framework="langgraph")
        async def chat(msgs: Any) -> str:
            return "never"

    wrong = {"role": "user", "content": "hi", "metadata": {"original_name": 8}}
    with trio.fail_after(30):
        async with app.stream_query({"input": [wrong]}) as events:
            *_, end = [event async for event in events]
    assert end.status == "failed"
    [message] = end.output
    assert (message.type, message.code) == ("error", "validation_error")
