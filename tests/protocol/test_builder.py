"""Items to events: the golden chat, every kind of item, every ending."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from trio_agentapp.errors import ItemError
from trio_agentapp.protocol import (
    AudioContent,
    DataContent,
    Event,
    FileContent,
    ImageContent,
    Message,
    RefusalContent,
    ResponseBuilder,
    TextContent,
    encode_event,
)
from trio_agentapp.protocol import builder as builder_module
from trio_agentapp.protocol.builder import MAX_ASIDE


def live() -> ResponseBuilder:
    builder = ResponseBuilder("run-0001", "s1", created_at=100)
    builder.start()
    return builder


def run(*items: object) -> list[dict[str, Any]]:
    """The JSON of the events between the first two and the terminal one."""
    builder = live()
    events = [event for item in items for event in builder.add(item)]
    return spelled([*events, *builder.complete(completed_at=101)])[:-1]


def spelled(events: Sequence[Event]) -> list[dict[str, Any]]:
    return [json.loads(encode_event(event)) for event in events]


def brief(events: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Each event in a few words, for tests about order."""
    words = []
    for event in events:
        if event["object"] == "content":
            value = event.get(event["type"], event.get("data"))
            words.append((event["type"], event["status"], event["index"], event["delta"], value))
        else:
            words.append((event["object"], event["status"], event.get("type")))
    return words


def test_the_golden_chat() -> None:
    builder = ResponseBuilder("3d8d", "s1", created_at=1795324939)
    events = [*builder.start(), *builder.add("Hello"), *builder.add(" World!")]
    events += builder.complete(completed_at=1795324940)
    msg = events[2].id
    assert msg.startswith("msg_")
    response = (
        '{"sequence_number":%d,"object":"response","status":"%s","error":null,"id":"response_3d8d",'
        '"created_at":1795324939,"completed_at":%s,"output":%s,"usage":null,"session_id":"s1"}'
    )
    message = (
        '{"sequence_number":%d,"object":"message","status":"%s","error":null,"id":"' + msg + '","type":"message",'
        '"role":"assistant","content":%s,"code":null,"message":null,"usage":null,"metadata":null}'
    )
    content = (
        '{"sequence_number":%d,"object":"content","status":"%s","error":null,"type":"text","index":0,'
        '"delta":%s,"msg_id":"' + msg + '","text":"%s"}'
    )
    whole = content % (5, "completed", "false", "Hello World!")
    closed = message % (6, "completed", f"[{whole}]")
    assert [encode_event(event).decode() for event in events] == [
        response % (0, "created", "null", "null"),
        response % (1, "in_progress", "null", "null"),
        message % (2, "in_progress", "null"),
        content % (3, "in_progress", "true", "Hello"),
        content % (4, "in_progress", "true", " World!"),
        whole,
        closed,
        response % (7, "completed", "1795324940", f"[{closed}]"),
    ]


def test_an_event_is_encoded_once() -> None:
    (_, event) = live().add("x")
    assert encode_event(event) is encode_event(event)


def test_none_and_empty_text_are_nothing() -> None:
    assert run(None, "", TextContent("", delta=True), (None, False), ("", False)) == []


def test_deltas_of_one_type_make_one_part() -> None:
    assert brief(
        run(
            TextContent("a", delta=True),
            "b",
            RefusalContent("no", delta=True),
            RefusalContent("!", delta=True),
            ImageContent(image_url="u"),
            "c",
            TextContent("whole"),
        )
    ) == [
        ("message", "in_progress", "message"),
        ("text", "in_progress", 0, True, "a"),
        ("text", "in_progress", 0, True, "b"),
        ("text", "completed", 0, False, "ab"),
        ("refusal", "in_progress", 1, True, "no"),
        ("refusal", "in_progress", 1, True, "!"),
        ("refusal", "completed", 1, False, "no!"),
        ("image", "completed", 2, False, None),
        ("text", "in_progress", 3, True, "c"),
        ("text", "completed", 3, False, "c"),
        ("text", "completed", 4, False, "whole"),
        ("message", "completed", "message"),
    ]


