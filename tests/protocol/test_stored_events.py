"""Events and messages through a store: what comes back is what was put, and its bytes too."""

from __future__ import annotations

from typing import Any

import attrs
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_agentapp.errors import MalformedBody, ValidationError
from trio_agentapp.protocol.builder import ResponseBuilder
from trio_agentapp.protocol.codec import encode_event
from trio_agentapp.protocol.content import CLASSES, FIELDS
from trio_agentapp.protocol.events import TERMINAL, ContentEvent, Failure, MessageEvent, ResponseEvent
from trio_agentapp.protocol.message import MESSAGE_TYPES, ROLES, Message
from trio_agentapp.protocol.message_json import decode_message, decode_messages, encode_message
from trio_agentapp.protocol.stored_events import decode_event

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECT = st.none() | st.dictionaries(TEXT, JSON, max_size=3)
NUMBER = st.integers(0, 2**53)
FAILURE = st.none() | st.builds(Failure, TEXT, TEXT)
STATUS = st.sampled_from(["created", "in_progress", "incomplete", *sorted(TERMINAL)])


@st.composite
def contents(draw: st.DrawFn) -> ContentEvent:
    kind = draw(st.sampled_from(list(CLASSES)))
    payload = None if kind == "text" else {name: draw(JSON) for name in FIELDS[kind]}
    text = draw(TEXT) if kind == "text" else ""
    return ContentEvent(
        draw(NUMBER),
        draw(STATUS),
        kind,
        draw(NUMBER),
        draw(st.booleans()),
        draw(TEXT),
        text,
        payload,
        draw(FAILURE),
    )


MESSAGES = st.builds(
    MessageEvent,
    NUMBER,
    STATUS,
    TEXT,
    st.sampled_from(MESSAGE_TYPES),
    st.sampled_from(ROLES),
    st.none() | st.lists(contents(), max_size=2).map(tuple),
    st.none() | TEXT,
    st.none() | TEXT,
    OBJECT,
    OBJECT,
    FAILURE,
)
RESPONSES = st.builds(
    ResponseEvent,
    NUMBER,
    STATUS,
    TEXT,
    NUMBER,
    st.none() | NUMBER,
    st.none() | st.lists(MESSAGES, max_size=2).map(tuple),
    OBJECT,
    st.none() | TEXT,
    FAILURE,
)


@given(st.one_of(contents(), MESSAGES, RESPONSES))
@settings(max_examples=100, deadline=None)
def test_every_event_comes_back(event: Any) -> None:
    raw = encode_event(event)
    back = decode_event(raw)
    assert back == event
    assert type(back) is type(event)
    assert back.encoded is raw
    assert back.weight == event.weight
    # Also made anew, and with every event inside of it.
    assert encode_event(attrs.evolve(back)) == raw


@pytest.mark.parametrize("kind", list(CLASSES))
def test_every_kind_that_a_builder_makes(kind: Any) -> None:
    builder = ResponseBuilder("run-00001", "s", created_at=1)
    events = [*builder.start(), *builder.add(Message(content=[CLASSES[kind]()])), *builder.complete(completed_at=2)]
    assert [decode_event(encode_event(event)) for event in events] == events
    for event in events:
        assert encode_event(attrs.evolve(decode_event(encode_event(event)))) == encode_event(event)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"x",
        b"[]",
        b"1",
        b"null",
        b"{}",
        b'{"object":"x"}',
        b'{"object":"response"}',
        b'{"object":"content","sequence_number":0}',
        b'{"object":"message","sequence_number":0,"content":1}',
    ],
)
def test_what_is_no_event_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  orjson's is one, too
        decode_event(raw)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    parts = []
    for kind in draw(st.lists(st.sampled_from(list(CLASSES)), max_size=3)):
        # As they are once they have been let in.
        fields = {name: draw(JSON if kind == "data" else TEXT.filter(bool)) for name in FIELDS[kind]}
        parts.append(CLASSES[kind](**fields))
    return Message(
        role=draw(st.sampled_from(ROLES)),
        type=draw(st.sampled_from(MESSAGE_TYPES)),
        content=parts,
        id=draw(
            st.none() | st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1, max_size=9)
        ),
        code=draw(st.none() | TEXT),
        message=draw(st.none() | TEXT),
        usage=draw(OBJECT),
        metadata=draw(OBJECT),
        extra={f"x-{name}": value for name, value in (draw(OBJECT) or {}).items()},
    )


@given(messages())
@settings(max_examples=100, deadline=None)
def test_every_message_comes_back(message: Message) -> None:
    assert decode_message(encode_message(message)) == message
    assert decode_messages(b"[" + encode_message(message) + b"]") == [message]


def test_a_field_of_the_protocol_is_never_extra() -> None:
    message = Message(content="hi", extra={"code": "mine", "role": "mine", "colour": "red"})
    assert decode_message(encode_message(message)) == Message(content="hi", extra={"colour": "red"})


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", ValidationError),
        (b"{", MalformedBody),
        (b"null", ValidationError),
        (b"[]", ValidationError),
        (b'{"role":"nobody"}', ValidationError),
        (b'{"content":[{"type":"x"}]}', ValidationError),
        (b'{"content":5}', ValidationError),
    ],
)
def test_what_is_no_message_is_told(raw: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        decode_message(raw)


def test_the_numbers_of_json_are_kept() -> None:
    event = ContentEvent(
        0, "in_progress", "data", 0, True, "m", payload={"data": {"x": 1.0, "y": 1, "z": 2**64 - 1}}
    )
    back = decode_event(encode_event(event))
    assert orjson.dumps(back.payload) == orjson.dumps(event.payload)
