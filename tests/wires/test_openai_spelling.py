"""The events of any handler, spelled for OpenAI's clients: nothing raises, and all that is sent fits together."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import pytest

from trio_agentapp.protocol.builder import ResponseBuilder
from trio_agentapp.protocol.content import (
    AudioContent,
    DataContent,
    FileContent,
    ImageContent,
    RefusalContent,
    TextContent,
)
from trio_agentapp.protocol.events import Event, MessageEvent, ResponseEvent
from trio_agentapp.protocol.message import MESSAGE_TYPES, Message
from trio_agentapp.runs import Gap
from trio_agentapp.runs.questions import Question
from trio_agentapp.wires.completions.completion import Frame, RunFailed, completion_of
from trio_agentapp.wires.completions.stream import CompletionStream
from trio_agentapp.wires.openai.turns import TurnId, question_in, split_into_turns
from trio_agentapp.wires.responses.envelope import Envelope, ending_of
from trio_agentapp.wires.responses.items import Output
from trio_agentapp.wires.responses.stream import ResponseStream

from .frames import chunks_of, events_of
from .test_responses import check_assembled, check_numbers

RUN = "run-12345"
VALUES: list[Any] = [
    *(None, "", "x", 5, [], {}, [1, None], {"call_id": "c1"}, {"call_id": "c2", "name": "f", "arguments": "{}"}),
    *({"call_id": 7, "name": ["f"], "arguments": {"a": 1}}, {"call_id": "c1", "name": "g", "arguments": None}),
    *({"call_id": "c1", "output": {"a": "é\u2028"}}, {"tools": "none"}, {"tools": [1, {"name": "t"}]}),
    *({"id": 5, "name": None, "arguments": 7}, {"approval_request_id": "q", "approve": "yes", "answer": 5}),
]


def content(choose: random.Random) -> Any:
    return choose.choice(
        [
            TextContent(choose.choice(["", "text", "\u2028\n\"'\\ \U0001f600"])),
            DataContent(choose.choice(VALUES)),
            ImageContent(choose.choice([None, "https://example.com/i.png"])),
            AudioContent(data="AA==", format=choose.choice([None, "wav"])),
            FileContent(filename="a.pdf", file_data="AA=="),
            RefusalContent("no"),
        ]
    )


def item(choose: random.Random) -> Any:
    """One thing that a handler may yield."""
    kind = choose.choice([*MESSAGE_TYPES, "a2ui_response"])
    role = choose.choice(["assistant", "tool", "user"])
    parts = [content(choose) for _ in range(choose.randrange(3))]
    match choose.randrange(10):
        case 0 | 1 | 2:
            return choose.choice(["word ", "", "é", "\n"])
        case 3:
            return content(choose)
        case 4:
            return TextContent("delta", delta=True)
        case 5:
            return RefusalContent("never", delta=True)
        case 6:
            data = choose.choice([value for value in VALUES if isinstance(value, dict)])
            return DataContent(data, delta=True)
        case 7:
            return Message(role, kind, parts, code="c", message=choose.choice([None, "told"]))
        case 8:
            # An output that begins before its call, and ends after it, has no right place in a response.
            kind = "message" if kind.endswith("_output") else kind
            return Message(role, kind, parts, id=choose.choice(["m1", "m2", None])), choose.random() < 0.5
    return Question("Go on?", schema=choose.choice([None, bool]), timeout=None, auth=False).message()


def made(seed: int) -> list[Event]:
    """The events of a run whose handler yields anything."""
    choose = random.Random(seed)
    builder = ResponseBuilder(RUN, "s1", created_at=5)
    events = [*builder.start()]
    for _ in range(choose.randrange(12)):
        try:
            events += builder.add(item(choose))
        except TypeError:
            # It is not a handler's right to yield this here.
            continue
    builder.usage = choose.choice([None, {"input_tokens": 3, "completion_tokens": 4}, {"cost": 1}])
    end = choose.randrange(4)
    if end == 0:
        return [*events, *builder.stop("stopped", completed_at=6)]
    if end == 1:
        return [*events, *builder.fail(choose.choice(["exception", "answer_too_large"]), "no", completed_at=6)]
    if end == 2:
        return [*events, *builder.reject("rejected", "no", completed_at=6)]
    return [*events, *builder.complete(completed_at=6)]


def envelope(turn: TurnId) -> Envelope:
    return Envelope(id=turn.under("resp_"), model="m", session_id="s1")


def spelled(stream: Any, events: Sequence[Event]) -> bytes:
    data = stream.preamble
    for event in events:
        if not stream.ended:
            data += stream.spell(event)
        # What comes after its end is not this response's.
        if stream.ended:
            assert stream.spell(event) == b""
    return data


def turns(events: Sequence[Event]) -> list[tuple[TurnId, list[Event]]]:
    """The events of each turn."""
    found: list[tuple[TurnId, list[Event]]] = [(TurnId(RUN), [])]
    for event in events:
        found[-1][1].append(event)
        if question_in(event) is not None:
            found.append((found[-1][0].next, []))
    return found


@pytest.mark.parametrize("block", range(10))
def test_responses_of_any_handler(block: int) -> None:
    for seed in range(block * 60, block * 60 + 60):
        events = made(seed)
        for turn, own in turns(events):
            begun = None if turn.number == 1 else 5
            sent = events_of(spelled(ResponseStream(envelope(turn), None, begun=begun), own))
            check_numbers(sent)
            check_assembled(deepcopy(sent))
            assert [event["type"] for event in sent[:2]] == ["response.created", "response.in_progress"]
            assert sent[-1]["type"] in ("response.completed", "response.failed", "response.incomplete")
            # One that resumes has the rest.
            after = random.Random(seed).randrange(len(sent))
            again = ResponseStream(envelope(turn), None, after=after, begun=begun)
            assert events_of(spelled(again, own)) == sent[after + 1 :], (seed, turn)
            check_whole(events, turn, sent[-1]["response"])


def check_whole(events: Sequence[Event], turn: TurnId, streamed: dict[str, Any]) -> None:
    """What is retrieved later has the items that the stream had, but for messages that grow across a question."""
    end = events[-1]
    assert isinstance(end, ResponseEvent)
    groups = split_into_turns(end.output or ())
    if len(groups) > 1:
        return
    output = Output()
    for message in groups[0]:
        output.add(message)
    output.close()
    status, fields = ending_of(end)
    whole = envelope(turn).body(status, end.created_at, output.listed(), **fields)
    whole = json.loads(json.dumps(whole))
    by_id = {"key": lambda item: item["id"]}
    assert sorted(whole.pop("output"), **by_id) == sorted(streamed.pop("output"), **by_id)
    assert whole == streamed


@pytest.mark.parametrize("block", range(5))
def test_completions_of_any_handler(block: int) -> None:
    for seed in range(block * 100, block * 100 + 100):
        events = made(seed)
        for turn, own in turns(events):
            frame = Frame(turn=turn, model="m", include_usage=seed % 2 == 0)
            begun = None if turn.number == 1 else 5
            chunks = chunks_of(spelled(CompletionStream(frame, None, begun=begun), own))
            last = own[-1]
            end = last if isinstance(last, ResponseEvent) else None
            messages = [event for event in own if isinstance(event, MessageEvent) and event.content is not None]
            if "error" in chunks[-1]:
                assert end is not None
                with pytest.raises(RunFailed):
                    completion_of(frame, 5, messages, end)
                continue
            whole = completion_of(frame, 5, messages, end)
            reasons = [each["finish_reason"] for chunk in chunks for each in chunk["choices"]]
            assert reasons[-1] == whole["choices"][0]["finish_reason"], seed
            assert set(reasons[:-1]) == {None}
            deltas = [each["delta"] for chunk in chunks for each in chunk["choices"]]
            calls = sum("id" in call for delta in deltas for call in delta.get("tool_calls", ()))
            assert calls == len(whole["choices"][0]["message"].get("tool_calls", ())), seed


def test_a_gap_is_reported_and_ends_the_stream() -> None:
    builder = ResponseBuilder(RUN, "s1", created_at=5)
    events = [*builder.start(), *builder.add("a")]
    responses, completions = (
        ResponseStream(envelope(TurnId(RUN)), None),
        CompletionStream(Frame(turn=TurnId(RUN), model="m"), None),
    )
    for event in events:
        responses.spell(event)
        completions.spell(event)
    [error] = events_of(responses.spell(Gap(3, 9)))
    assert (error["type"], error["code"]) == ("error", "events_lost")
    [chunk] = chunks_of(completions.spell(Gap(3, 9)))
    assert chunk["error"]["code"] == "events_lost"
    assert responses.ended
    assert completions.ended


def test_a_run_without_events() -> None:
    """A run that was stopped before its start has a terminal event only."""
    end = ResponseBuilder(RUN, "s1", created_at=5).stop("stopped_before_start", completed_at=5)
    sent = events_of(spelled(ResponseStream(envelope(TurnId(RUN)), None), end))
    assert [event["type"] for event in sent] == [
        "response.created",
        "response.in_progress",
        "response.incomplete",
    ]
    chunks = chunks_of(spelled(CompletionStream(Frame(turn=TurnId(RUN), model="m"), None), end))
    assert chunks[-1]["error"]["code"] == "stopped"


def test_the_call_of_an_earlier_turn_gets_its_output() -> None:
    output = Message("tool", "plugin_call_output", [DataContent({"call_id": "c1", "name": "f", "output": 5})])
    builder = ResponseBuilder(RUN, "s1", created_at=5)
    builder.start()
    turn = TurnId(RUN, 2)
    sent = events_of(spelled(ResponseStream(envelope(turn), None, begun=5), builder.add(output)))
    kinds = [event["type"].removeprefix("response.") for event in sent]
    assert kinds[2:] == [
        *("output_item.added", "mcp_call.in_progress", "mcp_call_arguments.delta", "mcp_call_arguments.done"),
        *("mcp_call.completed", "output_item.done"),
    ]
    assert sent[-1]["item"]["output"] == "5"


def test_ids_of_turns() -> None:
    assert TurnId.read("resp_run-12345", "resp_") == TurnId("run-12345")
    assert TurnId.read("resp_run-12345.2", "resp_") == TurnId("run-12345", 2)
    assert TurnId("run-12345", 2).under("resp_") == "resp_run-12345.2"
    for wrong in (None, 5, "", "resp_", "resp_short", "run-12345", "resp_run-12345.0", "resp_run-12345.x"):
        assert TurnId.read(wrong, "resp_") is None
