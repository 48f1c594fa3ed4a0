"""Agents of the real package, with a scripted model: what they stream, and how they are stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import trio

pytest.importorskip("pydantic_ai", reason="it has an environment of its own: make test-frameworks")

from pydantic import BaseModel
from pydantic_ai import (
    Agent,
    AgentRunResult,
    AgentRunResultEvent,
    CustomEvent,
    DeferredToolRequests,
    RunContext,
    ToolOutput,
)
from pydantic_ai.exceptions import CallDeferred, ModelRetry, RunCancelled
from pydantic_ai.messages import (
    AudioUrl,
    BinaryContent,
    CompactionPart,
    DocumentUrl,
    FilePart,
    FinalResultEvent,
    FunctionToolCallEvent,
    FunctionToolResultEvent,
    ImageUrl,
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    NativeToolCallPart,
    NativeToolReturnPart,
    OutputToolCallEvent,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    RealtimeTurnCompleteEvent,
    SpeechPart,
    SystemPromptPart,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UploadedFile,
    UserPromptPart,
    VideoUrl,
)
from pydantic_ai.models.function import DeltaThinkingPart, DeltaToolCall, FunctionModel
from pydantic_ai.usage import RequestUsage

from trio_agentapp import AgentApp
from trio_agentapp.errors import ItemError
from trio_agentapp.frameworks import adapter_of
from trio_agentapp.protocol.content import (
    AudioContent,
    DataContent,
    FileContent,
    ImageContent,
    TextContent,
    VideoContent,
)
from trio_agentapp.protocol.message import Message

from ..chats import said

ENDED: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_has_ended() -> None:
    ENDED.clear()


@dataclass(kw_only=True)
class Progress(CustomEvent):
    done: float


class City(BaseModel):
    name: str


def model(
    sentence: str = "The sky is blue", *, tool: str = "look", endless: bool = False, fails: bool = False
) -> FunctionModel:
    """Calls its tool, if it has one, and then talks to the end of its sentence, or without end."""

    async def stream(messages: list[ModelMessage], info: Any) -> AsyncIterator[Any]:
        try:
            if tool and not isinstance(messages[-1].parts[0], ToolReturnPart):
                yield "Let me look."
                yield {1: DeltaToolCall(name=tool, json_args='{"wh', tool_call_id="c1")}
                yield {1: DeltaToolCall(json_args='at": "sky"}')}
                return
            if fails:
                raise RuntimeError("the provider is down")
            yield {0: DeltaThinkingPart(content="Hm")}
            yield {0: DeltaThinkingPart(content=".")}
            for word in sentence.split() * (1000 if endless else 1):
                yield f"{word} "
                await asyncio.sleep(0.01)
        finally:
            await asyncio.sleep(0)
            ENDED.append("model")

    return FunctionModel(stream_function=stream)


async def look(ctx: RunContext[None], what: str) -> str:
    """Look at a thing."""
    await ctx.emit(Progress(done=0.5))
    return f"{what}: blue"


async def wait(ctx: RunContext[None], what: str) -> str:
    """Wait for ever."""
    await ctx.emit(Progress(done=0))
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0)
        ENDED.append("tool")
    return what


async def refuse(what: str) -> str:
    """Never take the arguments."""
    raise ModelRetry("Not this one.")


async def defer(what: str) -> str:
    """Run somewhere else."""
    raise CallDeferred


async def events_of(agent: Agent[Any, Any], msgs: Any) -> AsyncIterator[Any]:
    async with agent.run_stream_events(message_history=msgs) as events:
        async for event in events:
            yield event


async def nodes_of(agent: Agent[Any, Any], msgs: Any) -> AsyncIterator[Any]:
    async with agent.iter(message_history=msgs) as run:
        async for node in run:
            yield node


async def streams_of_nodes(agent: Agent[Any, Any], msgs: Any) -> AsyncIterator[Any]:
    async with agent.iter(message_history=msgs) as run:
        async for node in run:
            if Agent.is_model_request_node(node) or Agent.is_call_tools_node(node):
                async with node.stream(run.ctx) as events:
                    async for event in events:
                        yield event
        yield run.result


async def text_of(agent: Agent[Any, Any], msgs: Any, debounce_by: float | None = None) -> AsyncIterator[Any]:
    async with agent.run_stream(message_history=msgs) as result:
        async for text in result.stream_text(delta=True, debounce_by=debounce_by):
            yield text


def app_with(
    tools: list[Callable[..., Any]], *, way: Any = events_of, saved: list[Any] | None = None, **options: Any
) -> AgentApp:
    app = AgentApp()
    output = options.pop("output_type", str)
    agent = Agent(model(**options), tools=tools, output_type=output, instructions="Be kind.")

    @app.query(framework="pydantic-ai")
    async def chat(self: Any, msgs: Any, request: Any, **kwargs: Any) -> AsyncIterator[Any]:
        try:
            async for item in way(agent, msgs):
                yield item
        except asyncio.CancelledError as stopped:
            run = RunCancelled.from_cancellation(stopped)
            if saved is not None and run is not None:
                saved.extend(run.all_messages())
            raise
        finally:
            ENDED.append("handler")

    return app


async def play(app: AgentApp, text: str = "What is above?", **ids: str) -> Any:
    with trio.fail_after(30):
        async with app.stream_query({"input": text, **ids}) as events:
            *_, end = [event async for event in events]
    return end


CALL = ("plugin_call", {"call_id": "c1", "name": "look", "arguments": '{"what":"sky"}'})
OUTPUT = ("plugin_call_output", {"call_id": "c1", "name": "look", "output": "sky: blue"})
PROGRESS = ("message", {"name": "progress", "tool_call_id": "c1", "tool_name": "look", "done": 0.5})
ANSWER = [("reasoning", "Hm."), ("message", "The sky is blue ")]


async def test_text_a_call_its_output_reasoning_and_usage() -> None:
    end = await play(app_with([look]))
    assert end.status == "completed"
    assert said(end) == [("message", "Let me look."), CALL, PROGRESS, OUTPUT, *ANSWER]
    assert end.usage["requests"] == 2
    assert end.usage["tool_calls"] == 1
    assert end.usage["input_tokens"] + end.usage["output_tokens"] == end.usage["total_tokens"] > 0


async def test_text_comes_in_deltas() -> None:
    with trio.fail_after(30):
        async with app_with([], tool="").stream_query("hi") as events:
            deltas = [event.text async for event in events if event.object == "content" and event.delta]
    assert deltas == ["Hm", ".", "The ", "sky ", "is ", "blue "]


async def test_the_events_of_nodes() -> None:
    end = await play(app_with([look], way=streams_of_nodes))
    assert said(end) == [("message", "Let me look."), CALL, PROGRESS, OUTPUT, *ANSWER]
    assert end.usage["requests"] == 2


async def test_whole_nodes() -> None:
    app = AgentApp()

    def answer(messages: list[ModelMessage], info: Any) -> ModelResponse:
        if isinstance(messages[-1].parts[0], ToolReturnPart):
            return ModelResponse([ThinkingPart("Hm."), TextPart("The sky is blue ")])
        return ModelResponse(
            [TextPart("Let me look."), ToolCallPart("look", '{"what": "sky"}', "c1")],
            usage=RequestUsage(input_tokens=3),
        )

    agent = Agent(FunctionModel(answer), tools=[look])

    @app.query(framework="pydantic-ai")
    async def chat(msgs: Any) -> AsyncIterator[Any]:
        async for node in nodes_of(agent, msgs):
            yield node

    end = await play(app)
    assert said(end) == [("message", "Let me look."), CALL, OUTPUT, *ANSWER]
    assert end.usage["input_tokens"] >= 3


async def test_plain_text() -> None:
    assert said(await play(app_with([], way=text_of, tool=""))) == [("message", "The sky is blue ")]


@pytest.mark.parametrize("tool", ["refuse", "unknown"])
async def test_a_call_that_fails_has_an_output(tool: str) -> None:
    end = await play(app_with([refuse], tool=tool))
    (_, data), *_ = [each for each in said(end) if each[0] == "plugin_call_output"]
    assert data["call_id"] == "c1"
    assert "error" in data["output"]
    assert end.status == "completed"


async def test_structured_output() -> None:
    """The call of the output tool is no call to the client."""
    app = AgentApp()

    async def stream(messages: list[ModelMessage], info: Any) -> AsyncIterator[Any]:
        name = "5" if len(messages) == 1 else '"Rome"'  # the first one is refused
        yield {0: DeltaToolCall(name=info.output_tools[0].name, json_args=f'{{"name": {name}}}')}

    agent = Agent(FunctionModel(stream_function=stream), output_type=City)

    @app.query(framework="pydantic-ai")
    async def chat(msgs: Any) -> AsyncIterator[Any]:
        async for event in events_of(agent, msgs):
            yield event

    assert said(await play(app)) == [("message", {"name": "Rome"})]


async def test_text_that_an_output_function_makes() -> None:
    def shout(text: str) -> str:
        return text.upper()

    app = AgentApp()

    async def stream(messages: list[ModelMessage], info: Any) -> AsyncIterator[Any]:
        yield {0: DeltaToolCall(name=info.output_tools[0].name, json_args='{"text": "hi"}')}

    agent = Agent(FunctionModel(stream_function=stream), output_type=ToolOutput(shout))

    @app.query(framework="pydantic-ai")
    async def chat(msgs: Any) -> AsyncIterator[Any]:
        async for event in events_of(agent, msgs):
            yield event

    assert said(await play(app)) == [("message", "HI")]


async def test_deferred_calls_are_named() -> None:
    end = await play(app_with([defer], tool="defer", output_type=[str, DeferredToolRequests]))
    call = {"call_id": "c1", "name": "defer", "arguments": '{"what":"sky"}'}
    assert said(end)[1:] == [
        ("plugin_call", call),
        ("message", {"deferred_tool_requests": {"approvals": [], "calls": [call]}}),
    ]
    assert end.status == "completed"


# Stops.


async def stop_at(app: AgentApp, shown: str) -> Any:
    """A chat that is stopped when it has shown something."""
    stopped = False
    with trio.fail_after(30):
        async with app.runtime():
            async with app.stream_query({"input": "hi", "user_id": "u", "session_id": "s"}) as events:
                async for event in events:
                    text = getattr(event, "text", "") or str(getattr(event, "data", ""))
                    if not stopped and shown in text:
                        stopped = True
                        await app.stop_chat("u", "s")
            assert not await app.bridge.run(_tasks_left)
    return event


async def _tasks_left() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()}]


@pytest.mark.parametrize("way", [events_of, streams_of_nodes])
@pytest.mark.parametrize("at", ["The ", "sky "])
async def test_a_stop_while_the_model_talks(at: str, way: Any) -> None:
    saved: list[Any] = []
    end = await stop_at(app_with([], tool="", endless=True, saved=saved, way=way), at)
    assert end.status == "canceled"
    # The run had ended when the handler went on, and has kept the partial answer.
    assert ENDED == ["model", "handler"]
    question, answer = saved
    assert question.parts[0].content == "hi"
    assert answer.parts[1].content.startswith("The ")


@pytest.mark.parametrize("debounce_by", [None, 0.02])
async def test_a_stop_of_plain_text(debounce_by: float | None) -> None:
    way = partial(text_of, debounce_by=debounce_by)
    end = await stop_at(app_with([], tool="", endless=True, way=way), "sky ")
    assert end.status == "canceled"
    assert ENDED == ["model", "handler"]


@pytest.mark.parametrize("way", [events_of, streams_of_nodes])
async def test_a_stop_in_a_tool_ends_the_tool_and_closes_its_call(way: Any) -> None:
    saved: list[Any] = []
    end = await stop_at(app_with([wait], tool="wait", saved=saved, way=way), "progress")
    assert end.status == "canceled"
    assert ENDED == ["model", "tool", "handler"]
    kinds = [message.type for message in end.output]
    assert kinds == ["message", "plugin_call", "message", "plugin_call_output"]
    # A strict provider takes this as the beginning of the next turn.
    history = adapter_of("pydantic-ai").messages([Message("user", content="hi"), *_messages(end.output)])
    assert [type(message) for message in history] == [ModelRequest, ModelResponse, ModelRequest]
    assert history[1].parts[1].tool_call_id == history[2].parts[0].tool_call_id == "c1"
    assert [type(message) for message in saved[:2]] == [ModelRequest, ModelResponse]


def _messages(output: Any) -> list[Message]:
    """The messages of a response, as a client sends them back, without what the tool has shown."""
    return [
        Message(
            each.role,
            each.type,
            [DataContent(part.data) if part.type == "data" else TextContent(part.text) for part in each.content],
        )
        for each in output
        if "progress" not in str(each.content)
    ]


async def test_a_model_that_fails() -> None:
    end = await play(app_with([look], fails=True))
    assert (end.status, end.error.code) == ("failed", "exception")
    assert said(end) == [("message", "Let me look."), CALL, PROGRESS, OUTPUT]


async def test_two_users_at_once() -> None:
    app = app_with([look])
    ends = {}

    async def chat(user: str) -> None:
        ends[user] = await play(app, user_id=user, session_id="s")

    async with app.runtime(), trio.open_nursery() as nursery:
        for user in ("ann", "bob"):
            nursery.start_soon(chat, user)
    assert said(ends["ann"]) == said(ends["bob"])
    assert len(said(ends["ann"])) == 6


@pytest.mark.parametrize("way", [events_of, streams_of_nodes])
async def test_fifty_chats_stopped_at_once(way: Any) -> None:
    app = app_with([], tool="", endless=True, way=way)
    begun = 0
    ends: list[str] = []
    all_talk = trio.Event()

    async def chat(number: int) -> None:
        nonlocal begun
        async with app.stream_query({"input": "hi", "user_id": "u", "session_id": str(number)}) as events:
            async for event in events:
                if getattr(event, "text", "") == "The " and event.delta:
                    begun += 1
                    if begun >= 50:
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
            assert not await app.bridge.run(_tasks_left)
    assert ends == ["canceled"] * 50
    assert ENDED.count("handler") == ENDED.count("model") == 50


# Messages in.


def made_of(*messages: Message, **converters: Any) -> list[Any]:
    return adapter_of("pydantic-ai", converters).messages(messages)


def _data(**data: Any) -> Any:
    return DataContent(data)


def test_messages_arrive_in_its_types() -> None:
    made = made_of(
        Message("system", content="Be kind."),
        Message("user", content="What?"),
        Message("assistant", "reasoning", "Hm."),
        Message("assistant", content="Let me look."),
        Message("assistant", "plugin_call", [_data(call_id="1", name="look", arguments='{"a": 1}')]),
        Message("assistant", "plugin_call", [_data(call_id="2", name="look", arguments="not JSON")]),
        Message("tool", "plugin_call_output", [_data(call_id="1", output="blue")]),
        Message("tool", "plugin_call_output", [_data(call_id="2", name="look", output=[1])]),
        Message("user", content=[_data(a=1)]),
    )
    assert [[type(part) for part in message.parts] for message in made] == [
        [SystemPromptPart, UserPromptPart],
        [ThinkingPart, TextPart, ToolCallPart, ToolCallPart],
        [ToolReturnPart, ToolReturnPart, UserPromptPart],
    ]
    assert [(part.tool_call_id, part.args) for part in made[1].parts[2:]] == [("1", {"a": 1}), ("2", {})]
    assert [(part.tool_call_id, part.tool_name, part.content) for part in made[2].parts[:2]] == [
        ("1", "look", "blue"),
        ("2", "look", [1]),
    ]
    assert made[2].parts[2].content == '{"a": 1}'
    # They can be stored.
    assert ModelMessagesTypeAdapter.validate_json(ModelMessagesTypeAdapter.dump_json(made))


@pytest.mark.parametrize(
    ("content", "cls", "value"),
    [
        (ImageContent("https://a/b"), ImageUrl, "https://a/b"),
        (ImageContent("data:image/gif;base64,AAEC"), BinaryContent, ("image/gif", b"\0\1\2")),
        (FileContent(file_url="data:text/plain,hi%20you"), BinaryContent, ("text/plain", b"hi you")),
        (VideoContent("https://a/b"), VideoUrl, "https://a/b"),
        (AudioContent("AAEC", "mp3"), BinaryContent, ("audio/mp3", b"\0\1\2")),
        (AudioContent("https://a/b"), AudioUrl, "https://a/b"),
        (FileContent(file_url="https://a/b"), DocumentUrl, "https://a/b"),
        (FileContent(file_data="AAEC", filename="a.pdf"), BinaryContent, ("application/pdf", b"\0\1\2")),
    ],
    ids=str,
)
def test_media_arrive_in_its_types(content: Any, cls: type, value: Any) -> None:
    [request] = made_of(Message("user", content=[TextContent("See:"), content]))
    text, file = request.parts[0].content
    assert text == "See:"
    assert isinstance(file, cls)
    assert ((file.media_type, file.data) if cls is BinaryContent else file.url) == value
    call = Message("assistant", "plugin_call", [_data(call_id="1", name="draw", arguments="{}")])
    output = Message("tool", "plugin_call_output", [_data(call_id="1", output="done"), content])
    assert made_of(call, output)[1].parts[0].content == ["done", file]


def test_media_of_the_assistant() -> None:
    [response] = made_of(
        Message("assistant", content=[ImageContent("data:image/gif;base64,AAEC"), ImageContent("https://a/b")])
    )
    assert [type(part) for part in response.parts] == [FilePart, TextPart]


def test_a_call_without_an_output_gets_one() -> None:
    """Or the run would begin with this call, which nobody but the client may have made."""
    call = Message("assistant", "plugin_call", [_data(call_id="1", name="delete", arguments="{}")])
    response, request = made_of(call)
    assert response.parts[0].tool_call_id == request.parts[0].tool_call_id == "1"
    assert "stopped" in request.parts[0].content


def test_a_call_that_is_shown_twice_is_one_call() -> None:
    call = Message("assistant", "plugin_call", [_data(call_id="1", name="pay", arguments="{}")])
    output = Message("tool", "plugin_call_output", [_data(call_id="1", output="paid")])
    assert [len(message.parts) for message in made_of(call, call, output)] == [1, 1]


@pytest.mark.parametrize("content", [FileContent(file_id="f1"), ImageContent("AAA")])
def test_files_that_cannot_be_converted(content: Any) -> None:
    with pytest.raises(ItemError, match="content"):
        made_of(Message("user", content=[content]))


def test_a_converter_makes_the_message() -> None:
    mine = ModelRequest([UserPromptPart("mine")])
    assert made_of(Message("user", "note", "x"), note=lambda message: mine)[0].parts == mine.parts


# What handlers may yield.


def read(*items: object, converters: Any = None) -> list[Any]:
    reader = adapter_of("pydantic-ai", converters).reader()
    return [made for item in items for made in reader.read(item)] + [*reader.end()]


def start(part: Any, index: int = 0) -> PartStartEvent:
    return PartStartEvent(index=index, part=part)


def whole(part: Any, index: int = 0) -> tuple[Any, ...]:
    return (start(part, index), PartEndEvent(index=index, part=part))


PICTURE = BinaryContent(b"\0", media_type="image/png")
SOUND = BinaryContent(b"\0", media_type="audio/wav")
PDF = BinaryContent(b"\0", media_type="application/pdf")


@pytest.mark.parametrize(
    ("items", "kind", "content"),
    [
        (whole(TextPart("hi")), "message", "hi"),
        (whole(ThinkingPart("hm")), "reasoning", "hm"),
        ((start(TextPart("hi")),), "message", "hi"),
        (
            whole(ToolCallPart("look", {"a": 1}, "1")),
            "plugin_call",
            {"call_id": "1", "name": "look", "arguments": '{"a":1}'},
        ),
        (
            (FunctionToolCallEvent(ToolCallPart("look", "{}", "1")),),
            "plugin_call",
            {"call_id": "1", "name": "look", "arguments": "{}"},
        ),
        (
            (FunctionToolResultEvent(ToolReturnPart("look", {"a": 1}, "1")),),
            "plugin_call_output",
            {"call_id": "1", "name": "look", "output": '{"a":1}'},
        ),
        (
            whole(NativeToolCallPart("web_search", {"q": "x"}, "1")),
            "plugin_call",
            {"call_id": "1", "name": "web_search", "arguments": '{"q":"x"}'},
        ),
        (
            whole(NativeToolReturnPart("web_search", "found", "1")),
            "plugin_call_output",
            {"call_id": "1", "name": "web_search", "output": "found"},
        ),
        (whole(FilePart(PICTURE)), "message", "data:image/png;base64,AA=="),
        (whole(FilePart(SOUND)), "message", "AA=="),
        (whole(FilePart(PDF)), "message", "AA=="),
        ((AgentRunResult("hi"),), "message", "hi"),
        ((AgentRunResultEvent(AgentRunResult(City(name="Rome"))),), "message", {"name": "Rome"}),
        ((AgentRunResult([1, 2]),), "message", [1, 2]),
        ((AgentRunResult(PICTURE),), "message", "data:image/png;base64,AA=="),
        (
            (
                AgentRunResult(
                    DeferredToolRequests(approvals=[ToolCallPart("pay", "{}", "1")], metadata={"1": {"eur": 5}})
                ),
            ),
            "message",
            {
                "deferred_tool_requests": {
                    "approvals": [{"call_id": "1", "name": "pay", "arguments": "{}", "metadata": {"eur": 5}}],
                    "calls": [],
                }
            },
        ),
        ((ModelResponse([TextPart("hi")]),), "message", "hi"),
        (
            (ModelRequest([UserPromptPart("hi"), ToolReturnPart("look", "blue", "1")]),),
            "plugin_call_output",
            {"call_id": "1", "name": "look", "output": "blue"},
        ),
    ],
    ids=str,
)
def test_each_item_becomes_a_message(items: Any, kind: str, content: object) -> None:
    made = read(*items)[-1]
    message = made[0] if isinstance(made, tuple) else made
    assert message.type == kind
    [part] = message.content
    values = ("text", "data", "image_url", "video_url", "file_url", "file_data")
    assert content in [getattr(part, name, None) for name in values]


def test_files_that_a_tool_returns_are_in_its_output() -> None:
    [output] = read(
        FunctionToolResultEvent(
            ToolReturnPart("draw", ["done", PICTURE, ImageUrl("https://a/b"), UploadedFile("f1", "openai")], "1")
        )
    )
    assert output.content == [
        DataContent({"call_id": "1", "name": "draw", "output": "done"}),
        ImageContent("data:image/png;base64,AA=="),
        ImageContent("https://a/b"),
        FileContent(file_id="f1"),
    ]


def test_an_answer_that_was_streamed_is_not_repeated() -> None:
    assert len(read(*whole(TextPart("hi ")), AgentRunResult("hi"))) == 2  # it grows, and is complete
    assert len(read(*whole(FilePart(PICTURE)), AgentRunResult(PICTURE))) == 1
    assert read(AgentRunResult(None)) == []


def test_parts_that_grow_side_by_side_stay_apart() -> None:
    first, second = TextPart("a"), TextPart("b")
    more = [PartDeltaEvent(index=index, delta=TextPartDelta(text)) for index, text in ((0, "c"), (1, "d"))]
    made = read(start(first), start(second, 1), *more)
    assert [(message.text, last) for message, last in made[-2:]] == [("ac", True), ("bd", True)]
    assert len({message.id for message, _ in made}) == 2


def test_a_part_that_is_replaced_is_complete() -> None:
    made = read(start(TextPart("a")), start(TextPart("b")))
    assert [(message.text, last) for message, last in made] == [
        ("a", False),
        ("a", True),
        ("b", False),
        ("b", True),
    ]


@pytest.mark.parametrize(
    "item",
    [
        FinalResultEvent(tool_name=None, tool_call_id=None),
        OutputToolCallEvent(ToolCallPart("final_result", "{}", "1")),
        whole(CompactionPart("all of it")),
    ],
    ids=str,
)
def test_what_says_nothing_is_not_sent(item: Any) -> None:
    assert read(*(item if isinstance(item, tuple) else [item])) == []


def test_what_is_of_no_framework_stays_as_it_is() -> None:
    pair = (Message(content="hi"), True)
    items = ["text", TextContent("hi"), Message(content="hi"), pair]
    assert read(*items) == items


@pytest.mark.parametrize(
    ("items", "name"),
    [
        ((RealtimeTurnCompleteEvent(),), "RealtimeTurnCompleteEvent"),
        (whole(SpeechPart(speaker="assistant")), "SpeechPart"),
        ((UserPromptPart("hi"),), "UserPromptPart"),
        ((Agent("test"),), "Agent"),
    ],
    ids=str,
)
def test_what_is_not_known_is_named(items: Any, name: str) -> None:
    with pytest.raises(ItemError, match=f"a {name}, .*type_converters="):
        read(*items)


def test_converters_come_first() -> None:
    speech = SpeechPart(speaker="assistant", transcript="hi")
    assert read(*whole(speech), converters={SpeechPart: lambda part: [part.transcript]}) == ["hi"]
    assert read(*whole(TextPart("hi")), converters={TextPart: lambda part: [part.content.upper()]}) == ["HI"]
    assert read(Progress(done=1), converters={Progress: lambda event: [f"{event.done}"]}) == ["1"]
    assert read(AgentRunResult(City(name="Rome")), converters={City: lambda city: [city.name]}) == ["Rome"]