def test_payloads_keep_their_fields() -> None:
    events = run(
        ImageContent(image_url="u"),
        FileContent(file_id="f"),
        AudioContent("QQ", "wav", delta=True),
        AudioContent("==", delta=True),
    )
    contents = events[-1]["content"]
    assert contents[0]["image_url"] == "u"
    assert list(contents[1])[-4:] == ["file_url", "file_id", "filename", "file_data"]
    assert (contents[2]["data"], contents[2]["format"]) == ("QQ==", "wav")


def test_data_deltas_fold() -> None:
    pieces = [
        {"call_id": "c1", "name": "add", "arguments": "{"},
        {"call_id": "c1", "name": None, "arguments": '"a"'},
        {"call_id": None, "arguments": ":1}", "n": 1},
        {"n": 2},
    ]
    events = run(*(DataContent(piece, delta=True) for piece in pieces))
    assert events[-2]["data"] == {"call_id": "c1", "name": "add", "arguments": '{"a":1}', "n": 2}
    assert run(DataContent("a", delta=True), DataContent("b", delta=True))[-2]["data"] == "ab"
    assert run(DataContent([1], delta=True), DataContent({"b": 1}, delta=True))[-2]["data"] == {"b": 1}


def test_a_message_is_whole_and_closes_what_is_open() -> None:
    message = Message(
        type="reasoning", content=[TextContent("why"), DataContent({"a": 1})], id="m1", metadata={"k": 1}
    )
    events = run("a", message, "b")
    assert brief(events) == [
        ("message", "in_progress", "message"),
        ("text", "in_progress", 0, True, "a"),
        ("text", "completed", 0, False, "a"),
        ("message", "completed", "message"),
        ("message", "in_progress", "reasoning"),
        ("text", "completed", 0, False, "why"),
        ("data", "completed", 1, False, {"a": 1}),
        ("message", "completed", "reasoning"),
        ("message", "in_progress", "message"),
        ("text", "in_progress", 0, True, "b"),
        ("text", "completed", 0, False, "b"),
        ("message", "completed", "message"),
    ]
    assert (events[7]["id"], events[7]["metadata"]) == ("m1", {"k": 1})


def test_two_messages_never_share_an_id() -> None:
    builder = live()
    for text in "ab":
        builder.add(Message(content=text, id="m"))
    first, second = builder.messages
    assert first.id == "m"
    assert second.id != "m"


@pytest.mark.parametrize("id", ["m1", None])
def test_pairs_are_cumulative(id: str | None) -> None:
    events = run(
        (Message(content="He", id=id), False),
        (Message(content="Hello", id=id), False),
        (Message(content="Hello", id=id), False),
        (Message(content="Hello!", id=id, usage={"t": 3}), True),
        "after",
    )
    assert brief(events)[:7] == [
        ("message", "in_progress", "message"),
        ("text", "in_progress", 0, True, "He"),
        ("text", "in_progress", 0, True, "llo"),
        ("text", "in_progress", 0, True, "!"),
        ("text", "completed", 0, False, "Hello!"),
        ("message", "completed", "message"),
        ("message", "in_progress", "message"),
    ]
    assert events[5]["usage"] == {"t": 3}
    assert events[5]["id"] == id or id is None


def test_pairs_of_another_message_close_the_open_one() -> None:
    other = [
        Message(content="b", type="reasoning"),
        Message(content="b", role="tool"),
    ]
    for message in other:
        events = run((Message(content="a", id="m1"), False), (message, False))
        assert [event["status"] for event in events if event["object"] == "message"] == [
            "in_progress",
            "completed",
        ] * 2


def test_pairs_with_other_ids_grow_beside_the_open_one() -> None:
    def pair(id: str, text: str, last: bool = False) -> tuple[Message, bool]:
        return Message(content=text, id=id), last

    assert brief(run(pair("a", "X"), pair("b", "Y"), pair("a", "X more", True), "!", pair("b", "Y more"))) == [
        ("message", "in_progress", "message"),
        ("text", "in_progress", 0, True, "X"),
        ("message", "in_progress", "message"),
        ("text", "in_progress", 0, True, "Y"),
        ("text", "in_progress", 0, True, " more"),
        ("text", "completed", 0, False, "X more"),
        ("message", "completed", "message"),
        ("message", "in_progress", "message"),
        ("text", "in_progress", 0, True, "!"),
        ("text", "completed", 0, False, "!"),
        ("message", "completed", "message"),
        ("text", "in_progress", 0, True, " more"),
        ("text", "completed", 0, False, "Y more"),
        ("message", "completed", "message"),
    ]


