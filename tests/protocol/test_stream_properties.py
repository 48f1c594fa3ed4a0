"""What holds of every response, whatever a handler yields and however it ends."""

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from trio_agentapp.errors import ItemError
from trio_agentapp.protocol import (
    AudioContent,
    ContentEvent,
    DataContent,
    Event,
    ImageContent,
    Message,
    RefusalContent,
    ResponseBuilder,
    TextContent,
    encode_event,
)

words = st.text(alphabet="ab é😀\n\ud800\udc00", max_size=5)
values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | words, lambda inner: st.lists(inner, max_size=2)
)
data = st.dictionaries(st.sampled_from(["call_id", "arguments", "x"]), values, max_size=3)
contents = (
    st.builds(TextContent, words, st.booleans())
    | st.builds(RefusalContent, words, st.booleans())
    | st.builds(DataContent, data, st.booleans())
    | st.builds(AudioContent, words, st.just("wav"), st.booleans())
    | st.builds(ImageContent, words)
)
messages = st.builds(
    Message,
    role=st.sampled_from(["assistant", "tool"]),
    type=st.sampled_from(["message", "reasoning", "function_call", "function_call_output"]),
    content=st.lists(contents, max_size=3) | words,
    id=st.sampled_from([None, "m1", "m2"]),
)
bad = st.sampled_from(
    [5, {1}, [], DataContent({"a": {1}}), Message(content=[DataContent(b"")]), {"type": "letter"}]
)
single = st.none() | words | contents | messages | bad


@st.composite
def snapshots(draw: st.DrawFn) -> list[Any]:
    """A cumulative message as it grows, with or without its end."""
    id = draw(st.sampled_from([None, "m1", "m2", "m3"]))
    parts = [*draw(st.lists(contents, max_size=2))]
    growing: list[Any] = []
    text = ""
    for more in draw(st.lists(words, min_size=1, max_size=4)):
        text += more
        growing.append((Message(content=[*parts, TextContent(text)], id=id), False))
    if draw(st.booleans()):
        growing.append((growing[-1][0], True))
    return growing


pairs = st.tuples(single, st.booleans()).map(lambda pair: [pair])
items = st.lists(single.map(lambda item: [item]) | pairs | snapshots(), max_size=12).map(
    lambda groups: [item for group in groups for item in group]
)
ENDS: list[Callable[[ResponseBuilder], Any]] = [
    lambda builder: builder.complete(completed_at=2),
    lambda builder: builder.stop("asked", completed_at=2),
    lambda builder: builder.fail("exception", "words", completed_at=2),
    lambda builder: builder.reject("code", "words", completed_at=2),
]


def respond(items: list[Any], end: Callable[[ResponseBuilder], Any]) -> tuple[ResponseBuilder, list[Event]]:
    builder = ResponseBuilder("run-0001", "s1", created_at=1)
    events = [*builder.start()]
    for item in items:
        try:
            events += builder.add(item)
        except ItemError:
            continue
    events += end(builder)
    return builder, events


@given(items, st.sampled_from(ENDS))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_every_response_is_numbered_bracketed_and_ended_once(items: list[Any], end: Any) -> None:
    builder, events = respond(items, end)
    spelled = [json.loads(encode_event(event)) for event in events]
    assert [event["sequence_number"] for event in spelled] == list(range(len(spelled)))
    assert [event["status"] for event in spelled[:2]] == ["created", "in_progress"]
    terminal = [event for event in spelled if event["object"] == "response"][2:]
    assert terminal == [spelled[-1]]
    closing = "completed" if terminal[0]["status"] == "completed" else "incomplete"

    opened: dict[str, dict[str, Any]] = {}
    parts: dict[str, dict[str, Any]] = {}
    done: dict[str, list[dict[str, Any]]] = {}
    texts: dict[str, str] = {}
    finished: list[dict[str, Any]] = []
    began: list[str] = []
    for event in spelled[2:-1]:
        id = event["id"] if event["object"] == "message" else event["msg_id"]
        if event["object"] == "message" and event["status"] == "in_progress":
            assert id not in began
            assert event["content"] is None
            opened[id], done[id] = event, []
            began.append(id)
        elif event["object"] == "message":
            assert id not in parts
            message = opened.pop(id)
            assert (event["type"], event["role"]) == (message["type"], message["role"])
            assert event["status"] in ("completed", closing)
            assert event["content"] == done[id]
            finished.append(event)
        else:
            assert id in opened
            assert event["index"] == len(done[id])
            if event["delta"]:
                assert event["status"] == "in_progress"
                part = parts.setdefault(id, event)
                if part is event:
                    texts[id] = ""
                assert part["type"] == event["type"]
                texts[id] += event.get("text") or event.get("refusal") or ""
            else:
                part = parts.pop(id, event)
                if part is not event and event["type"] in ("text", "refusal"):
                    assert event[event["type"]] == texts[id]
                assert part["type"] == event["type"]
                done[id].append(event)
    assert not opened
    finished.sort(key=lambda event: began.index(event["id"]))
    assert terminal[0]["output"] == finished
    assert len({event["id"] for event in finished}) == len(finished)
    assert [(m.id, m.text) for m in builder.messages] == [
        (event["id"], "".join(part["text"] for part in event["content"] if part["type"] == "text"))
        for event in finished
    ]


