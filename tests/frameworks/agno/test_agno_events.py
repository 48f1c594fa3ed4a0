"""Agents and teams of the real package, with a scripted model: what they stream, and how they are stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import trio

pytest.importorskip("agno", reason="it has an environment of its own: make test-frameworks")

from agno.agent import Agent
from agno.db.in_memory import InMemoryDb
from agno.media import Audio, File, Image, Video
from agno.metrics import MessageMetrics, RunMetrics
from agno.models.base import Model
from agno.models.message import Citations, UrlCitation
from agno.models.message import Message as AgnoMessage
from agno.models.response import ModelResponse, ToolExecution
from agno.run import agent as events
from agno.run import team as team_events
from agno.run.workflow import WorkflowStartedEvent
from agno.team import Team
from agno.tools import tool
from pydantic import BaseModel

from trio_agentapp import AgentApp
from trio_agentapp.errors import ItemError
from trio_agentapp.frameworks import adapter_of
from trio_agentapp.frameworks.agno_stream import IGNORED
from trio_agentapp.protocol.content import (
    AudioContent,
    DataContent,
    FileContent,
    ImageContent,
    TextContent,
    VideoContent,
)
from trio_agentapp.protocol.message import Message

from ..chats import fifty_stopped, said

ENDED: list[str] = []
WAITS: list[Callable[[], object]] = []
"""Called when a tool has begun to wait."""


@pytest.fixture(autouse=True)
def _nothing_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGNO_TELEMETRY", "false")
    ENDED.clear()
    WAITS.clear()


@dataclass
class Scripted(Model):
    """Calls its tool, if it has one, and then talks to the end of its sentence, or without end."""

    id: str = "scripted"
    sentence: str = "The sky is blue"
    endless: bool = False
    fails: bool = False
    calls: str = "look"
    call_id: str = "c1"
    arguments: str = '{"what": "sky"}'

    def invoke(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError

    ainvoke = invoke_stream = invoke  # type: ignore[assignment]

    def _parse_provider_response(self, response: Any, **options: Any) -> Any:
        return response

    _parse_provider_response_delta = _parse_provider_response

    async def ainvoke_stream(self, messages: list[Any], **options: Any) -> AsyncIterator[ModelResponse]:
        try:
            if self.calls and messages[-1].role != "tool":
                yield ModelResponse(content="Let me look.")
                function = {"name": self.calls, "arguments": self.arguments}
                yield ModelResponse(tool_calls=[{"id": self.call_id, "type": "function", "function": function}])
                yield ModelResponse(response_usage=MessageMetrics(input_tokens=3, output_tokens=4, total_tokens=7))
                return
            if self.fails:
                yield ModelResponse(content="The ")
                raise RuntimeError("the provider is down")
            yield ModelResponse(reasoning_content="Hm.")
            for word in self.sentence.split() * (1000 if self.endless else 1):
                yield ModelResponse(content=f"{word} ")
                await asyncio.sleep(0.01)
            yield ModelResponse(response_usage=MessageMetrics(input_tokens=1, output_tokens=1, total_tokens=2))
        finally:
            ENDED.append("model")


async def look(what: str) -> str:
    """Look at a thing."""
    return f"{what}: blue"


async def wait(what: str) -> str:
    """Wait for ever."""
    try:
        WAITS.pop()()
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0)
        ENDED.append("tool")
    return what


async def wait_and_show(what: str) -> AsyncIterator[Any]:
    """Show something, and wait for ever."""
    yield Progress(percent=50)
    await wait(what)


@tool(requires_confirmation=True)
async def paint(what: str) -> str:
    """Paint a thing."""
    return f"{what}: painted"


@dataclass
class Progress(events.CustomEvent):
    percent: int = 0


def app_with(
    tools: list[Callable[..., Any]], *, saved: list[Any] | None = None, agent: Any = None, **options: Any
) -> AgentApp:
    app = AgentApp()
    agent = agent or Agent(model=Scripted(**options), tools=tools, db=InMemoryDb())

    @app.query(framework="agno")
    async def chat(self: Any, msgs: Any, request: Any, run: Any, **kwargs: Any) -> AsyncIterator[Any]:
        ids = {"user_id": request.user_id, "session_id": request.session_id}
        try:
            async for event in agent.arun(msgs, stream=True, stream_events=True, **ids):
                yield event
        finally:
            ENDED.append("handler")
            if saved is not None:
                async with run.cleanup():
                    saved.extend((await agent.aget_session(**ids)).runs)

    return app


def team_with(tools: list[Callable[..., Any]], **options: Any) -> Team:
    member = Agent(name="Bob", model=Scripted(**options), tools=tools)
    arguments = '{"member_id": "bob", "task": "What is above?"}'
    leader = Scripted(calls="delegate_task_to_member", call_id="t1", arguments=arguments, sentence="So it is.")
    return Team(name="Team", members=[member], model=leader, db=InMemoryDb())


async def play(
    app: AgentApp, text: str = "What is above?", *, stop_at: str = "", after: trio.Event | None = None, **ids: str
) -> Any:
    """The last event of a chat. It is stopped when a text, or a part of a tool call, has been sent, and `after`."""
    ids = {"user_id": "u", "session_id": "s", **ids}
    with trio.fail_after(30):
        async with app.stream_query({"input": text, **ids}) as stream:
            async for event in stream:
                shown = getattr(event, "text", None) or str(getattr(event, "data", None) or "")
                if stop_at and stop_at in shown:
                    stop_at = ""
                    if after is not None:
                        await after.wait()
                    await app.stop_chat(ids["user_id"], ids["session_id"])
    return event


async def play_and_stop_in_tool(app: AgentApp) -> Any:
    waits = trio.Event()
    WAITS.append(lambda: app.bridge.call_trio(waits.set))
    async with app.runtime():
        return await play(app, stop_at="'c1'", after=waits)


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
    counted = {name: end.usage[name] for name in ("input_tokens", "output_tokens", "total_tokens")}
    assert counted == {"input_tokens": 4, "output_tokens": 5, "total_tokens": 9}


async def test_text_comes_in_deltas() -> None:
    with trio.fail_after(30):
        async with app_with([], calls="").stream_query("hi") as stream:
            deltas = [event.text async for event in stream if event.object == "content" and event.delta]
    assert deltas == ["Hm.", "The ", "sky ", "is ", "blue "]


async def test_a_team_shows_what_its_members_say() -> None:
    end = await play(app_with([], agent=team_with([look])))
    assert end.status == "completed"
    kinds = [kind for kind, _ in said(end)]
    assert kinds == [
        *("message", "plugin_call", "message", "plugin_call", "plugin_call_output", "reasoning", "message"),
        *("plugin_call_output", "reasoning", "message"),
    ]
    assert said(end)[1][1]["name"] == "delegate_task_to_member"
    assert said(end)[6] == ("message", "The sky is blue ")
    assert said(end)[-1] == ("message", "So it is. ")
    assert [message.metadata.get("original_name") for message in end.output][:3] == ["Team", "Team", "Bob"]
    # The metrics of a team leave its members out.
    assert end.usage["total_tokens"] == 2 * (7 + 2)


async def test_a_call_that_waits_for_a_person_is_shown() -> None:
    end = await play(app_with([paint], calls="paint"))
    assert end.status == "completed"
    kind, data = said(end)[-1]
    assert kind == "message"
    assert data["interrupt"] == {
        "kind": "confirmation",
        "call_id": "c1",
        "name": "paint",
        "arguments": {"what": "sky"},
    }
    assert data["interrupt_id"]


# Stops.


@pytest.mark.parametrize("at", ["Hm.", "The ", "blue "])
async def test_a_stop_while_the_model_talks(at: str) -> None:
    saved: list[Any] = []
    app = app_with([], calls="", endless=True, saved=saved)
    async with app.runtime():
        end = await play(app, stop_at=at)
        # The run had ended, and was saved, when the handler read it.
        assert ENDED == ["model", "handler"]
    assert end.status == "canceled"
    [run] = saved
    assert run.status == "CANCELLED"
    assert [message.role for message in run.messages] in (["user", "assistant"], ["user"][: at == "Hm."])


@pytest.mark.parametrize("waiting", [wait, wait_and_show], ids=["function", "generator"])
async def test_a_stop_in_a_tool_ends_the_tool_first(waiting: Callable[..., Any]) -> None:
    saved: list[Any] = []
    app = app_with([waiting], calls=waiting.__name__, saved=saved)
    end = await play_and_stop_in_tool(app)
    assert end.status == "canceled"
    assert ENDED == ["model", "tool", "handler"]
    assert [run.status for run in saved] == ["CANCELLED"]
    assert [message.type for message in end.output if message.type != "message"] == [
        "plugin_call",
        "plugin_call_output",
    ]


async def test_a_stop_ends_the_members_of_a_team_first(caplog: pytest.LogCaptureFixture) -> None:
    app = app_with([], agent=team_with([wait], calls="wait"))
    end = await play_and_stop_in_tool(app)
    assert end.status == "canceled"
    assert ENDED == ["model", "model", "tool", "handler"]
    assert "left the asyncio task" not in caplog.text


async def test_a_handler_that_does_nothing_leaves_a_saved_run() -> None:
    """Agno saves it in a task, which is not cancelled with the handler."""
    app, db = AgentApp(), InMemoryDb()
    agent = Agent(model=Scripted(calls="", endless=True), db=db)

    @app.query(framework="agno")
    async def chat(msgs: Any) -> AsyncIterator[Any]:
        async for event in agent.arun(msgs, stream=True, stream_events=True, session_id="s"):
            yield event

    async with app.runtime():
        end = await play(app, stop_at="sky")
    assert end.status == "canceled"
    [run] = agent.get_session("s").runs  # type: ignore[union-attr]
    assert run.status == "CANCELLED"
    assert str(run.messages[-1].content).startswith("The sky ")


async def test_fifty_chats_stopped_at_once() -> None:
    app = app_with([], calls="", endless=True)
    assert await fifty_stopped(app) == ["canceled"] * 50
    assert ENDED.count("handler") == ENDED.count("model") == 50


# Failures.


async def test_a_model_that_fails() -> None:
    end = await play(app_with([look], fails=True))
    assert (end.status, end.error.code) == ("failed", "exception")
    assert said(end) == [("message", "Let me look."), CALL, OUTPUT, ("message", "The ")]
    assert "model" in ENDED
    assert "handler" in ENDED


async def test_a_member_that_fails_does_not_end_the_team() -> None:
    end = await play(app_with([], agent=team_with([], calls="", fails=True)))
    assert end.status == "completed"
    assert ("message", {"error": "the provider is down"}) in said(end)
    assert said(end)[-1] == ("message", "So it is. ")


async def test_without_a_stream_the_whole_answer_comes_at_once() -> None:
    app = AgentApp()

    @app.query(framework="agno")
    async def chat(msgs: Any) -> Any:
        run = events.RunOutput(run_id="r", content="It is blue.", reasoning_content="Hm.")
        run.tools = [ToolExecution("c1", "look", {"what": "sky"}, result="sky: blue")]
        run.metrics = RunMetrics(input_tokens=1, total_tokens=1)
        return run

    end = await play(app)
    assert said(end) == [CALL, OUTPUT, ("reasoning", "Hm."), ("message", "It is blue.")]
    assert end.usage["total_tokens"] == 1


async def test_a_whole_run_that_failed() -> None:
    app = AgentApp()

    @app.query(framework="agno")
    async def chat(msgs: Any) -> Any:
        return events.RunOutput(run_id="r", content="the provider is down", status="ERROR")  # type: ignore[arg-type]

    assert (await play(app)).status == "failed"


# Messages in.


def test_messages_arrive_in_its_types() -> None:
    made = adapter_of("agno").messages(
        [
            Message("system", content="Be kind."),
            Message("user", content=[TextContent("What?"), ImageContent("https://a/b")], id="m1"),
            Message("assistant", "reasoning", "Hm."),
            Message("assistant", content="Let me look."),
            Message("assistant", "plugin_call", [DataContent(_call("1", '{"a": 1}'))]),
            Message("assistant", "plugin_call", [DataContent(_call("2", "not JSON"))]),
            Message(
                "tool", "plugin_call_output", [DataContent({"call_id": "1", "name": "look", "output": "blue"})]
            ),
            Message("tool", "plugin_call_output", [DataContent({"call_id": "2", "name": "look", "output": [1]})]),
        ]
    )
    assert [message.role for message in made] == ["system", "user", "assistant", "tool", "tool"]
    assert (made[1].content, made[1].images[0].url, made[1].id) == ("What?", "https://a/b", "m1")
    assert (made[2].reasoning_content, made[2].content) == ("Hm.", "Let me look.")
    assert [(call["id"], call["function"]["arguments"]) for call in made[2].tool_calls] == [
        ("1", '{"a": 1}'),
        ("2", "{}"),
    ]
    assert [(message.tool_call_id, message.content) for message in made[3:]] == [("1", "blue"), ("2", "[1]")]


def _call(id: str, arguments: str) -> dict[str, str]:
    return {"call_id": id, "name": "look", "arguments": arguments}


def test_media_arrive_in_its_types() -> None:
    [made] = adapter_of("agno").messages(
        [
            Message(
                "user",
                content=[
                    ImageContent("data:image/gif;base64,AAAA"),
                    AudioContent("AAAA", "mp3"),
                    VideoContent("https://a/v"),
                    FileContent(file_data="data:application/pdf;base64,AAAA", filename="a.pdf"),
                    FileContent(file_id="f1"),
                    DataContent({"a": 1}),
                ],
            )
        ]
    )
    assert (made.images[0].content, made.images[0].mime_type) == (b"\0\0\0", "image/gif")
    assert (made.audio[0].content, made.audio[0].format) == (b"\0\0\0", "mp3")
    assert made.videos[0].url == "https://a/v"
    assert (made.files[0].content, made.files[0].mime_type, made.files[0].filename) == (
        b"\0\0\0",
        "application/pdf",
        "a.pdf",
    )
    assert made.files[1].id == "f1"
    assert made.content == '{"a": 1}'


def test_reasoning_without_an_answer_is_left_out() -> None:
    """A provider refuses an assistant message that is empty."""
    made = adapter_of("agno").messages([Message("assistant", "reasoning", "Hm."), Message("user", content="Well?")])
    assert [message.role for message in made] == ["user"]


def test_converters_of_messages_come_first() -> None:
    adapter = adapter_of("agno", {"reasoning": lambda message: AgnoMessage(role="assistant", content=message.text)})
    assert [made.content for made in adapter.messages([Message("assistant", "reasoning", "Hm.")])] == ["Hm."]


# What handlers may yield.


class Weather(BaseModel):
    sky: str


def read(*items: object, **converters: Any) -> list[Any]:
    reader = adapter_of("agno", converters).reader()
    made = [made for item in items for made in reader.read(item)] + [*reader.end()]
    return [item[0] if isinstance(item, tuple) else item for item in made]


DONE = ToolExecution("1", "look", {"a": 1}, result="blue")
OPEN = ToolExecution("1", "look", {"a": 1}, requires_confirmation=True)


@pytest.mark.parametrize(
    ("item", "kind", "content"),
    [
        (events.RunContentEvent(content="hi"), "message", "hi"),
        (team_events.RunContentEvent(content="hi"), "message", "hi"),
        (events.RunContentEvent(content=Weather(sky="blue")), "message", {"sky": "blue"}),
        (events.RunContentEvent(content={"sky": "blue"}), "message", {"sky": "blue"}),
        (events.RunContentEvent(reasoning_content="hm"), "reasoning", "hm"),
        (events.ReasoningContentDeltaEvent(reasoning_content="hm"), "reasoning", "hm"),
        (events.ReasoningStepEvent(reasoning_content="hm"), "reasoning", "hm"),
        (events.IntermediateRunContentEvent(content="draft"), "reasoning", "draft"),
        (events.RunContentEvent(image=Image(url="https://a/b")), "message", "https://a/b"),
        (events.RunContentEvent(image=Image(content=b"\0", format="png")), "message", "data:image/png;base64,AA=="),
        (events.RunContentEvent(response_audio=Audio(content=b"\0")), "message", "AA=="),
        (events.RunContentEvent(response_audio=Audio(content=b"", transcript="hi")), "message", "hi"),
        (
            events.RunContentEvent(citations=Citations(urls=[UrlCitation(url="https://a/b")], raw=object())),
            "message",
            {"citations": {"urls": [{"url": "https://a/b"}]}},
        ),
        (events.RunCompletedEvent(images=[Image(url="https://a/b")]), "message", "https://a/b"),
        (events.RunCompletedEvent(videos=[Video(url="https://a/b")]), "message", "https://a/b"),
        (events.RunCompletedEvent(audio=[Audio(content=b"\0", format="mp3")]), "message", "AA=="),
        (events.RunCompletedEvent(files=[File(content=b"\0", filename="a")]), "message", "AA=="),
        (
            events.ToolCallStartedEvent(tool=DONE),
            "plugin_call",
            {"call_id": "1", "name": "look", "arguments": '{"a": 1}'},
        ),
        (
            events.ToolCallCompletedEvent(tool=DONE),
            "plugin_call_output",
            {"call_id": "1", "name": "look", "output": "blue"},
        ),
        (
            events.ToolCallErrorEvent(tool=OPEN, error="no"),
            "plugin_call_output",
            {"call_id": "1", "name": "look", "output": "no"},
        ),
        (events.FollowupsCompletedEvent(followups=["Why?"]), "message", {"followups": ["Why?"]}),
        (events.RunCancelledEvent(reason="enough"), "message", {"cancelled": "enough"}),
        (events.RunErrorEvent(content="no", parent_run_id="1"), "message", {"error": "no"}),
        (Progress(percent=5), "message", {"percent": 5}),
        (events.CustomEvent(weather=Weather(sky="blue")), "message", {"weather": {"sky": "blue"}}),
        (events.RunOutput(run_id="1", content=Weather(sky="blue")), "message", {"sky": "blue"}),
        (team_events.TeamRunOutput(run_id="1", content="hi"), "message", "hi"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_item_becomes_a_message(item: object, kind: str, content: object) -> None:
    message = read(item)[-1]
    assert message.type == kind
    [part] = message.content
    values = ("text", "data", "image_url", "video_url", "file_data")
    assert content in [getattr(part, name, None) for name in values]


def test_the_error_of_a_call_repeats_its_output() -> None:
    made = read(events.ToolCallCompletedEvent(tool=DONE), events.ToolCallErrorEvent(tool=DONE, error="blue"))
    assert [message.type for message in made] == ["plugin_call_output"]


def test_the_end_of_a_run_repeats_its_media() -> None:
    image = Image(url="https://a/b")
    made = read(events.RunContentEvent(image=image), events.RunCompletedEvent(images=[image]))
    assert [message.content[0].image_url for message in made] == ["https://a/b"]


def test_a_step_repeats_the_reasoning_before_it() -> None:
    made = read(
        events.ReasoningStepEvent(reasoning_content="One."),
        events.ReasoningStepEvent(reasoning_content="One. Two."),
    )
    assert made[-1].text == "One. Two."


def test_events_without_content_are_left_out() -> None:
    classes = [*events.RUN_EVENT_TYPE_REGISTRY.values(), *team_events.TEAM_RUN_EVENT_TYPE_REGISTRY.values()]
    made = [each for each in classes if each.event.removeprefix("Team") in IGNORED]
    assert len(made) > 40
    assert read(*(each() for each in made)) == []


def test_each_event_of_the_package_is_known() -> None:
    for each in [*events.RUN_EVENT_TYPE_REGISTRY.values(), *team_events.TEAM_RUN_EVENT_TYPE_REGISTRY.values()]:
        tool = {"tool": DONE} if "tool" in each.__dataclass_fields__ else {}
        list(adapter_of("agno").reader().read(each(**tool)))


def test_what_is_not_of_agno_stays_as_it_is() -> None:
    message = Message(content="hi")
    assert read("text", message, DataContent(1)) == ["text", message, DataContent(1)]


def test_what_is_not_known_is_named() -> None:
    with pytest.raises(ItemError, match="WorkflowStartedEvent"):
        read(WorkflowStartedEvent())


def test_converters_come_first() -> None:
    assert read(Progress(percent=5), CustomEvent=lambda event: [f"{event.percent} %"]) == ["5 %"]
    reader = adapter_of("agno", {Progress: lambda event: [str(event.percent)]}).reader()
    assert [*reader.read(Progress(percent=5))] == ["5"]
