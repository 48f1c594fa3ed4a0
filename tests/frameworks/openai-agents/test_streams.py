"""Agents of the real package, with a scripted model: what they stream, and how they are stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio

pytest.importorskip("agents.items", reason="it has an environment of its own: make test-frameworks")

from agents import (
    Agent,
    AgentUpdatedStreamEvent,
    GuardrailFunctionOutput,
    RawResponsesStreamEvent,
    RunItemStreamEvent,
    Runner,
    function_tool,
    input_guardrail,
    set_tracing_disabled,
)
from agents.items import CompactionItem, InputItem, ToolApprovalItem, ToolCallItem, ToolCallOutputItem
from agents.models.interface import Model
from openai.types import responses as r
from openai.types.responses.response_output_item import (
    ImageGenerationCall,
    McpApprovalRequest,
    McpCall,
    McpListTools,
)
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails
from pydantic import TypeAdapter

from trio_agentapp import AgentApp
from trio_agentapp.errors import ItemError
from trio_agentapp.frameworks import adapter_of
from trio_agentapp.protocol.content import (
    AudioContent,
    DataContent,
    FileContent,
    ImageContent,
    RefusalContent,
    TextContent,
    VideoContent,
)
from trio_agentapp.protocol.message import Message

from ..chats import said, sent_back

set_tracing_disabled(True)

ENDED: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_has_ended() -> None:
    ENDED.clear()


USAGE = r.ResponseUsage(
    input_tokens=3,
    output_tokens=4,
    total_tokens=7,
    input_tokens_details=InputTokensDetails(cached_tokens=1, cache_write_tokens=0),
    output_tokens_details=OutputTokensDetails(reasoning_tokens=2),
)
EVENT: TypeAdapter[Any] = TypeAdapter(r.ResponseStreamEvent)


def event(kind: str, **fields: Any) -> Any:
    return EVENT.validate_python({"type": f"response.{kind}", "sequence_number": 0, **fields})


def completed(*items: Any) -> Any:
    response = r.Response(
        id="resp",
        created_at=0,
        model="scripted",
        object="response",
        output=[*items],
        parallel_tool_calls=False,
        tool_choice="auto",
        tools=[],
        usage=USAGE,
    )
    return event("completed", response=response)


def message(text: str, id: str = "m1") -> Any:
    part = {"type": "output_text", "text": text, "annotations": []}
    return r.ResponseOutputMessage(id=id, type="message", role="assistant", status="completed", content=[part])


def call(name: str, arguments: str = '{"what": "sky"}', id: str = "c1") -> Any:
    return r.ResponseFunctionToolCall(
        type="function_call", id=f"fc-{id}", call_id=id, name=name, arguments=arguments
    )


def reasoning(text: str) -> Any:
    summary = [{"type": "summary_text", "text": text}]
    return r.ResponseReasoningItem(id="rs1", type="reasoning", summary=summary)


def text_delta(text: str, id: str = "m1", place: int = 0) -> Any:
    where = {"item_id": id, "output_index": place, "content_index": 0}
    return event("output_text.delta", delta=text, logprobs=[], **where)


def done(item: Any, place: int = 0) -> Any:
    return event("output_item.done", item=item, output_index=place)


class Scripted(Model):
    """Calls its tool, if it has one, and then talks to the end of its sentence, or without end."""

    def __init__(
        self,
        *,
        tool: str = "",
        arguments: str = '{"what": "sky"}',
        endless: bool = False,
        fails: bool = False,
        pause: float = 0.01,
    ) -> None:
        self.sentence, self.pause = "The sky is blue ", pause
        self.tool, self.arguments, self.endless, self.fails = tool, arguments, endless, fails

    async def get_response(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError

    async def stream_response(self, instructions: Any, input: Any, *args: Any, **options: Any) -> Any:
        try:
            if self.tool and input[-1].get("type") != "function_call_output":
                async for each in self._call():
                    yield each
                return
            thought, words = "Hm.", self.sentence.split(" ")[:-1]
            where = {"item_id": "rs1", "output_index": 0, "summary_index": 0}
            yield event("reasoning_summary_text.delta", delta=thought, **where)
            yield done(reasoning(thought))
            for word in words * (1000 if self.endless else 1):
                yield text_delta(f"{word} ", "m2", 1)
                await asyncio.sleep(self.pause)
            if self.fails:
                raise RuntimeError("the provider is down")
            yield done(message(self.sentence, "m2"), 1)
            yield completed(reasoning(thought), message(self.sentence, "m2"))
        finally:
            await asyncio.sleep(0)
            ENDED.append("model")

    async def _call(self) -> AsyncIterator[Any]:
        yield text_delta("Let me ")
        yield text_delta("look.")
        yield done(message("Let me look."))
        yield event("function_call_arguments.delta", delta="{", item_id="fc-c1", output_index=1)
        yield done(call(self.tool, self.arguments), 1)
        yield completed(message("Let me look."), call(self.tool, self.arguments))


@function_tool
async def look(what: str) -> str:
    """Look at a thing."""
    return f"{what}: blue"


@function_tool
async def wait(what: str) -> str:
    """Wait for ever."""
    WAITS.set()
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0.01)
        ENDED.append("tool")
    return what


class Waits:
    """Set in the loop's thread, awaited in Trio's."""

    def __init__(self) -> None:
        self.event = trio.Event()
        self.token: Any = None

    def set(self) -> None:
        self.token.run_sync_soon(self.event.set)


WAITS = Waits()


def app_with(
    model: Model, tools: Any = (), *, keep: Callable[[Any], bool] = lambda _: True, saved: Any = None
) -> AgentApp:
    app = AgentApp()
    agent = Agent(name="painter", model=model, tools=[*tools])

    @app.query(framework="openai-agents")
    async def chat(msgs: Any) -> AsyncIterator[Any]:
        result = Runner.run_streamed(agent, input=msgs)
        try:
            async for each in result.stream_events():
                if keep(each):
                    yield each
        finally:
            ENDED.append("handler")
            if saved is not None:
                saved.extend(result.to_input_list())

    return app


async def play(app: AgentApp, text: str = "What is above?", **ids: str) -> Any:
    with trio.fail_after(30):
        async with app.stream_query({"input": text, **ids}) as events:
            *_, end = [each async for each in events]
    return end


CALL = ("plugin_call", {"call_id": "c1", "name": "look", "arguments": '{"what": "sky"}'})
OUTPUT = ("plugin_call_output", {"call_id": "c1", "name": "look", "output": "sky: blue"})
WHOLE = [("message", "Let me look."), CALL, OUTPUT, ("reasoning", "Hm."), ("message", "The sky is blue ")]


async def test_text_a_call_its_output_reasoning_and_usage() -> None:
    end = await play(app_with(Scripted(tool="look"), [look]))
    assert end.status == "completed"
    assert said(end) == WHOLE
    assert end.usage == {
        "input_tokens": 6,
        "output_tokens": 8,
        "total_tokens": 14,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 4},
    }
    assert end.output[0].metadata == {"original_id": "m1", "original_name": "painter"}


@pytest.mark.parametrize("kept", [RunItemStreamEvent, RawResponsesStreamEvent])
async def test_a_handler_may_yield_one_kind_of_events(kept: Any) -> None:
    end = await play(app_with(Scripted(tool="look"), [look], keep=lambda each: isinstance(each, kept)))
    # Only run items have the outputs of tools.
    assert said(end) == [each for each in WHOLE if each != OUTPUT or kept is RunItemStreamEvent]


async def test_text_comes_in_deltas() -> None:
    with trio.fail_after(30):
        async with app_with(Scripted()).stream_query("hi") as events:
            deltas = [each.text async for each in events if each.object == "content" and each.delta]
    assert deltas == ["Hm.", "The ", "sky ", "is ", "blue "]


@pytest.mark.parametrize("at", ["The ", "sky ", "Hm."])
async def test_a_stop_while_the_model_talks(at: str) -> None:
    saved: list[Any] = []
    app = app_with(Scripted(endless=True), saved=saved)
    with trio.fail_after(30):
        async with app.runtime():
            async with app.stream_query({"input": "hi", "user_id": "u", "session_id": "s"}) as events:
                async for each in events:
                    if getattr(each, "text", "") == at and each.delta:
                        await app.stop_chat("u", "s")
            # The agent had ended when the handler saved.
            assert ENDED == ["model", "handler"]
            assert saved == [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]
    assert each.status == "canceled"


async def test_a_stop_while_the_handler_is_behind(caplog: pytest.LogCaptureFixture) -> None:
    """It is at a `yield`. The stream ends before it goes on."""
    app, closed = AgentApp(), False
    agent = Agent(name="painter", model=Scripted(endless=True, pause=0))

    @app.query(framework="openai-agents")
    async def chat(msgs: Any) -> AsyncIterator[Any]:
        nonlocal closed
        events = Runner.run_streamed(agent, input=msgs).stream_events()
        try:
            async for each in events:
                yield each
        finally:
            closed = events.ag_frame is None

    with trio.fail_after(30):
        async with app.runtime():
            async with app.stream_query({"input": "hi", "user_id": "u", "session_id": "s"}) as events:
                async for each in events:
                    if getattr(each, "text", "") == "The " and each.delta:
                        await app.stop_chat("u", "s")
    assert (each.status, closed, caplog.messages) == ("canceled", True, [])


async def test_a_stop_with_the_last_token() -> None:
    """The run is over, or nearly so: it ends in one of both ways, and nothing is left."""
    app = app_with(Scripted())
    with trio.fail_after(30):
        async with app.runtime():
            async with app.stream_query({"input": "hi", "user_id": "u", "session_id": "s"}) as events:
                async for each in events:
                    if getattr(each, "text", "") == "blue " and each.delta:
                        await app.stop_chat("u", "s")
    assert each.status in ("canceled", "completed")
    assert sorted(ENDED) == ["handler", "model"]


async def test_a_handler_keeps_the_partial_answer() -> None:
    """As the manual says."""
    app, saved = AgentApp(), []
    agent = Agent(name="painter", model=Scripted(endless=True))

    @app.query(framework="openai-agents")
    async def chat(msgs: Any) -> AsyncIterator[Any]:
        result, text = Runner.run_streamed(agent, input=msgs), ""
        try:
            async for each in result.stream_events():
                if each.type == "raw_response_event" and each.data.type == "response.output_text.delta":
                    text += each.data.delta
                yield each
        except asyncio.CancelledError:
            saved.extend([*result.to_input_list(), {"role": "assistant", "content": text}])
            raise

    with trio.fail_after(30):
        async with app.stream_query({"input": "hi", "user_id": "u", "session_id": "s"}) as events:
            async for each in events:
                if getattr(each, "text", "") == "sky " and each.delta:
                    await app.stop_chat("u", "s")
    assert saved[0]["role"] == "user"
    assert saved[1]["content"].startswith("The sky ")


@pytest.mark.parametrize("nested", [False, True], ids=["tool", "agent as a tool"])
async def test_a_stop_in_a_tool_ends_the_tool_and_closes_its_call(
    nested: bool, caplog: pytest.LogCaptureFixture
) -> None:
    WAITS.event, WAITS.token = trio.Event(), trio.lowlevel.current_trio_token()
    app = app_with(Scripted(tool="wait"), [wait])
    if nested:
        inner = Agent(name="inner", model=Scripted(tool="wait"), tools=[wait])
        asked = inner.as_tool("ask", "Ask another agent.", on_stream=lambda _: None)
        app = app_with(Scripted(tool="ask", arguments='{"input": "sky"}'), [asked])
    with trio.fail_after(30):
        async with app.runtime(), app.stream_query({"input": "hi", "user_id": "u", "session_id": "s"}) as events:
            async for end in events:
                # The tool may begin before the client sees its call.
                if getattr(end, "type", "") == "plugin_call" and end.status == "completed":
                    await WAITS.event.wait()
                    await app.stop_chat("u", "s")
    assert end.status == "canceled"
    assert [*["model"] * (1 + nested), "tool", "handler"] == ENDED
    assert [each.type for each in end.output] == ["message", "plugin_call", "plugin_call_output"]
    assert not caplog.records
    # A strict provider takes this as the beginning of the next turn.
    history = adapter_of("openai-agents").messages(sent_back(end.output))
    assert [each.get("type") for each in history] == [None, "function_call", "function_call_output"]
    assert history[1]["call_id"] == history[2]["call_id"] == "c1"


async def test_a_model_that_fails() -> None:
    end = await play(app_with(Scripted(tool="look", fails=True), [look]))
    assert (end.status, end.error.code) == ("failed", "exception")
    assert said(end) == WHOLE


async def test_a_guardrail_and_too_many_turns_fail_the_run() -> None:
    @input_guardrail
    async def never(*args: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(None, tripwire_triggered=True)

    app = AgentApp()

    @app.query(framework="openai-agents")
    async def chat(msgs: Any, request: Any) -> AsyncIterator[Any]:
        guards = [never] if request.session_id == "guarded" else []
        agent = Agent(name="a", model=Scripted(tool="look"), tools=[look], input_guardrails=guards)
        try:
            async for each in Runner.run_streamed(agent, input=msgs, max_turns=1).stream_events():
                yield each
        except Exception as error:
            ENDED.append(type(error).__name__)
            raise

    async with app.runtime():
        for session in ("guarded", "long"):
            end = await play(app, session_id=session)
            assert (end.status, end.error.code) == ("failed", "exception")
    names = [name for name in ENDED if name != "model"]
    assert names == ["InputGuardrailTripwireTriggered", "MaxTurnsExceeded"]


async def test_two_users_at_once() -> None:
    app = app_with(Scripted(tool="look"), [look])
    ends = {}

    async def chat(user: str) -> None:
        ends[user] = await play(app, user_id=user, session_id="s")

    async with app.runtime(), trio.open_nursery() as nursery:
        for user in ("ann", "bob"):
            nursery.start_soon(chat, user)
    assert said(ends["ann"]) == said(ends["bob"]) == WHOLE


async def test_fifty_chats_stopped_at_once(caplog: pytest.LogCaptureFixture) -> None:
    app = app_with(Scripted(endless=True))
    begun = 0
    ends: list[str] = []
    all_talk = trio.Event()

    async def chat(number: int) -> None:
        nonlocal begun
        async with app.stream_query({"input": "hi", "user_id": "u", "session_id": str(number)}) as events:
            async for each in events:
                if getattr(each, "text", "") == "The " and each.delta and begun < 50:
                    begun += 1
                    if begun == 50:
                        all_talk.set()
        ends.append(each.status)

    with trio.fail_after(60):
        async with app.runtime(), trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(chat, number)
            await all_talk.wait()
            for number in range(50):
                nursery.start_soon(app.stop_chat, "u", str(number))
    assert ends == ["canceled"] * 50
    assert ENDED.count("handler") == ENDED.count("model") == 50
    assert not caplog.records


# Messages in.


def test_messages_arrive_in_its_types() -> None:
    made = adapter_of("openai-agents").messages(
        [
            Message("system", content="Be kind."),
            Message(
                "user",
                content=[
                    TextContent("What?"),
                    ImageContent("https://a/b"),
                    ImageContent("AA=="),
                    AudioContent("AA==", "mp3"),
                    FileContent(file_data="AA==", filename="a.pdf"),
                    FileContent(file_id="file-1"),
                    DataContent({"a": 1}),
                ],
            ),
            Message("assistant", "reasoning", "Hm."),
            Message("assistant", content=[TextContent("Look."), RefusalContent("No."), ImageContent("AA==")]),
            Message("assistant", "plugin_call", [_data(call_id="1", name="look", arguments='{"a": 1}')]),
            Message("assistant", "mcp_call", [_data(call_id="2", name="look", arguments={"a": 1})]),
            Message("tool", "plugin_call_output", [_data(call_id="1", name="look", output="blue")]),
            Message("tool", "mcp_call_output", [_data(call_id="2", name="look", output=[1])]),
            Message("user", "mcp_approval_response", [_data(approval_request_id="3", approve=True)]),
        ]
    )
    octets = "data:application/octet-stream;base64,AA=="
    assert made == [
        {"role": "system", "content": "Be kind."},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What?"},
                {"type": "input_image", "image_url": "https://a/b", "detail": "auto"},
                {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "auto"},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "mp3"}},
                {"type": "input_file", "file_data": octets, "filename": "a.pdf"},
                {"type": "input_file", "file_id": "file-1"},
                {"type": "input_text", "text": '{"a": 1}'},
            ],
        },
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {"role": "assistant", "content": "Look.No."},
        {"type": "function_call", "call_id": "1", "name": "look", "arguments": '{"a": 1}'},
        {"type": "function_call", "call_id": "2", "name": "look", "arguments": '{"a": 1}'},
        {"type": "function_call_output", "call_id": "1", "output": "blue"},
        {"type": "function_call_output", "call_id": "2", "output": "[1]"},
        {"type": "mcp_approval_response", "approval_request_id": "3", "approve": True},
    ]


def test_video_needs_a_converter() -> None:
    video = Message("user", content=[VideoContent("https://a/b")])
    with pytest.raises(ItemError, match="type_converters"):
        adapter_of("openai-agents").messages([video])
    adapter = adapter_of("openai-agents", {"message": lambda message: message.role})
    assert adapter.messages([video]) == ["user"]


def _data(**data: Any) -> Any:
    return DataContent(data)


# What handlers may yield.


def read(*items: object, converters: Any = None) -> list[Any]:
    reader = adapter_of("openai-agents", converters or {}).reader()
    return [made for item in items for made in reader.read(item)] + [*reader.end()]


AGENT = Agent(name="a")


def both(item: Any) -> list[Any]:
    """A finished item as the raw event and the run item show it."""
    return [RawResponsesStreamEvent(done(item)), RunItemStreamEvent("tool_called", ToolCallItem(AGENT, item))]


def output(**raw: Any) -> Any:
    return RunItemStreamEvent("tool_output", ToolCallOutputItem(AGENT, raw, "what the tool returned"))


def item_of(kind: str, **fields: Any) -> Any:
    return TypeAdapter(r.ResponseOutputItem).validate_python({"type": kind, "status": "completed", **fields})


def call_data(id: str, name: str, arguments: str) -> Any:
    return ("plugin_call", {"call_id": id, "name": name, "arguments": arguments})


def output_data(id: str, name: str | None, output: str) -> Any:
    return ("plugin_call_output", {"call_id": id, "name": name, "output": output})


REFUSAL = r.ResponseOutputMessage(
    id="m1",
    type="message",
    role="assistant",
    status="completed",
    content=[{"type": "refusal", "refusal": "No."}],
)
SHELL = {"commands": ["ls"]}
TYPED = {"type": "type", "text": "a"}
EXEC = {"type": "exec", "command": [], "env": {}}
APPROVAL = McpApprovalRequest(id="t", type="mcp_approval_request", server_label="l", name="look", arguments="{}")
PATCH = {"type": "delete_file", "path": "a"}
ROWS: list[tuple[list[Any], list[Any]]] = [
    (both(message("hi")), [("message", "hi")]),
    (both(REFUSAL), [("message", "No.")]),
    (both(reasoning("hm")), [("reasoning", "hm")]),
    (both(call("look")), [CALL]),
    (
        [*both(call("look")), output(type="function_call_output", call_id="c1", output="blue")],
        [CALL, output_data("c1", "look", "blue")],
    ),
    (
        [output(type="function_call_output", call_id="c1", output=[{"type": "input_text", "text": "x"}])],
        [output_data("c1", None, '[{"type": "input_text", "text": "x"}]')],
    ),
    (
        both(item_of("custom_tool_call", call_id="1", name="grep", input="x")),
        [call_data("1", "grep", '{"input": "x"}')],
    ),
    (
        [
            *both(item_of("shell_call", id="s", call_id="1", action=SHELL)),
            output(type="shell_call_output", call_id="1", output=[{"stdout": "x"}]),
        ],
        [
            call_data("1", "shell", '{"action": {"commands": ["ls"]}}'),
            output_data("1", "shell", '[{"stdout": "x"}]'),
        ],
    ),
    (
        [
            *both(item_of("computer_call", id="s", call_id="1", action=TYPED, pending_safety_checks=[])),
            output(type="computer_call_output", call_id="1", output={"image_url": "data:"}),
        ],
        [
            call_data("1", "computer", '{"action": {"text": "a", "type": "type"}}'),
            output_data("1", "computer", '{"image_url": "data:"}'),
        ],
    ),
    (
        [
            *both(item_of("apply_patch_call", id="s", call_id="1", operation=PATCH)),
            output(type="apply_patch_call_output", call_id="1", output="ok"),
        ],
        [
            call_data("1", "apply_patch", '{"operation": {"path": "a", "type": "delete_file"}}'),
            output_data("1", "apply_patch", "ok"),
        ],
    ),
    (
        both(item_of("web_search_call", id="w", action={"type": "search", "query": "q"})),
        [
            call_data("w", "web_search", '{"action": {"type": "search", "query": "q"}}'),
            output_data("w", "web_search", "completed"),
        ],
    ),
    (
        both(item_of("file_search_call", id="f", queries=["q"], results=[{"text": "t"}])),
        [call_data("f", "file_search", '{"queries": ["q"]}'), output_data("f", "file_search", '[{"text": "t"}]')],
    ),
    (
        both(
            item_of(
                "code_interpreter_call", id="i", code="1", container_id="c", outputs=[{"type": "logs", "logs": "2"}]
            )
        ),
        [
            call_data("i", "code_interpreter", '{"code": "1"}'),
            output_data("i", "code_interpreter", '[{"logs": "2", "type": "logs"}]'),
        ],
    ),
    (
        both(ImageGenerationCall(id="g", type="image_generation_call", status="completed", result="AA==")),
        [
            call_data("g", "image_generation", "{}"),
            output_data("g", "image_generation", "completed"),
            ("message", "data:image/png;base64,AA=="),
        ],
    ),
    (
        both(McpCall(id="p", type="mcp_call", name="look", arguments="{}", server_label="l", output="blue")),
        [
            ("mcp_call", {"call_id": "p", "name": "look", "arguments": "{}", "server_label": "l"}),
            ("mcp_call_output", {"call_id": "p", "name": "look", "output": "blue"}),
        ],
    ),
    (
        both(McpListTools(id="t", type="mcp_list_tools", server_label="l", tools=[])),
        [("mcp_list_tools", {"id": "t", "server_label": "l", "tools": []})],
    ),
    (
        both(APPROVAL),
        [("mcp_approval_request", {"id": "t", "server_label": "l", "name": "look", "arguments": "{}"})],
    ),
    (
        [
            *both(item_of("local_shell_call", id="s", call_id="1", action=EXEC)),
            output(type="local_shell_call_output", call_id="1", output="x"),
        ],
        [
            call_data("1", "local_shell", '{"action": {"command": [], "env": {}, "type": "exec"}}'),
            output_data("1", "local_shell", "x"),
        ],
    ),
    (
        [
            *both(item_of("program", id="s", call_id="1", code="1", fingerprint="f")),
            *both(item_of("program_output", id="s", call_id="1", result="x")),
        ],
        [call_data("1", "program", '{"code": "1"}'), output_data("1", "program", "x")],
    ),
    (
        both(item_of("tool_search_call", id="1", arguments={"query": "q"}, execution="server"))
        + both(item_of("tool_search_output", id="1", tools=[], execution="server")),
        [call_data("1", "tool_search", '{"arguments": {"query": "q"}}'), output_data("1", "tool_search", "[]")],
    ),
    (
        [ToolApprovalItem(AGENT, call("look"))],
        [("message", {"interrupt": {"name": "look", "arguments": '{"what": "sky"}'}, "interrupt_id": "c1"})],
    ),
    ([RawResponsesStreamEvent(event("function_call_arguments.delta", delta="{", item_id="1", output_index=0))], []),
    ([RunItemStreamEvent("tool_called", InputItem(AGENT, {"role": "user", "content": "hi"}))], []),
    ([AgentUpdatedStreamEvent(AGENT)], []),
    ([RunItemStreamEvent("tool_called", CompactionItem(AGENT, {"type": "compaction"}))], []),
    ([ToolCallItem(AGENT, call("look"))], [CALL]),
    (["text"], [("str", "text")]),
]


@pytest.mark.parametrize(("items", "made"), ROWS)
def test_each_item_becomes_messages_once(items: list[Any], made: list[Any]) -> None:
    assert [shown(each) for each in read(*items)] == made


def shown(made: Any) -> tuple[str, Any]:
    if isinstance(made, str):
        return ("str", made)
    each = made[0] if isinstance(made, tuple) else made
    [part] = each.content
    values = ("text", "data", "image_url", "refusal")
    return (each.type, next(getattr(part, name) for name in values if getattr(part, name, None) is not None))


def test_all_items_may_have_one_id() -> None:
    """Models behind the chat completions API give none."""
    first, second = message("one", "fake"), message("two", "fake")
    events = [RawResponsesStreamEvent(text_delta("one", "fake")), RawResponsesStreamEvent(done(first))]
    events += [RawResponsesStreamEvent(text_delta("two", "fake", 1)), RawResponsesStreamEvent(done(second, 1))]
    events += [RawResponsesStreamEvent(completed(first, second))]
    events += both(first)[1:] + both(second)[1:]
    made = read(*events)
    assert [(each.text, last) for each, last in made] == [
        ("one", False),
        ("one", True),
        ("two", False),
        ("two", True),
    ]


def test_text_without_its_finished_item_is_completed_with_the_response() -> None:
    """And the run item does not show it once more."""
    events = [RawResponsesStreamEvent(text_delta("one")), RawResponsesStreamEvent(completed(message("one")))]
    assert [(each.text, last) for each, last in read(*events, *both(message("one"))[1:])] == [
        ("one", False),
        ("one", True),
    ]


def test_a_refusal_streams_beside_text() -> None:
    where = {"item_id": "m1", "output_index": 0, "content_index": 1}
    events = [
        text_delta("I "),
        event("refusal.delta", delta="No", **where),
        event("refusal.delta", delta="!", **where),
    ]
    made = read(*map(RawResponsesStreamEvent, events))
    assert made[-1][0].content == [TextContent("I "), RefusalContent("No!")]
    assert [last for _, last in made] == [False, False, False, True]


@pytest.mark.parametrize(
    ("item", "names"),
    [
        (5, "int"),
        (message("hi"), "ResponseOutputMessage"),
        (output(type="hologram"), "'hologram'"),
    ],
    ids=str,
)
def test_what_is_not_known_is_named(item: object, names: str) -> None:
    with pytest.raises(ItemError, match=names):
        read(item)


def test_converters() -> None:
    hologram = output(type="hologram", shape="cube")
    assert read(hologram, converters={"hologram": lambda raw: [raw["shape"]]}) == ["cube"]
    assert read(hologram, converters={ToolCallOutputItem: lambda item: [item.output]}) == ["what the tool returned"]
    assert read(hologram, converters={RunItemStreamEvent: lambda item: [item.name]}) == ["tool_output"]
    searched = item_of("web_search_call", id="w", action={"type": "search", "query": "q"})
    search = {r.ResponseFunctionWebSearch: lambda raw: [raw.id]}
    assert read(*both(searched), converters=search) == ["w"]
    raw = RawResponsesStreamEvent(text_delta("hi"))
    assert read(raw, converters={"response.output_text.delta": lambda event: [event.delta]}) == ["hi"]