@given(items, st.sampled_from(ENDS[1:3]))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_a_cut_transcript_has_an_output_for_every_call(items: list[Any], end: Any) -> None:
    builder, _ = respond(items, end)
    open_calls = set()
    for message in builder.messages:
        ids = [part.data.get("call_id") for part in message.content if isinstance(part, DataContent)]
        for call_id in [id for id in ids if isinstance(id, str)][:1]:
            if message.type == "function_call":
                open_calls.add(call_id)
            elif message.type == "function_call_output":
                open_calls.discard(call_id)
    assert not open_calls


@given(st.lists(words), st.lists(words))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_refused_item_leaves_no_trace(before: list[str], after: list[str]) -> None:
    def shape(events: list[Event]) -> list[Any]:
        return [(e.sequence_number, e.object, e.status, getattr(e, "text", None)) for e in events]

    clean = [*before, *after]
    dirty = [*before, {1}, (Message(content=[DataContent({1})], id="m"), True), *after]
    assert shape(respond(dirty, ENDS[0])[1]) == shape(respond(clean, ENDS[0])[1])


@given(st.lists(st.tuples(st.sampled_from("abc"), words), max_size=20), st.sampled_from(ENDS))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_messages_may_grow_in_turns(turns: list[tuple[str, str]], end: Any) -> None:
    """One message for each id, and no word of it twice."""
    grown: dict[str, str] = {}
    items = []
    for id, more in turns:
        grown[id] = grown.get(id, "") + more
        items.append((Message(content=grown[id], id=id), False))
    builder, events = respond(items, end)
    if not any("\ud800" in text or "\udc00" in text for text in grown.values()):
        assert {message.id: message.text for message in builder.messages} == grown
        deltas: dict[str, str] = dict.fromkeys(grown, "")
        for event in events:
            if isinstance(event, ContentEvent) and event.delta:
                deltas[event.msg_id] += event.text
        assert deltas == grown
    assert [message.id for message in builder.messages] == list(grown)


plain_words = st.text(alphabet="ab é", min_size=1, max_size=5)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), plain_words), min_size=1, max_size=12),
    st.lists(st.none() | plain_words | messages.filter(lambda message: message.id is None), max_size=12),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_whatever_comes_between_ends_no_message_that_grows(
    turns: list[tuple[str, str]], between: list[Any]
) -> None:
    """Whole messages between; words too, where no growing message of the assistant would take them up."""
    grown: dict[str, str] = {}
    items: list[Any] = []
    for place, (id, more) in enumerate(turns):
        grown[id] = grown.get(id, "") + more
        items.append((Message(content=grown[id], id=id, type="reasoning"), False))
        items += between[place : place + 1]
    builder, events = respond(items, ENDS[0])
    sent = dict.fromkeys(grown, "")
    for event in events:
        if isinstance(event, ContentEvent) and event.delta and event.msg_id in grown:
            sent[event.msg_id] += event.text
    assert sent == grown
    assert [(message.id, message.text) for message in builder.messages if message.id in grown] == list(
        grown.items()
    )
