"""Agents and teams of the real package, with a scripted model: what they stream, and how they are stopped."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import trio

pytest.importorskip("autogen_agentchat", reason="it has an environment of its own: make test-frameworks")

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.base import Response, TaskResult
from autogen_agentchat.messages import (
    BaseAgentEvent,
    CodeExecutionEvent,
    CodeGenerationEvent,
    HandoffMessage,
    MemoryQueryEvent,
    ModelClientStreamingChunkEvent,
    MultiModalMessage,
    SelectorEvent,
    SelectSpeakerEvent,
    StopMessage,
    StructuredMessage,
    TextMessage,
    ThoughtEvent,
    ToolCallExecutionEvent,
    ToolCallRequestEvent,
    ToolCallSummaryMessage,
    UserInputRequestedEvent,
)
from autogen_agentchat.teams import RoundRobinGroupChat, SelectorGroupChat
from autogen_core import CancellationToken, FunctionCall, Image
from autogen_core.code_executor import CodeResult
from autogen_core.memory import MemoryContent
from autogen_core.models import (
    AssistantMessage,
    ChatCompletionClient,
    CreateResult,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    ModelInfo,
    RequestUsage,
)
from PIL import Image as PILImage
from pydantic import BaseModel

from trio_agentapp import AgentApp
from trio_agentapp.errors import ItemError
from trio_agentapp.frameworks import adapter_of
from trio_agentapp.frameworks.items import current_items
from trio_agentapp.protocol.content import AudioContent, DataContent, FileContent, ImageContent, TextContent
from trio_agentapp.protocol.message import Message

from ..chats import said, sent_back

BEGUN: list[str] = []
ENDED: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_has_ended() -> None:
    BEGUN.clear()
    ENDED.clear()


class Model(ChatCompletionClient):
    """Calls its tool, if it has one, and then talks to the end of its sentence, or without end."""

    component_config_schema = BaseModel
    model_info = ModelInfo(
        vision=True, function_calling=True, json_output=True, family="unknown", structured_output=True
    )
    capabilities: Any = model_info

    def __init__(
        self, *, tool: str = "", endless: bool = False, fails: bool = False, thought: str = "", pace: float = 0.01
    ) -> None:
        self.pace = pace
        self.talks = False
        self.tool = tool
        self.endless = endless
        self.fails = fails
        self.thought = thought

    async def create_stream(self, messages: Any, **options: Any) -> AsyncIterator[str | CreateResult]:
        self.talks = True
        try:
            if self.tool and not isinstance(messages[-1], FunctionExecutionResultMessage):
                yield "Let me "
                yield "look."
                yield self.result([FunctionCall("c1", '{"what": "sky"}', self.tool)], "Let me look.")
                return
            if self.fails:
                raise RuntimeError("the provider is down")
            if self.thought:
                for chunk in ("<think>", self.thought, "</think>"):
                    yield chunk
            words = ["The ", "sky ", "is ", "blue"]
            for word in words * (1000 if self.endless else 1):
                yield word
                await asyncio.sleep(self.pace)
            yield self.result("".join(words), self.thought)
        finally:
            self.talks = False
            ENDED.append("model")

    def result(self, content: Any, thought: str) -> CreateResult:
        return CreateResult(
            finish_reason="stop",
            content=content,
            usage=RequestUsage(prompt_tokens=3, completion_tokens=4),
            cached=False,
            thought=thought or None,
        )

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


async def look(what: str) -> str:
    """Look at a thing."""
    return f"{what}: blue"


async def wait(what: str) -> str:
    """Wait for ever."""
    BEGUN.append("tool")
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0.02)
        ENDED.append("tool")
    return what


def assistant(name: str = "friday", tools: Any = (), **options: Any) -> AssistantAgent:
    return AssistantAgent(
        name, Model(**options), tools=[*tools], model_client_stream=True, reflect_on_tool_use=bool(tools)
    )


def pair(*options: Mapping[str, Any], **limits: Any) -> RoundRobinGroupChat:
    """A team of two, which talk by turns."""
    given = options or ({}, {})
    members = [assistant(name, **each) for name, each in zip(("ann", "bob"), given, strict=True)]
    return RoundRobinGroupChat(members, **(limits or {"max_turns": 2}))  # type: ignore[arg-type]


def talks(agent: Any) -> bool:
    members = getattr(agent, "_participants", None)
    return any(map(talks, members)) if members else agent._model_client.talks


def app_with(make: Callable[[], Any], *, token: bool = True, saved: list[Any] | None = None) -> AgentApp:
    app = AgentApp()

    @app.query(framework="autogen")
    async def chat(msgs: Any, run: Any) -> AsyncIterator[Any]:
        agent = make()
        options = {"cancellation_token": run.cancellation_token} if token else {}
        try:
            async for item in agent.run_stream(task=msgs, **options):
                yield item
        finally:
            task = asyncio.current_task()
            assert task is not None
            ENDED.append("too early" if talks(agent) else f"handler {task.cancelling()}")
            if saved is not None:
                saved.append(await agent.save_state())

    return app


async def play(
    app: AgentApp, text: str = "What is above?", *, stop_at: str = "", begun: str = "", **ids: str
) -> Any:
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


CALL = ("plugin_call", {"call_id": "c1", "name": "look", "arguments": '{"what": "sky"}'})
OUTPUT = ("plugin_call_output", {"call_id": "c1", "name": "look", "output": "sky: blue"})


async def test_text_a_call_its_output_reasoning_and_usage() -> None:
    end = await play(app_with(lambda: assistant(tools=[look], tool="look", thought="Hm.")))
    assert end.status == "completed"
    assert said(end) == [
        ("message", "Let me look."),
        CALL,
        OUTPUT,
        ("reasoning", "Hm."),
        ("message", "The sky is blue"),
    ]
    assert end.output[-1].metadata["original_name"] == "friday"
    assert end.usage == {"input_tokens": 6, "output_tokens": 8, "total_tokens": 14}


async def test_text_comes_in_deltas() -> None:
    with trio.fail_after(30):
        async with app_with(lambda: assistant(thought="Hm.")).stream_query("hi") as events:
            deltas = [event.text async for event in events if event.object == "content" and event.delta]
    assert deltas == ["Hm.", "The ", "sky ", "is ", "blue"]


async def test_a_team() -> None:
    end = await play(app_with(pair))
    assert end.status == "completed"
    assert said(end) == [("message", "The sky is blue")] * 2
    assert [message.metadata["original_name"] for message in end.output] == ["ann", "bob"]
    assert end.usage["total_tokens"] == 14


async def test_a_result_alone_has_allsent_back() -> None:
    app = AgentApp()

    @app.query(framework="autogen")
    async def chat(msgs: Any) -> Any:
        return await pair().run(task=msgs)

    assert said(await play(app)) == [("message", "The sky is blue")] * 2


# Stops.


def nested() -> Any:
    return RoundRobinGroupChat([pair({"endless": True}, {}), assistant("carl")], max_turns=2)


def selecting() -> Any:
    members = [assistant("ann", endless=True), assistant("bob")]
    return SelectorGroupChat(members, Model(), selector_func=lambda _: "ann", max_turns=3)


MAKERS: dict[str, Callable[[], Any]] = {
    "agent": lambda: assistant(endless=True),
    "team": lambda: pair({"endless": True}, {}),
    "second of a team": lambda: pair({}, {"endless": True}),
    "team without end": lambda: pair({}, {}, max_turns=1000),
    "busy agent": lambda: assistant(endless=True, pace=0),
    "busy team": lambda: pair({"pace": 0}, {"pace": 0}, max_turns=1000),
    "selector": selecting,
    "nested": nested,
}


@pytest.mark.parametrize("token", [True, False], ids=["token", "no token"])
@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("at", ["The ", "blue"])
async def test_a_stop_while_the_model_talks(
    kind: str, at: str, token: bool, caplog: pytest.LogCaptureFixture
) -> None:
    saved: list[Any] = []
    app = app_with(MAKERS[kind], token=token, saved=saved)
    async with app.runtime():
        end = await play(app, stop_at=at)
        # All models had ended when the handler went on, and none began after it.
        assert [*["model"] * (len(ENDED) - 1), "handler 1"] == ENDED
    assert end.status == "canceled"
    assert saved
    ours = [record.message for record in caplog.records if record.name.startswith(("trio_agentapp", "asyncio"))]
    assert not [text for text in ours if "left the asyncio task" in text or "exception" in text.lower()]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_handler_keeps_the_partial_answer() -> None:
    """As the manual says."""
    app = AgentApp()
    agent = assistant(endless=True)

    @app.query(framework="autogen")
    async def chat(msgs: Any) -> AsyncIterator[Any]:
        text = ""
        try:
            async for item in agent.run_stream(task=msgs):
                if isinstance(item, ModelClientStreamingChunkEvent):
                    text += item.content
                yield item
        except asyncio.CancelledError:
            await agent.model_context.add_message(AssistantMessage(content=text, source=agent.name))
            raise

    async with app.runtime():
        assert (await play(app, "hi", stop_at="sky")).status == "canceled"
    question, answer = (await agent.save_state())["llm_context"]["messages"]
    assert question["content"] == "hi"
    assert answer["content"].startswith("The sky ")


@pytest.mark.parametrize("token", [True, False], ids=["token", "no token"])
@pytest.mark.parametrize("kind", ["agent", "team without end", "nested"])
async def test_a_stop_before_the_first_message(kind: str, token: bool) -> None:
    app = AgentApp()

    @app.query(framework="autogen")
    async def chat(msgs: Any, run: Any) -> AsyncIterator[Any]:
        agent = MAKERS[kind]()
        yield "begun"
        block_until_stopped()
        options = {"cancellation_token": run.cancellation_token} if token else {}
        try:
            async for item in agent.run_stream(task=msgs, **options):
                yield item
        finally:
            ENDED.append("too early" if talks(agent) else "handler")

    async with app.runtime():
        end = await play(app, stop_at="begun")
    assert end.status == "canceled"
    assert ENDED[-1] == "handler"


def block_until_stopped() -> None:
    """Keep the loop from its work until a stop has been sent to it."""
    call = current_items.get().call
    while not call.cancelled:
        time.sleep(0.001)
    time.sleep(0.02)


TOOLS: dict[str, Callable[[], Any]] = {
    "agent": lambda: assistant(tools=[wait], tool="wait"),
    "team": lambda: pair({"tools": [wait], "tool": "wait"}, {}),
    "second of a team": lambda: pair({}, {"tools": [wait], "tool": "wait"}),
}


@pytest.mark.parametrize("token", [True, False], ids=["token", "no token"])
@pytest.mark.parametrize("kind", TOOLS)
async def test_a_stop_in_a_tool_ends_the_tool_and_closes_its_call(kind: str, token: bool) -> None:
    app = app_with(TOOLS[kind], token=token)
    async with app.runtime():
        end = await play(app, stop_at="'wait'", begun="tool")
    assert end.status == "canceled"
    assert ENDED[-2:] == ["tool", "handler 1"]
    assert [kind for kind, _ in said(end)][-2:] == ["plugin_call", "plugin_call_output"]
    # The next turn begins with it.
    history = adapter_of("autogen").messages([Message("user", content="hi"), *sent_back(end.output)])
    assert [(call.id, call.name) for call in history[-1].tool_calls] == [("c1", "wait")]
    assert [result.call_id for result in history[-1].results] == ["c1"]


@pytest.mark.parametrize("token", [True, False], ids=["token", "no token"])
async def test_a_stopped_team_can_run_again(token: bool) -> None:
    made: list[Any] = []

    def team() -> Any:
        if not made:
            made.append(pair({"endless": True}, {}))
        else:
            made[0]._participants[0]._model_client.endless = False
        return made[0]

    app = app_with(team, token=token)
    async with app.runtime():
        assert (await play(app, stop_at="sky")).status == "canceled"
        end = await play(app, "again")
    # AutoGen leaves open whose turn it is.
    assert end.status == "completed"
    assert ("message", "The sky is blue") in said(end)


async def test_a_tool_in_a_thread_sees_the_stop() -> None:
    stopped = threading.Event()

    def block(what: str, cancellation_token: CancellationToken) -> str:
        """Wait in a thread."""
        cancellation_token.add_callback(stopped.set)
        BEGUN.append("thread")
        assert stopped.wait(20)
        ENDED.append("thread")
        return what

    app = app_with(lambda: assistant(tools=[block], tool="block"))
    async with app.runtime():
        end = await play(app, stop_at="'block'", begun="thread")
    assert end.status == "canceled"
    # The end of the app waits for the threads of its loop.
    assert "thread" in ENDED


async def test_a_cancellation_that_is_no_stop_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Leaves(Model):
        async def create_stream(self, messages: Any, **options: Any) -> AsyncIterator[str | CreateResult]:
            yield "The "
            raise asyncio.CancelledError

    team = RoundRobinGroupChat([AssistantAgent("ann", Leaves(), model_client_stream=True)], max_turns=1)
    app = app_with(lambda: team)

    def errors() -> set[str]:
        return {record.name for record in caplog.records if record.levelno == logging.ERROR}

    with trio.fail_after(30):
        async with app.runtime(), app.stream_query({"input": "hi", "user_id": "u", "session_id": "s"}):
            while "autogen_core" not in errors():
                await trio.sleep(0.01)
            await app.stop_chat("u", "s")


async def test_a_model_that_fails() -> None:
    end = await play(app_with(lambda: assistant(tools=[look], tool="look", fails=True)))
    assert (end.status, end.error.code) == ("failed", "exception")
    assert said(end) == [("message", "Let me look."), CALL, OUTPUT]
    end = await play(app_with(lambda: pair({}, {"fails": True})))
    assert (end.status, end.error.code) == ("failed", "exception")
    assert said(end) == [("message", "The sky is blue")]


async def test_two_users_at_once() -> None:
    app = app_with(lambda: assistant(tools=[look], tool="look"))
    ends = {}

    async def chat(user: str) -> None:
        ends[user] = await play(app, user_id=user)

    async with app.runtime(), trio.open_nursery() as nursery:
        for user in ("ann", "bob"):
            nursery.start_soon(chat, user)
    assert said(ends["ann"]) == said(ends["bob"])
    assert len(said(ends["ann"])) == 4


@pytest.mark.parametrize("token", [True, False], ids=["token", "no token"])
@pytest.mark.parametrize("kind", ["agent", "team", "busy agent", "busy team"])
async def test_fifty_chats_stopped_at_once(kind: str, token: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="autogen_core")
    app = app_with(MAKERS[kind], token=token)
    begun = 0
    ends: list[str] = []
    all_talk = trio.Event()

    async def chat(number: int) -> None:
        nonlocal begun
        seen = False
        async with app.stream_query({"input": "hi", "user_id": "u", "session_id": str(number)}) as events:
            async for event in events:
                if not seen and getattr(event, "text", "") == "The " and event.delta:
                    seen = True
                    begun += 1
                    if begun >= 50:
                        all_talk.set()
        ends.append(event.status)

    with trio.fail_after(60):
        async with app.runtime(), trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(chat, number)
            await all_talk.wait()
            for number in range(50):
                nursery.start_soon(app.stop_chat, "u", str(number))
    assert ends == ["canceled"] * 50
    assert ENDED.count("handler 1") == 50
    assert "left the asyncio task" not in caplog.text


# Messages in.


def picture() -> str:
    made = io.BytesIO()
    PILImage.new("RGB", (1, 1)).save(made, "PNG")
    return base64.b64encode(made.getvalue()).decode()


def _data(**data: Any) -> Any:
    return DataContent(data)


def test_messages_arrive_in_its_types() -> None:
    made = adapter_of("autogen").messages(
        [
            Message("system", content="Be kind."),
            Message("user", content=[TextContent("What?"), ImageContent(f"data:image/png;base64,{picture()}")]),
            Message("user", content=[TextContent("See "), ImageContent("https://a/b"), _data(a=1)]),
            Message("assistant", "reasoning", "Hm."),
            Message("assistant", content="Let me look.", metadata={"original_name": "friday"}),
            Message("assistant", "plugin_call", [_data(call_id="1", name="look", arguments='{"a": 1}')]),
            Message("assistant", "plugin_call", [_data(call_id="2", name="look", arguments={})]),
            Message("tool", "plugin_call_output", [_data(call_id="1", name="look", output="blue")]),
            Message("tool", "plugin_call_output", [_data(call_id="3", name="look", output=[1])]),
            Message("user", content=[FileContent(file_url="https://a/c", filename="c.pdf")]),
        ]
    )
    assert [(type(message), message.source) for message in made] == [
        (TextMessage, "system"),
        (MultiModalMessage, "user"),
        (TextMessage, "user"),
        (TextMessage, "friday"),
        (ToolCallSummaryMessage, "assistant"),
        (ToolCallSummaryMessage, "assistant"),
        (ToolCallSummaryMessage, "tool"),
        (TextMessage, "user"),
    ]
    assert made[1].content[0] == "What?"
    assert isinstance(made[1].content[1], Image)
    assert made[2].content == 'See [image: https://a/b]{"a": 1}'
    assert made[4].tool_calls == [FunctionCall("1", '{"a": 1}', "look")]
    assert made[4].results == [FunctionExecutionResult(content="blue", name="look", call_id="1")]
    assert made[4].to_model_text() == 'look({"a": 1}): blue'
    assert made[5].to_model_text() == "look({}): This call was stopped before it had a result."
    assert made[6].to_model_text() == "look(): [1]"
    assert made[7].content == "[c.pdf: https://a/c]"


@pytest.mark.parametrize(
    ("part", "text"),
    [(AudioContent("AAAA", "wav"), "no messages with audio"), (ImageContent("AAAA"), "cannot be read")],
)
def test_what_it_has_no_type_for_is_refused(part: Any, text: str) -> None:
    with pytest.raises(ItemError, match=text):
        adapter_of("autogen").messages([Message("user", content=[part])])
    converted = TextMessage(content="a sound", source="user")
    adapter = adapter_of("autogen", {"message": lambda message: converted})
    assert adapter.messages([Message("user", content=[part])]) == [converted]


# What handlers may yield.


def read(*items: object, converters: Any = None) -> list[Any]:
    reader = adapter_of("autogen", converters).reader()
    return [made for item in items for made in reader.read(item)] + [*reader.end()]


class Weather(BaseModel):
    sky: str


class Hologram(BaseAgentEvent):
    def to_text(self) -> str:
        return "cube"


def chunk(text: str, id: str | None = "1") -> ModelClientStreamingChunkEvent:
    return ModelClientStreamingChunkEvent(content=text, source="friday", full_message_id=id)


def result(content: str = "blue") -> FunctionExecutionResult:
    return FunctionExecutionResult(content=content, name="look", call_id="1", is_error=False)


@pytest.mark.parametrize(
    ("item", "kind", "content"),
    [
        (TextMessage(content="hi", source="friday"), "message", "hi"),
        (Response(chat_message=TextMessage(content="hi", source="friday")), "message", "hi"),
        (TaskResult(messages=[TextMessage(content="hi", source="friday")]), "message", "hi"),
        (StopMessage(content="hi", source="friday"), "message", "hi"),
        (
            ToolCallSummaryMessage(content="blue", source="friday", tool_calls=[], results=[result()]),
            "message",
            "blue",
        ),
        (chunk("hi"), "message", "hi"),
        (chunk("hi", None), "message", "hi"),
        (ThoughtEvent(content="hm", source="friday"), "reasoning", "hm"),
        (
            ToolCallRequestEvent(content=[FunctionCall("1", '{"a": 1}', "look")], source="friday"),
            "plugin_call",
            {"call_id": "1", "name": "look", "arguments": '{"a": 1}'},
        ),
        (
            ToolCallExecutionEvent(content=[result()], source="friday"),
            "plugin_call_output",
            {"call_id": "1", "name": "look", "output": "blue"},
        ),
        (
            HandoffMessage(content="Over to you.", source="friday", target="ann"),
            "message",
            {"handoff": "ann", "text": "Over to you."},
        ),
        (StructuredMessage[Weather](content=Weather(sky="blue"), source="friday"), "message", {"sky": "blue"}),
        (
            CodeGenerationEvent(content="1 + 1", source="friday", retry_attempt=0, code_blocks=[]),
            "message",
            "1 + 1",
        ),
        (
            CodeExecutionEvent(result=CodeResult(exit_code=0, output="2"), source="friday", retry_attempt=0),
            "message",
            {"exit_code": 0, "output": "2"},
        ),
        (
            UserInputRequestedEvent(request_id="r", source="person"),
            "message",
            {"input_requested_by": "person", "request_id": "r"},
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_item_becomes_a_message(item: object, kind: str, content: object) -> None:
    made = read(item)[-1]
    message = made[0] if isinstance(made, tuple) else made
    assert message.type == kind
    [part] = message.content
    assert content in [getattr(part, name, None) for name in ("text", "data")]
    assert message.role == ("tool" if kind.endswith("output") else "assistant")


def test_text_and_images() -> None:
    image = Image.from_base64(picture())
    [made] = read(MultiModalMessage(content=["See: ", image], source="friday"))
    text, shown = made.content
    assert (text.text, shown.image_url) == ("See: ", image.data_uri)


def test_what_is_not_sent() -> None:
    answer = TextMessage(content="hi", source="friday")
    given = adapter_of("autogen").messages([Message("assistant", content="before")])
    items = [
        TextMessage(content="me", source="user"),
        *given,
        SelectSpeakerEvent(content=["friday"], source="manager"),
        SelectorEvent(content="friday", source="manager"),
        MemoryQueryEvent(content=[MemoryContent(content="x", mime_type="text/plain")], source="friday"),
    ]
    assert read(*items) == []
    assert [message.text for message in read(answer, answer, TaskResult(messages=[*items, answer]))] == ["hi"]
    assert read("text", Message(content="ours")) == ["text", Message(content="ours")]


def shown(*items: object) -> list[tuple[str, str, bool]]:
    return [
        (message.type, message.text, last)
        for message, last in (made if isinstance(made, tuple) else (made, True) for made in read(*items))
    ]


def test_chunks_are_joined_with_the_message_that_completes_them() -> None:
    end = TextMessage(content="The sky", source="friday", id="1")
    assert shown(chunk("The "), chunk("sky"), end) == [
        ("message", "The ", False),
        ("message", "The sky", False),
        ("message", "The sky", True),
    ]
    # More than was streamed, and something else.
    longer = TextMessage(content="The sky is", source="friday", id="1")
    assert shown(chunk("The "), longer)[1:] == [("message", "The sky is", True)]
    other = TextMessage(content="No.", source="friday", id="1")
    assert shown(chunk("The "), other)[1:] == [("message", "The ", True), ("message", "No.", True)]


def test_reasoning_in_the_text() -> None:
    chunks = [chunk(text) for text in ("<th", "ink>\nH", "m.</", "think>\n", "\nBlue", ".")]
    thought = ThoughtEvent(content="Hm.", source="friday", id="1")
    end = TextMessage(content="Blue.", source="friday", id="2")
    expected = [
        ("reasoning", "H", False),
        ("reasoning", "Hm.", False),
        ("reasoning", "Hm.", False),
        ("reasoning", "Hm.", True),
        ("message", "Blue", False),
        ("message", "Blue.", False),
        ("message", "Blue.", True),
    ]
    assert shown(*chunks, thought, end) == expected


def test_text_beside_a_call_is_no_reasoning() -> None:
    thought = ThoughtEvent(content="Let me look.", source="friday", id="1")
    call = ToolCallRequestEvent(content=[FunctionCall("1", "{}", "look")], source="friday")
    assert [kind for kind, *_ in shown(chunk("Let me look."), thought, call)] == [
        "message",
        "message",
        "plugin_call",
    ]


def test_a_structured_answer_that_was_streamed_is_not_repeated() -> None:
    answer = StructuredMessage[Weather](content=Weather(sky="blue"), source="friday", id="1")
    assert shown(chunk('{"sky":"blue"}'), answer)[1:] == [("message", '{"sky":"blue"}', True)]


def test_what_is_not_known_is_named_unless_it_has_a_converter() -> None:
    event = Hologram(source="friday")
    with pytest.raises(ItemError, match=r"streamed a Hologram.*type_converters"):
        read(event)
    assert read(event, converters={Hologram: lambda event: [event.to_text()]}) == ["cube"]
