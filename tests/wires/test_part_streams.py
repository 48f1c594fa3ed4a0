"""Runs as front ends are shown them: events are lost, messages grow in turns, runs end in the middle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from trio_agentapp.protocol import DataContent, Message, ResponseBuilder
from trio_agentapp.protocol.events import Event
from trio_agentapp.protocol.shared_state import SharedState
from trio_agentapp.runs import Gap
from trio_agentapp.wires.agui.frames import AGUIFrames
from trio_agentapp.wires.aisdk.chunks import UIChunks
from trio_agentapp.wires.questions import Answered, QuestionId


def agui(**options: Any) -> AGUIFrames:
    usual: dict[str, Any] = {
        "thread_id": "t",
        "client_run_id": "r",
        "run_id": "run-12345678",
        "parent_run_id": None,
        "asked": [{"id": "q", "role": "user", "content": "hi"}],
        "snapshot_always": False,
        "gives_up": False,
        "is_open": lambda _: True,
        "on_question": lambda: None,
    }
    return AGUIFrames(**usual | options)


def aisdk(**options: Any) -> UIChunks:
    usual: dict[str, Any] = {
        "run_id": "run-12345678",
        "session_id": "s",
        "message_id": None,
        "answered": [],
        "live_state": lambda: None,
        "is_open": lambda _: True,
        "on_question": lambda: None,
    }
    return UIChunks(**usual | options)


def spelled(spelling: Any, events: Sequence[Event | Gap]) -> list[Any]:
    found = b"".join(spelling.spell(event) for event in events).decode()
    frames = [frame.removeprefix("data: ") for frame in found.split("\n\n") if frame]
    return [json.loads(frame) if frame.startswith("{") else frame for frame in frames]


def types(frames: list[Any]) -> list[str]:
    return [frame if isinstance(frame, str) else frame["type"] for frame in frames]


class Run:
    """The events of a run, from a builder."""

    def __init__(self) -> None:
        self.builder = ResponseBuilder("run-12345678", "s", created_at=1)
        self.events: list[Event] = [*self.builder.start()]

    def add(self, *items: Any) -> Run:
        for item in items:
            self.events += self.builder.add(item)
        return self

    def end(self) -> list[Event]:
        return [*self.events, *self.builder.complete(completed_at=1)]


def with_gap(events: list[Event], start: int, stop: int) -> list[Event | Gap]:
    return [*events[:start], Gap(start, stop - 1), *events[stop:]]


GROWING = [
    (Message("assistant", "reasoning", "a", id="r"), False),
    (Message("assistant", "message", "x", id="m"), False),
    (Message("assistant", "reasoning", "ab", id="r"), False),
    (Message("assistant", "message", "xy", id="m"), True),
    (Message("assistant", "reasoning", "abc", id="r"), True),
]


def test_messages_that_grow_in_turns() -> None:
    events = Run().add(*GROWING).end()
    frames = spelled(agui(), events)
    said: dict[str, str] = {}
    for frame in frames:
        if frame["type"] in ("TEXT_MESSAGE_CONTENT", "REASONING_MESSAGE_CONTENT"):
            said[frame["messageId"]] = said.get(frame["messageId"], "") + frame["delta"]
    assert said == {"r": "abc", "m": "xy"}
    starts = [each for each in types(frames) if each.endswith("_START")]
    assert len(starts) == len([each for each in types(frames) if each.endswith("_END")]) == 3


@pytest.mark.parametrize("make", [agui, aisdk])
def test_every_gap_leaves_a_stream_that_clients_accept(make: Any) -> None:
    """What is begun is ended, and nothing is continued that was not begun, wherever events are lost."""
    call = (Message(type="function_call", id="c"), False)
    pieces = [DataContent({"call_id": "c1", "name": "f", "arguments": ""}, delta=True)]
    pieces.append(DataContent({"arguments": '{"a":1}'}, delta=True))
    events = Run().add("a", "b", *GROWING, call, *pieces, Message.tool_output("c1", 1), "end").end()
    for start in range(2, len(events) - 1):
        for stop in range(start + 1, len(events)):
            check_accepted(spelled(make(), with_gap(events, start, stop)))


def check_accepted(frames: list[Any]) -> None:
    begun: set[tuple[str, str]] = set()
    for frame in frames[:-1]:
        kind = frame["type"].lower().replace("_", "-")
        id = str(frame.get("messageId") or frame.get("toolCallId") or frame.get("id") or frame.get("stepName"))
        for name in ("text-message", "reasoning-message", "tool-call", "text", "reasoning", "tool-input"):
            if kind == f"{name}-start":
                assert (name, id) not in begun
                begun.add((name, id))
            elif kind in (f"{name}-content", f"{name}-args", f"{name}-delta"):
                assert (name, id) in begun, frames
            elif kind == "tool-input-available":
                # A result whose call was lost gets a call without arguments.
                begun.discard((name, id))
            elif kind == f"{name}-end":
                assert (name, id) in begun, frames
                begun.remove((name, id))
    assert not begun
    assert frames[-1] == "[DONE]" or frames[-1]["type"] == "RUN_FINISHED"


def test_a_client_that_has_lost_events_gets_all_messages() -> None:
    events = Run().add("a", Message.tool_call("f", {}, "c1"), Message.tool_output("c1", {"x": 1}), "b").end()
    frames = spelled(agui(), with_gap(events, 3, 6))
    [shown] = [frame["messages"] for frame in frames if frame["type"] == "MESSAGES_SNAPSHOT"]
    assert [(each["role"], each.get("content")) for each in shown] == [
        ("user", "hi"),
        ("assistant", "a"),
        ("assistant", None),
        ("tool", '{"x":1}'),
        ("assistant", "b"),
    ]
    assert "MESSAGES_SNAPSHOT" not in types(spelled(agui(), events))
    assert "MESSAGES_SNAPSHOT" in types(spelled(agui(snapshot_always=True), events))


def test_after_lost_events_changes_of_a_state_wait_for_the_whole_state() -> None:
    run = Run()
    run.builder.state = state = SharedState()
    for number in range(300):
        with state.edit() as draft:
            draft.setdefault("log", []).append(number)
        run.events += run.builder.take_state()
    frames = spelled(agui(), with_gap(run.end(), 4, 6))
    kinds = types(frames)
    assert kinds[:3] == ["STATE_SNAPSHOT", "STATE_DELTA", "STATE_SNAPSHOT"]
    shown = [
        frame["data"] for frame in spelled(aisdk(), with_gap(run.events, 4, 6)) if frame["type"] == "data-state"
    ]
    assert shown[-1] == {"log": [*range(300)]}
    assert all(each["log"] == [*range(len(each["log"]))] for each in shown)


def test_a_resumed_stream_shows_the_state_as_it_is_now() -> None:
    run = Run()
    run.builder.state = state = SharedState()
    for number in range(2):
        state["n"] = number
        run.events += run.builder.take_state()
    question = QuestionId("run-12345678", 3, "input", "call_1")
    frames = spelled(aisdk(answered=[question], live_state=lambda: {"n": "live"}), run.events[3:])
    assert frames == [{"type": "data-state", "id": "state", "data": {"n": "live"}}]


def test_a_run_that_fails_ends_what_is_open() -> None:
    run = Run().add("a", (Message(type="function_call", id="c"), False))
    run.add(DataContent({"call_id": "c1", "name": "f", "arguments": '{"a'}, delta=True))
    events = [*run.events, *run.builder.fail("exception", "no", completed_at=1)]
    frames = spelled(agui(), events)
    assert types(frames)[-4:] == ["TOOL_CALL_END", "TOOL_CALL_RESULT", "STEP_FINISHED", "RUN_ERROR"]
    chunks = spelled(aisdk(), events)
    assert {"type": "tool-input-error", "toolCallId": "c1"}.items() <= next(
        chunk.items() for chunk in chunks if chunk["type"] == "tool-input-error"
    )
    assert types(chunks)[-3:] == ["error", "finish", "[DONE]"]


def asked(kind: str, id: str) -> Message:
    data = {"id": id, "name": kind, "question": "?", "schema": None, "expires_at": 1_800_000_000.5}
    return Message(type="mcp_approval_request", content=[DataContent(data)])


def test_a_stream_ends_at_an_open_question_only() -> None:
    events = Run().add("a", asked("approval", "call_1"), asked("input", "call_2"), "b").end()
    noted: list[None] = []
    stream = agui(is_open=lambda id: id == "call_2", on_question=lambda: noted.append(None))
    frames = spelled(stream, events)
    assert stream.ended
    assert noted == [None]
    [interrupt] = frames[-1]["outcome"]["interrupts"]
    assert (interrupt["reason"], interrupt["expiresAt"]) == ("input", "2027-01-15T08:00:00+00:00")
    found = QuestionId.parse(interrupt["id"])
    assert found is not None
    assert (found.run_id, found.question_id, found.kind) == ("run-12345678", "call_2", "input")
    assert events[-1 - (len(events) - 1 - found.number)].sequence_number == found.number


@pytest.mark.parametrize(
    ("kind", "value", "refused", "data"),
    [
        ("approval", {"approved": True}, False, {"approve": True}),
        ("approval", {"approve": False}, False, {"approve": False}),
        ("approval", True, False, {"approve": True}),
        ("approval", None, True, {"approve": False}),
        ("input", {"approved": 1}, False, {"answer": {"approved": 1}}),
        ("auth", None, False, {"approve": True}),
    ],
)
def test_what_a_client_answers(kind: str, value: Any, refused: bool, data: dict[str, Any]) -> None:
    answer = Answered(QuestionId("run-12345678", 1, kind, "call_1"), value, refused)
    [content] = answer.message().content
    assert isinstance(content, DataContent)
    assert content.data == {"approval_request_id": "call_1", **data}
    assert answer.gives_up is (refused and kind != "approval")


@pytest.mark.parametrize(
    "text", ["", "x", None, 5, "run-12345678.1.other.call", "run-12345678.x.input.c", "../a.1.input.c"]
)
def test_what_is_no_question(text: Any) -> None:
    assert QuestionId.parse(text) is None