def test_an_item_that_does_not_fit_changes_nothing_of_messages_that_grow_in_turns() -> None:
    builder = ResponseBuilder("run-0001", "s1", created_at=1)
    builder.start()
    builder.add((Message(content="X", id="a"), False))
    builder.add((Message(content="Y", id="b"), False))
    with pytest.raises(ItemError):
        builder.add((Message(content="other", id="a"), False))
    builder.add((Message(content="Y2", id="b"), True))
    assert [message.text for message in builder.messages] == ["Y2"]
    builder.complete(completed_at=2)
    # In the order in which they began.
    assert [message.text for message in builder.messages] == ["X", "Y2"]


def test_messages_that_grow_in_turns_are_bounded() -> None:
    builder = ResponseBuilder("run-0001", "s1", created_at=1)
    builder.start()
    for number in range(MAX_ASIDE + 3):
        builder.add((Message(content="X", id=str(number)), False))
    assert [message.id for message in builder.messages] == ["0", "1"]


def test_a_pair_does_not_continue_what_was_not_cumulative() -> None:
    closed = [event["content"] for event in run("a", (Message(content="ab"), True)) if event.get("content")]
    assert [[part["text"] for part in content] for content in closed] == [["a"], ["ab"]]


def test_growing_parts_of_a_pair_are_sent_when_they_are_done() -> None:
    def snapshot(*parts: Any) -> Message:
        return Message(content=list(parts), id="m")

    call, more = DataContent({"arguments": "{"}), DataContent({"arguments": "{}"})
    image = ImageContent(image_url="u")
    assert brief(
        run(
            (snapshot(TextContent("a"), call), False),
            (snapshot(TextContent("ab"), more), False),
            (snapshot(TextContent("ab"), more, image), False),
            (snapshot(TextContent("ab"), more, image, TextContent("")), False),
            (snapshot(TextContent("ab"), more, image, TextContent("c"), call), True),
        )
    ) == [
        ("message", "in_progress", "message"),
        ("text", "in_progress", 0, True, "a"),
        ("text", "in_progress", 0, True, "b"),
        ("text", "completed", 0, False, "ab"),
        ("data", "completed", 1, False, {"arguments": "{}"}),
        ("image", "completed", 2, False, None),
        ("text", "in_progress", 3, True, "c"),
        ("text", "completed", 3, False, "c"),
        ("data", "completed", 4, False, {"arguments": "{"}),
        ("message", "completed", "message"),
    ]


def test_a_held_part_is_not_lost_when_the_message_ends_otherwise() -> None:
    held = (Message(type="function_call", content=[DataContent({"call_id": "c"})], id="m"), False)
    assert ("data", "completed", 0, False, {"call_id": "c"}) in brief(run(held, "next"))
    builder = live()
    builder.add(held)
    assert ("data", "incomplete", 0, False, {"call_id": "c"}) in brief(spelled(builder.stop("x", completed_at=1)))


@pytest.mark.parametrize(
    "second",
    [
        Message(content="Jello", id="m"),
        Message(content="Hel", id="m"),
        Message(content=[], id="m"),
        Message(content=[DataContent(1)], id="m"),
    ],
)
def test_a_pair_that_takes_back_what_was_sent_is_refused(second: Message) -> None:
    builder = live()
    builder.add((Message(content="Hello", id="m"), False))
    with pytest.raises(ItemError, match="cumulative"):
        builder.add((second, False))
    assert brief(spelled(builder.add((Message(content="Hello!", id="m"), True))))[0] == (
        "text",
        "in_progress",
        0,
        True,
        "!",
    )


def test_a_pair_may_not_change_a_closed_part() -> None:
    builder = live()
    image = ImageContent(image_url="u")
    builder.add((Message(content=[TextContent("a"), image], id="m"), False))
    for parts in ([TextContent("ab"), image], [TextContent("a"), ImageContent(image_url="v")]):
        with pytest.raises(ItemError, match="changed after"):
            builder.add((Message(content=parts, id="m"), False))


