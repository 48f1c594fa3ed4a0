"""Agents of agentscope 2, with a scripted model: what they stream, and what a stop leaves in their state."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
import trio

pytest.importorskip("agentscope.event", reason="agentscope 2 has an environment of its own: make test-frameworks")

from agentscope import event as events
from agentscope.agent import Agent, ReActConfig
from agentscope.credential import CredentialBase
from agentscope.event import EventBase, EventType
from agentscope.formatter import OpenAIChatFormatter
from agentscope.message import (
    AssistantMsg,
    Base64Source,
    DataBlock,
    HintBlock,
    Msg,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    ToolResultBlock,
    URLSource,
)
from agentscope.model import ChatModelBase, ChatResponse, ChatUsage
from agentscope.permission import PermissionBehavior, PermissionDecision
from agentscope.state import AgentState
from agentscope.tool import FunctionTool, ToolBase, ToolChunk, Toolkit
from agentscope.types import ErrorInfo

from trio_agentapp import AgentApp
from trio_agentapp.errors import ItemError
from trio_agentapp.frameworks import adapter_of
from trio_agentapp.protocol.content import AudioContent, DataContent, ImageContent, TextContent
from trio_agentapp.protocol.message import Message

from ..chats import fifty_stopped, said

ENDED: list[str] = []
SEEN: list[list[Msg]] = []
"""What the model was given, call by call."""


@pytest.fixture(autouse=True)
def _nothing_has_ended() -> None:
    ENDED.clear()
    SEEN.clear()


class Model(ChatModelBase):
    """Calls its tool, if it has one, and then talks to the end of its sentence, or without end."""

    def __init__(
        self, tool: str = "look", *, endless: bool = False, fails: bool = False, cut: bool = False
    ) -> None:
        super().__init__(CredentialBase(), "scripted", self.Parameters())
        self.formatter = OpenAIChatFormatter()
        self.tool = tool
        self.endless = endless
        self.fails = fails
        self.cut = cut

    async def _call_api(self, model_name: str, messages: list[Msg], **_: Any) -> AsyncIterator[ChatResponse]:
        SEEN.append([msg.model_copy(deep=True) for msg in messages])
        return self._stream(messages[-1])

    async def _stream(self, last: Msg) -> AsyncIterator[ChatResponse]:
        try:
            if self.tool and not last.has_content_blocks("tool_result"):
                yield _chunk(TextBlock(text="Let me look.", id="t"))
                yield _chunk(ToolCallBlock(id="c1", name=self.tool, input='{"wh'))
                if self.cut:
                    await asyncio.sleep(3600)
                yield _chunk(ToolCallBlock(id="c1", name=self.tool, input='at": "sky"}'))
                yield ChatResponse([], is_last=False, usage=ChatUsage(3, 4, 0.1))
                return
            yield _chunk(ThinkingBlock(thinking="Hm.", id="h"))
            for word in ["The", "sky", "is", "blue"] * (1000 if self.endless else 1):
                yield _chunk(TextBlock(text=f"{word} ", id="t2"))
                await asyncio.sleep(0.01)
                if self.fails:
                    raise RuntimeError("the provider is down")
        finally:
            ENDED.append("model")


def _chunk(block: Any) -> ChatResponse:
    return ChatResponse([block], is_last=False)


async def look(what: str) -> ToolChunk:
    """Look at a thing."""
    return ToolChunk(content=[TextBlock(text=f"{what}: blue")])


async def wait(what: str) -> AsyncIterator[ToolChunk]:
    """Wait for ever."""
    progress = {"mcp_progress": {"progress": 0.5}}
    yield ToolChunk(content=[TextBlock(text="begun")], is_last=False, metadata=progress)
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0)
        ENDED.append("tool")


class Outside(ToolBase):
    """A tool of the client."""

    name = "outside"
    description = "Look from there."
    input_schema: ClassVar[Any] = {"type": "object", "properties": {"what": {"type": "string"}}}
    is_concurrency_safe = True
    is_read_only = True
    is_external_tool = True
    is_state_injected = False
    is_mcp = False

    async def check_permissions(self, *args: Any, **options: Any) -> PermissionDecision:
        return ALLOWED


ALLOWED = PermissionDecision(behavior=PermissionBehavior.ALLOW, message="")


def agent_with(tool: str = "look", *, react: ReActConfig | None = None, **options: Any) -> Agent:
    tools = [
        FunctionTool(look, permission=ALLOWED),
        FunctionTool(wait, permission=ALLOWED),
        FunctionTool(look, name="ask"),
        Outside(),
    ]
    return Agent("Friday", "You look.", Model(tool, **options), Toolkit(tools), react_config=react)


def app_with(agent: Agent, kept: dict[str, Any] | None = None) -> AgentApp:
    """An app whose handler keeps the state of each session."""
    app = AgentApp()
    states = {} if kept is None else kept

    @app.query(framework="agentscope")
    async def chat(self: Any, msgs: Any, request: Any, **kwargs: Any) -> AsyncIterator[Any]:
        own = Agent(
            agent.name,
            "You look.",
            agent.model,
            agent.toolkit,
            state=AgentState.model_validate(states.get(request.session_id, {})),
            react_config=agent.react_config,
        )
        try:
            async for event in own.reply_stream(msgs):
                yield event
        except asyncio.CancelledError:
            ENDED.append("caught")
            raise
        finally:
            ENDED.append("handler")
            states[request.session_id] = own.state.model_dump(mode="json")

    return app


async def play(app: AgentApp, text: str = "What is above?", *, stop_at: str = "", **ids: str) -> Any:
    """Stop the chat where the text of a delta is `stop_at`, or data has it."""
    ids = {"user_id": "u", "session_id": "s", **ids}
    with trio.fail_after(30):
        async with app.stream_query({"input": text, **ids}) as stream:
            async for event in stream:
                shown = event.text or str(event.data) if event.object == "content" else ""
                if stop_at and stop_at in shown:
                    stop_at = ""
                    await app.stop_chat(ids["user_id"], ids["session_id"])
    return event


CALL = ("plugin_call", {"call_id": "c1", "name": "look", "arguments": '{"what": "sky"}'})
OUTPUT = ("plugin_call_output", {"call_id": "c1", "name": "look", "output": "sky: blue"})


async def test_text_a_call_its_output_reasoning_and_usage() -> None:
    end = await play(app_with(agent_with()))
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
        async with app_with(agent_with("")).stream_query("hi") as stream:
            deltas = [event.text async for event in stream if event.object == "content" and event.delta]
    assert deltas == ["Hm.", "The ", "sky ", "is ", "blue "]


@pytest.mark.parametrize(
    ("tool", "name"), [("ask", "REQUIRE_USER_CONFIRM"), ("outside", "REQUIRE_EXTERNAL_EXECUTION")]
)
async def test_what_the_user_has_to_do_is_named(tool: str, name: str) -> None:
    end = await play(app_with(agent_with(tool)))
    assert end.status == "completed"
    kind, data = said(end)[-1]
    assert (kind, data["event"]) == ("message", name)
    assert data["tool_calls"] == [{"call_id": "c1", "name": tool, "arguments": '{"what": "sky"}'}]


# A stop.


@pytest.fixture(params=[None, ReActConfig(interruption_raise_cancelled_error=True)], ids=["swallows", "raises"])
def react(request: pytest.FixtureRequest) -> ReActConfig | None:
    config: ReActConfig | None = request.param
    return config


@pytest.mark.parametrize(("at", "endless"), [("Hm.", True), ("The ", True), ("blue ", False)])
async def test_a_stop_while_the_model_talks(at: str, endless: bool, react: ReActConfig | None) -> None:
    kept: dict[str, Any] = {}
    app = app_with(agent_with("", endless=endless, react=react), kept)
    async with app.runtime():
        assert (await play(app, "one", stop_at=at)).status == "canceled"
        assert ["model", *(["caught"] if react else []), "handler"] == ENDED
        answer = kept["s"]["context"][-1]
        assert at in str(answer["content"])
        await play(app, "two", stop_at="sky ")
    assert_strict(SEEN[-1])
    assert [msg.get_text_content() for msg in SEEN[-1] if msg.role == "user"] == ["one", "two"]
    assert at in str(SEEN[-1][2].content)


@pytest.mark.parametrize(("cut", "ended"), [(False, ["model", "tool"]), (True, ["model"])])
async def test_a_stop_in_a_tool_or_its_arguments(cut: bool, ended: list[str], react: ReActConfig | None) -> None:
    kept: dict[str, Any] = {}
    app = app_with(agent_with("wait", react=react, cut=cut), kept)
    async with app.runtime():
        end = await play(app, "one", stop_at="Let me look." if cut else "mcp_progress")
        assert end.status == "canceled"
        assert [*ended, *(["caught"] if react else []), "handler"] == ENDED
        blocks = kept["s"]["context"][-1]["content"]
        assert [block["type"] for block in blocks if block["type"] != "hint"][1:] == ["tool_call", "tool_result"]
        assert blocks[-1]["state"] == "interrupted"
        await play(app, "two", stop_at="Let me look.")
    assert_strict(SEEN[-1])
    assert SEEN[-1][-1].get_text_content() == "two"


async def test_a_failed_model() -> None:
    end = await play(app_with(agent_with(fails=True)))
    assert (end.status, end.error.code) == ("failed", "exception")
    assert said(end)[1:3] == [CALL, OUTPUT]
    assert ENDED == ["model", "model", "handler"]


def assert_strict(msgs: list[Msg]) -> None:
    """Each call has one result behind it, as model providers require."""
    for msg in msgs:
        calls = [block.id for block in msg.get_content_blocks("tool_call")]
        assert calls == [block.id for block in msg.get_content_blocks("tool_result")]


async def test_two_users_at_once() -> None:
    kept: dict[str, Any] = {}
    app = app_with(agent_with(), kept)
    ends = {}

    async def chat(user: str) -> None:
        ends[user] = await play(app, f"of {user}", user_id=user, session_id=user)

    async with app.runtime(), trio.open_nursery() as nursery:
        for user in ("ann", "bob"):
            nursery.start_soon(chat, user)
    assert said(ends["ann"]) == said(ends["bob"])
    for user in ("ann", "bob"):
        question, _ = kept[user]["context"]
        assert question["content"][0]["text"] == f"of {user}"


async def test_fifty_chats_stopped_at_once() -> None:
    app = app_with(agent_with("", endless=True, react=ReActConfig(interruption_raise_cancelled_error=True)))
    assert await fifty_stopped(app) == ["canceled"] * 50
    assert ENDED.count("handler") == ENDED.count("model") == ENDED.count("caught") == 50


# Messages in.


def test_messages_arrive_in_its_types() -> None:
    made = adapter_of("agentscope").messages(
        [
            Message("system", content="Be kind."),
            Message(
                "user",
                content=[
                    TextContent("What?"),
                    ImageContent("https://a.b/c.jpg"),
                    AudioContent("AA==", "mp3"),
                    DataContent({"a": 1}),
                ],
            ),
            Message("assistant", "reasoning", "Hm."),
            Message("assistant", content="Let me look."),
            Message(
                "assistant", "plugin_call", [DataContent({"call_id": "1", "name": "look", "arguments": '{"a":1}'})]
            ),
            Message("assistant", "plugin_call", [DataContent({"call_id": "2", "name": "look", "arguments": "no"})]),
            Message(
                "tool", "plugin_call_output", [DataContent({"call_id": "1", "name": "look", "output": "blue"})]
            ),
            Message("tool", "plugin_call_output", [DataContent({"call_id": "2", "name": "look", "output": [1]})]),
            Message("user", content="And now?"),
        ]
    )
    assert [msg.role for msg in made] == ["system", "user", "assistant", "user"]
    text, image, audio, data = made[1].content
    assert (text.text, data.text) == ("What?", '{"a": 1}')
    assert image.source == URLSource(url="https://a.b/c.jpg", media_type="image/jpeg")
    assert audio.source == Base64Source(data="AA==", media_type="audio/mp3")
    blocks = made[2].content
    assert [block.type for block in blocks] == ["thinking", "text", *["tool_call"] * 2, *["tool_result"] * 2]
    assert [(block.id, block.input) for block in blocks[2:4]] == [("1", '{"a": 1}'), ("2", "{}")]
    assert [(block.id, block.output) for block in blocks[4:]] == [("1", "blue"), ("2", "[1]")]
    assert_strict(made)


# What handlers may yield.

R = {"reply_id": "r"}
B = {"reply_id": "r", "block_id": "b"}
C = {"reply_id": "r", "tool_call_id": "c"}
TOOL_CALL = ToolCallBlock(id="c", name="look", input="{}")


def event(kind: str, **fields: Any) -> Any:
    return getattr(events, f"{kind}Event")(**fields)


def read(*items: object, converters: Any = None) -> list[Any]:
    reader = adapter_of("agentscope", converters).reader()
    made = [each for item in items for each in reader.read(item)] + [*reader.end()]
    return [each[0] if isinstance(each, tuple) else each for each in made]


def _result(*deltas: Any) -> list[Any]:
    return [
        event("ToolResultStart", **C, tool_call_name="look"),
        *deltas,
        event("ToolResultEnd", **C, state="success"),
    ]


def _output(output: str) -> dict[str, Any]:
    return {"call_id": "c", "name": "look", "output": output}


@pytest.mark.parametrize(
    ("items", "kind", "content"),
    [
        (
            [event("TextBlockStart", **B), event("TextBlockDelta", **B, delta="hi"), event("TextBlockEnd", **B)],
            "message",
            "hi",
        ),
        (
            [
                event("ThinkingBlockStart", **B),
                event("ThinkingBlockDelta", **B, delta="hm"),
                event("ThinkingBlockEnd", **B),
            ],
            "reasoning",
            "hm",
        ),
        (
            [
                event("DataBlockStart", **B, media_type="audio/wav"),
                *(
                    event("DataBlockDelta", **B, media_type="audio/wav", data=base64.b64encode(piece).decode())
                    for piece in (b"a", b"b")
                ),
                event("DataBlockEnd", **B),
            ],
            "message",
            base64.b64encode(b"ab").decode(),
        ),
        (
            [
                event("DataBlockStart", **B, media_type="image/png"),
                event("DataBlockDelta", **B, media_type="image/png", url="https://a/b"),
                event("DataBlockEnd", **B),
            ],
            "message",
            "https://a/b",
        ),
        (
            [
                event("ToolCallStart", **C, tool_call_name="look"),
                event("ToolCallDelta", **C, delta='{"a"'),
                event("ToolCallDelta", **C, delta=": 1}"),
                event("ToolCallEnd", **C),
            ],
            "plugin_call",
            {"call_id": "c", "name": "look", "arguments": '{"a": 1}'},
        ),
        (
            [event("ToolCallStart", **C, tool_call_name="look")],
            "plugin_call",
            {"call_id": "c", "name": "look", "arguments": "{}"},
        ),
        (_result(event("ToolResultTextDelta", **C, delta="x")), "plugin_call_output", _output("x")),
        (
            _result(
                event("ToolResultTextDelta", **C, delta="x"),
                event("ToolResultDataDelta", **C, media_type="image/png", url="https://a/b"),
            ),
            "plugin_call_output",
            _output(
                '[{"type": "text", "text": "x"}, '
                '{"type": "data", "source": {"type": "url", "url": "https://a/b", "media_type": "image/png"}}]'
            ),
        ),
        (
            [event("RequireUserConfirm", **R, tool_calls=[TOOL_CALL])],
            "message",
            {
                "event": "REQUIRE_USER_CONFIRM",
                "reply_id": "r",
                "tool_calls": [{"call_id": "c", "name": "look", "arguments": "{}"}],
            },
        ),
        (
            [event("RequireExternalExecution", **R, tool_calls=[TOOL_CALL])],
            "message",
            {
                "event": "REQUIRE_EXTERNAL_EXECUTION",
                "reply_id": "r",
                "tool_calls": [{"call_id": "c", "name": "look", "arguments": "{}"}],
            },
        ),
        (
            [event("Custom", name="mcp_progress", value={"progress": 1})],
            "message",
            {"event": "mcp_progress", "value": {"progress": 1}},
        ),
        ([AssistantMsg("Friday", "hi")], "message", "hi"),
        ([AssistantMsg("Friday", [ThinkingBlock(thinking="hm")])], "reasoning", "hm"),
        ([AssistantMsg("Friday", [TOOL_CALL])], "plugin_call", {"call_id": "c", "name": "look", "arguments": "{}"}),
        (
            [AssistantMsg("Friday", [ToolResultBlock(id="c", name="look", output="x")])],
            "plugin_call_output",
            _output("x"),
        ),
        (
            [AssistantMsg("Friday", [DataBlock(source=URLSource(url="https://a/b", media_type="video/mp4"))])],
            "message",
            "https://a/b",
        ),
        (
            [
                AssistantMsg(
                    "Friday", [DataBlock(source=Base64Source(data="AA==", media_type="text/csv"), name="a.csv")]
                )
            ],
            "message",
            "AA==",
        ),
    ],
    ids=str,
)
def test_each_event_becomes_a_message(items: list[Any], kind: str, content: object) -> None:
    message = read(*items)[-1]
    assert message.type == kind
    [part] = message.content
    values = ("text", "data", "image_url", "video_url", "file_data")
    assert content in [getattr(part, name, None) for name in values]


def test_an_error_of_a_reply_is_an_error() -> None:
    error = ErrorInfo(type="rate_limit", message="Too many.")
    [message] = read(event("ReplyEnd", session_id="s", **R, finished_reason="error", error=error))
    assert (message.type, message.code, message.message) == ("error", "rate_limit", "Too many.")


def test_of_some_events_nothing_is_sent() -> None:
    assert not read(
        event("ReplyStart", session_id="s", **R, name="Friday"),
        event("ModelCallStart", **R, model_name="m"),
        event("ModelCallEnd", **R, input_tokens=1, output_tokens=1),
        event("HintBlock", **B, hint="It is late."),
        event("ExceedMaxIters", **R, name="Friday"),
        event("UserConfirmResult", **R, confirm_results=[]),
        event("UserInterrupt", **R),
        event("ExternalExecutionResult", **R, execution_results=[]),
        event("ReplyEnd", session_id="s", **R),
        AssistantMsg("Friday", [HintBlock(hint="It is late.")]),
    )


def test_the_final_message_of_a_streamed_reply_adds_its_structured_output() -> None:
    start = event("ReplyStart", session_id="s", **R, name="Friday")
    assert not read(start, AssistantMsg("Friday", "hi", id="r"))
    final = AssistantMsg("Friday", "hi", id="r", structured_output={"a": 1})
    assert read(start, final) == [DataContent({"a": 1})]


def test_every_event_is_known() -> None:
    """A new version may have new events, which the adapter would refuse."""
    starts, ends = ("TEXT_BLOCK", "THINKING_BLOCK", "DATA_BLOCK", "TOOL_CALL"), ("START", "DELTA", "END")
    assert {str(kind) for kind in EventType} == {
        *(f"{start}_{end}" for start in starts for end in ends),
        *("REPLY_START", "REPLY_END", "MODEL_CALL_START", "MODEL_CALL_END", "HINT_BLOCK", "EXCEED_MAX_ITERS"),
        *("TOOL_RESULT_START", "TOOL_RESULT_TEXT_DELTA", "TOOL_RESULT_DATA_DELTA", "TOOL_RESULT_END"),
        *("REQUIRE_USER_CONFIRM", "REQUIRE_EXTERNAL_EXECUTION", "USER_CONFIRM_RESULT", "USER_INTERRUPT"),
        *("EXTERNAL_EXECUTION_RESULT", "CUSTOM"),
    }


def test_what_is_no_event_stays_as_it_is() -> None:
    assert read("text", DataContent(1)) == ["text", DataContent(1)]


class Odd(EventBase):
    type: str = "ODD"


def test_what_is_not_known_is_named() -> None:
    with pytest.raises(ItemError, match=r"Odd, .*'ODD': function"):
        read(Odd())


def test_converters_come_first() -> None:
    assert read(Odd(), converters={"ODD": lambda item: [item.type]}) == ["ODD"]
    assert read(Odd(), converters={Odd: lambda item: [item.type]}) == ["ODD"]
    hint = event("HintBlock", **B, hint="It is late.")
    assert read(hint, converters={"HINT_BLOCK": lambda item: [item.hint]}) == ["It is late."]
    msg = AssistantMsg("Friday", [HintBlock(hint="late")])
    assert read(msg, converters={"hint": lambda block: [block.hint]}) == ["late"]
