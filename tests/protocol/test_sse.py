"""Frames, read back by a parser that knows the format and nothing of ours."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_agentapp.protocol import DONE, KEEP_ALIVE, PREAMBLE, ResponseBuilder, field_safe, frame, spell


def parse(raw: bytes) -> list[dict[str, str]]:
    """The events of a stream, as the HTML standard says to read them."""
    text = raw.decode().replace("\r\n", "\n").replace("\r", "\n")
    events: list[dict[str, str]] = []
    fields: dict[str, list[str]] = {}
    for line in text.split("\n"):
        if not line:
            if "data" in fields:
                events.append({name: "\n".join(values) for name, values in fields.items()})
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            value = value[1:] if value.startswith(" ") else value
            fields[name] = [*fields.get(name, []), value] if name == "data" else [value]
    assert not fields, "the last frame is not closed"
    return events


def test_preamble_and_comments_are_no_events() -> None:
    assert parse(PREAMBLE + KEEP_ALIVE) == []
    assert PREAMBLE.startswith(b":")
    assert b"\nretry: 3000\n\n" in PREAMBLE
    assert parse(DONE) == [{"data": "[DONE]"}]


@pytest.mark.parametrize(
    "text", ["plain", "a\nb", "\r\n\r\ndata: x\n\nid: 7\n\n", "\u2028\u2029\x85\0", "😀", " lead"]
)
def test_a_frame_is_one_event_whatever_the_text(text: str) -> None:
    builder = ResponseBuilder("abcdefgh", "s", created_at=1)
    builder.start()
    raw = b"".join(frame(event) for event in builder.add(text))
    events = parse(raw)
    assert [event["id"] for event in events] == ["2", "3"]
    assert json.loads(events[1]["data"])["text"] == text
    assert all(set(event) == {"id", "data"} for event in events)


@given(
    st.text(alphabet=st.sampled_from("a :\r\n\0\u2028") | st.characters(codec="utf-8")),
    st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r\n\0")),
    st.integers(0),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_spelling_round_trips_and_cannot_be_injected_into(data: str, name: str, number: int) -> None:
    if "\0" in data:
        with pytest.raises(ValueError, match="NUL"):
            spell(data, event=name, id=number)
        return
    lines = data.replace("\r\n", "\n").replace("\r", "\n")
    expected = {"id": str(number), "event": name, "data": lines}
    assert parse(spell(data, event=name, id=number)) == [expected]


@pytest.mark.parametrize("evil", ["a\nb", "a\rb", "a\0b", "\n"])
def test_names_and_ids_refuse_line_ends_and_nul(evil: str) -> None:
    assert not field_safe(evil)
    with pytest.raises(ValueError, match="event"):
        spell("x", event=evil)
    with pytest.raises(ValueError, match="id"):
        spell("x", id=evil)


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\n\n", "\r\r", "\n\r"])
def test_data_of_several_lines_stays_data(end: str) -> None:
    data = f"a{end}id: 7{end}event: evil{end}{end}data: b"
    assert parse(spell(data)) == [{"data": data.replace("\r\n", "\n").replace("\r", "\n")}]


def test_bytes_and_surrogates() -> None:
    assert spell(b"{}", event="gap") == b"event: gap\ndata: {}\n\n"
    assert spell("a\ud800b", id="\udc00") == "id: \ufffd\ndata: a\ufffdb\n\n".encode()
    assert spell("") == b"data: \n\n"