def test_pairs_of_text_and_content() -> None:
    events = run(
        ("a", False), ("b", True), (TextContent("c", delta=True), True), ({"type": "text", "text": "d"}, True)
    )
    closed = [[part["text"] for part in event["content"]] for event in events if event.get("content")]
    assert closed == [["ab"], ["c"], ["d"]]


def test_dicts_spell_messages_and_content() -> None:
    events = run(
        {"role": "assistant", "content": "hi"},
        {"type": "reasoning", "content": [{"type": "text", "text": "why"}]},
        {
            "type": "function_call_output",
            "content": [{"type": "data", "data": {"call_id": "c", "output": 1}}],
        },
        {"type": "text", "text": "x", "delta": True},
        {"type": "data", "data": {"a": 1}},
    )
    closed = [event for event in events if event["object"] == "message" and event["content"]]
    assert [(event["type"], event["role"]) for event in closed] == [
        ("message", "assistant"),
        ("reasoning", "assistant"),
        ("function_call_output", "tool"),
        ("message", "assistant"),
    ]


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("item", "match"),
    [
        ({1, 2}, "not set"),
        (5, "not int"),
        (b"x", "not bytes"),
        (("a", 1), "not tuple"),
        (("a", False, 1), "not tuple"),
        (({1}, False), "not set"),
        ([], "not list"),
        ({}, "role"),
        ({"type": "letter"}, "role"),
        ({"type": ["text"]}, "role"),
        ({"type": "text", "text": 5}, r"\$\.text"),
        ({"role": "robot", "content": "x"}, r"\$\.role"),
        (DataContent({"a": {1}}), r"set at \$\.data\.a"),
        (DataContent({"a": [0, object()]}), r"object at \$\.data\.a\[1\]"),
        (DataContent({"a": [0, object()]}, delta=True), r"object at \$\.data\.a\[1\]"),
        (DataContent({1: 2}), "key of type int"),
        (DataContent(float("nan")), "not finite"),
        (DataContent(2**64), "64 bits"),
        (DataContent(CYCLE), "nested"),
        (TextContent(5), "TextContent.text must be a str"),
        (ImageContent(image_url=5), "ImageContent.image_url"),
        (Message(content=[TextContent("x"), DataContent(b"")]), "bytes"),
        (Message(content="x", id="a\nb"), "Message.id"),
        (Message(content="x", id=5), "Message.id"),
        (Message(content="x", metadata={"a": {1}}), r"\$\.metadata\.a"),
        (Message(content="x", usage=5), "usage"),
        (Message(content="x", code=5), "code"),
    ],
)
def test_what_cannot_be_sent_is_named_and_changes_nothing(item: object, match: str) -> None:
    touched, clean = live(), live()
    for builder in (touched, clean):
        builder.add("a")
    with pytest.raises(ItemError, match=match):
        touched.add(item)
    after = [spelled([*b.add("b"), *b.complete(completed_at=2)]) for b in (touched, clean)]
    assert brief(after[0]) == brief(after[1])
    assert after[0][0]["sequence_number"] == after[1][0]["sequence_number"] == 4


def test_later_changes_of_a_yielded_object_do_not_reach_its_event() -> None:
    data = {"a": [1]}
    builder = live()
    events = builder.add(DataContent(data))
    data["a"].append(2)
    assert spelled(events)[-1]["data"] == {"a": [1]}
    builder.complete(completed_at=1)
    builder.messages[0].content[0].data["a"].append(3)
    assert builder.messages[0].content[0].data == {"a": [1]}


def test_lone_surrogates_are_replaced_everywhere_alike() -> None:
    bad, good = "a\ud800b\udc00", "a\ufffdb\ufffd"
    builder = live()
    items = [
        bad,
        bad,
        DataContent({bad: [bad]}),
        (Message(content=bad, id="m"), False),
        (Message(content=bad * 2, id="m"), True),
    ]
    items += [Message(type="error", content=[RefusalContent(bad)], code=bad, message=bad)]
    events = [event for item in items for event in builder.add(item)]
    events += builder.fail("exception", bad, completed_at=1)
    text = "".join(encode_event(event).decode() for event in events)
    assert "\\ud" not in text
    assert spelled(events)[-1]["error"] == {"code": "exception", "message": good}
    first, second, third = builder.messages
    assert first.text == second.text == good * 2
    assert first.content[1].data == {good: [good]}
    assert (third.code, third.content[0].refusal) == (good, good)


def test_a_subclass_of_str_is_text() -> None:
    class Token(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "wrong"

    assert run(Token("a"), Token("b"))[-2]["text"] == "ab"


def test_a_stop_closes_everything_as_incomplete() -> None:
    builder = live()
    builder.add("so far")
    builder.usage = {"tokens": 3}
    events = spelled(builder.stop("asked", completed_at=7))
    assert brief(events) == [
        ("text", "incomplete", 0, False, "so far"),
        ("message", "incomplete", "message"),
        ("response", "canceled", None),
    ]
    last = events[-1]
    assert last["error"] == {"code": "stopped", "message": "asked"}
    assert (last["completed_at"], last["usage"], last["output"]) == (7, {"tokens": 3}, [events[1]])
    assert builder.messages[0].text == "so far"


@pytest.mark.parametrize("ending", ["stop", "fail"])
def test_a_tool_call_without_output_gets_one(ending: str) -> None:
    builder = live()
    builder.add(Message.tool_call("a", {}, call_id="answered"))
    builder.add(Message.tool_output("answered", 1))
    builder.add(Message.tool_call("b", {}, call_id="open"))
    builder.add(Message(type="mcp_call", content=[DataContent({"call_id": "mcp"})]))
    builder.add(Message.tool_output("mcp", "of another type, so no answer"))
    if ending == "stop":
        events = builder.stop("asked", completed_at=1)
    else:
        events = builder.fail("exception", "words", completed_at=1)
    answers = builder.messages[5:]
    assert [(m.role, m.type, m.content[0].data) for m in answers] == [
        ("tool", "function_call_output", {"call_id": "open", "output": "interrupted"}),
        ("tool", "mcp_call_output", {"call_id": "mcp", "output": "interrupted"}),
    ]
    assert len(events[-1].output) == 7


def test_a_completed_run_leaves_its_calls_to_the_client() -> None:
    builder = live()
    builder.add(Message.tool_call("a", {}, call_id="open"))
    assert len(builder.complete(completed_at=1)) == 1


def test_the_three_endings_that_need_no_start() -> None:
    for end in ("stop", "fail", "reject"):
        builder = ResponseBuilder("run-0001", None, created_at=1)
        words = ("r",) if end == "stop" else ("code", "words")
        (event,) = getattr(builder, end)(*words, completed_at=2)
        assert event.terminal
        assert event.sequence_number == 0
        assert event.output == ()


@pytest.mark.parametrize("end", ["complete", "stop", "fail", "reject"])
def test_nothing_comes_after_the_terminal_event(end: str) -> None:
    words = {"complete": (), "stop": ("r",), "fail": ("c", "m"), "reject": ("c", "m")}
    builder = live()
    builder.add("x")
    events = getattr(builder, end)(*words[end], completed_at=1)
    assert [event.object == "response" and event.terminal for event in events] == [False, False, True]
    for again in words:
        with pytest.raises(RuntimeError):
            getattr(builder, again)(*words[again], completed_at=1)
    for item in ("x", "", None, Message(content="y")):
        with pytest.raises(RuntimeError):
            builder.add(item)
    with pytest.raises(RuntimeError):
        builder.start()


def test_before_the_start_nothing_can_be_added() -> None:
    builder = ResponseBuilder("run-0001", None, created_at=1)
    with pytest.raises(RuntimeError):
        builder.add("x")
    with pytest.raises(RuntimeError):
        builder.complete(completed_at=1)
    builder.start()
    with pytest.raises(RuntimeError):
        builder.start()


def test_usage_must_be_json() -> None:
    builder = live()
    for wrong in (5, {"a": {1}}):
        with pytest.raises(ItemError):
            builder.usage = wrong
    assert builder.usage is None


def test_usage_is_told_at_the_end_only() -> None:
    builder = ResponseBuilder("run-0001", None, created_at=1)
    builder.usage = {"tokens": 3}
    events = [*builder.start(), *builder.complete(completed_at=2)]
    assert [event.usage for event in events] == [None, None, {"tokens": 3}]


def test_events_are_easy_to_read_in_process() -> None:
    builder = live()
    events = [*builder.add("He"), *builder.add("llo"), *builder.complete(completed_at=1)]
    assert "".join(e.text for e in events if e.object == "content" and e.delta) == "Hello"
    assert [e.object == "response" and e.terminal for e in events] == [False] * 5 + [True]


def test_weights_grow_with_what_they_weigh() -> None:
    builder = live()
    (_, small), (big,) = builder.add("a"), builder.add("b" * 10_000)
    assert big.weight - small.weight == 9_999
    (_, data) = builder.add(DataContent({"k": ["x" * 5000]}))
    assert 5000 < data.weight < 6000
    *_, message, response = builder.complete(completed_at=1)
    assert response.weight > message.weight > 15_000


def texts(*items: object) -> list[str]:
    return [event["text"] for event in run(*items) if event["object"] == "content" and event["delta"]]


def test_halves_of_a_character_are_joined_where_they_meet() -> None:
    assert texts("a\ud83d", "\ude00b") == ["a", "\U0001f600b"]
    assert texts("\ud83d", "\ude00") == ["\U0001f600"]
    assert texts("a\ud83d\ude00b") == ["a\U0001f600b"]
    assert texts("a", TextContent("\ud83d", delta=True), "\ude00") == ["a", "\U0001f600"]
    assert texts("a\ud83d", "b") == ["a", "\ufffdb"]
    assert texts("a\ude00", "b") == ["a\ufffd", "b"]
    assert texts("a\ud83d", "\ud83d", "\ude00") == ["a", "\ufffd", "\U0001f600"]
    assert texts("a\ud83d") == ["a", "\ufffd"]
    assert texts("a\ud83d", None, "\ude00") == ["a", "\U0001f600"]
    assert texts("a\ud83d", DataContent({"x": 1}), "b") == ["a", "\ufffd", "b"]


def test_halves_of_a_character_are_joined_in_growing_messages() -> None:
    grown = [(Message(content=text, id="m"), False) for text in ("a", "a\ud83d", "a\U0001f600", "a\U0001f600b")]
    assert texts(*grown) == ["a", "\U0001f600", "b"]
    assert texts((Message(content="a\ud83d", id="m"), False), (Message(content="a\ud83d", id="m"), True)) == [
        "a",
        "\ufffd",
    ]


def grown(id: str, text: str, last: bool = False, **frame: Any) -> tuple[Message, bool]:
    return Message(content=text, id=id, **frame), last


def closed_texts(events: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Id, text and status of each message that was closed; the deltas of each must say the same."""
    deltas: dict[str, str] = {}
    for event in events:
        if event["object"] == "content" and event["delta"]:
            deltas[event["msg_id"]] = deltas.get(event["msg_id"], "") + event["text"]
    closed = [event for event in events if event["object"] == "message" and event["content"] is not None]
    found = [(event["id"], "".join(part["text"] for part in event["content"]), event["status"]) for event in closed]
    assert {id: text for id, text, _ in found if id in deltas} == deltas
    return found


def test_a_whole_message_between_does_not_end_a_growing_one() -> None:
    whole = Message(content="W", id="w")
    events = run(grown("a", "X"), whole, grown("t", "T", type="reasoning"), "word", grown("a", "X more"))
    assert [(id, text) for id, text, _ in closed_texts(events) if id in "awt"] == [
        ("w", "W"),
        ("a", "X more"),
        ("t", "T"),
    ]


def test_a_call_that_grows_comes_before_its_output() -> None:
    call = Message(type="function_call", content=[DataContent({"call_id": "c", "arguments": "{"})], id="a")
    builder = live()
    for item in ((call, False), grown("b", "Y"), Message.tool_output("c", 1)):
        builder.add(item)
    builder.stop("stopped", completed_at=1)
    assert [message.type for message in builder.messages] == ["function_call", "message", "function_call_output"]


def test_the_arguments_of_a_call_in_pieces() -> None:
    pieces = ({"call_id": "c", "name": "f", "arguments": '{"a"'}, {"arguments": ": 1}"})
    call = Message(type="function_call"), False
    events = run("Look. ", call, *(DataContent(piece, delta=True) for piece in pieces), "Done.")
    assert [(each["object"], each["status"], each["type"]) for each in events[4:10]] == [
        ("message", "in_progress", "function_call"),
        ("content", "in_progress", "data"),
        ("content", "in_progress", "data"),
        ("content", "completed", "data"),
        ("message", "completed", "function_call"),
        ("message", "in_progress", "message"),
    ]
    assert events[7]["data"] == {"call_id": "c", "name": "f", "arguments": '{"a": 1}'}


def test_pieces_without_an_open_call_are_a_message() -> None:
    whole = Message(type="function_call", content=[DataContent({"call_id": "c"})]), False
    for before in ("text", whole, (Message(type="reasoning"), False)):
        events = run(before, DataContent({"a": 1}, delta=True))
        closed = [event for event in events if event["object"] == "message" and event["content"] is not None]
        [kind] = [each["type"] for each in closed if any(part.get("data") == {"a": 1} for part in each["content"])]
        assert kind == "message"


def test_two_growing_messages_of_one_id_are_both_closed() -> None:
    events = run(grown("a", "X"), grown("a", "Y", type="reasoning"), grown("b", "Z"))
    assert sorted(text for _, text, _ in closed_texts(events)) == ["X", "Y", "Z"]


GROWN = [(Message(id="a", content="x" * 5_000 * number), False) for number in range(1, 400)]


@pytest.mark.parametrize(
    ("items", "whole"),
    [
        (["x" * 60_000, "y" * 39_000], True),
        (["x" * 60_000, "y" * 41_000], False),
        (["\N{SNOWMAN}" * 30_000, "\N{SNOWMAN}" * 4_000], False),
        (["a", DataContent({"rows": ["x" * 50_000, "x" * 50_000]})], False),
        ([Message(content="x" * 60_000)] * 2, False),
        ([Message(content=str(number)) for number in range(1_000)], False),
        (GROWN[:19], True),
        (GROWN[:21], False),
        ([(Message(id=id, content="x" * 5_000 * number), False) for number in range(1, 10) for id in "ab"], True),
        ([(Message(id=id, content="x" * 5_000 * number), False) for number in range(1, 12) for id in "ab"], False),
    ],
)
def test_an_answer_has_a_limit(monkeypatch: pytest.MonkeyPatch, items: list[object], whole: bool) -> None:
    """What came before the item that is too much stands; growing messages count once."""
    monkeypatch.setattr(builder_module, "MAX_ANSWER_BYTES", 100_000)
    builder = ResponseBuilder("run", None, created_at=0)
    builder.start()
    refused = False
    try:
        for item in items:
            builder.add(item)
    except builder_module.AnswerTooLarge:
        refused = True
    assert refused is not whole
    last = builder.fail("answer_too_large", "", completed_at=0)[-1]
    assert 0 < last.weight < 101_000


def test_the_arguments_of_a_tool_call_arrive_in_pieces() -> None:
    builder = ResponseBuilder("r", "s", created_at=1)
    builder.start()
    events = [*builder.add((Message(type="function_call", id="m"), False))]
    events += builder.add(DataContent({"call_id": "c", "name": "look", "arguments": ""}, delta=True))
    events += builder.add(DataContent({"arguments": '{"a"'}, delta=True))
    events += builder.add(DataContent({"arguments": ":1}"}, delta=True))
    events += builder.add("Now.")
    whole = {"call_id": "c", "name": "look", "arguments": '{"a":1}'}
    assert [(e.object, e.status, getattr(e, "data", None)) for e in events[:6]] == [
        ("message", "in_progress", None),
        ("content", "in_progress", {"call_id": "c", "name": "look", "arguments": ""}),
        ("content", "in_progress", {"arguments": '{"a"'}),
        ("content", "in_progress", {"arguments": ":1}"}),
        ("content", "completed", whole),
        ("message", "completed", None),
    ]
    assert [(e.object, e.status) for e in events[6:]] == [("message", "in_progress"), ("content", "in_progress")]
    *_, end = builder.fail("exception", "no", completed_at=2)
    assert [message.type for message in end.output] == ["function_call", "message", "function_call_output"]
