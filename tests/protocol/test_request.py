"""Bodies in: what is a request, what is malformed, what is of the wrong shape."""

import json
from typing import Any

import pytest

from trio_agentapp.errors import MalformedBody, ValidationError
from trio_agentapp.protocol import (
    AgentRequest,
    CancelAfter,
    DataContent,
    FileContent,
    ImageContent,
    Message,
    TextContent,
    decode_json,
    decode_request,
    request_from,
)

HELLO = {"input": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}


def faults(body: object) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        decode_request(json.dumps(body).encode())
    return dict(caught.value.errors)


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"{'a': 1}",
        b'{"input": [],}',
        b"hello",
        b"\xff\xfe{}",
        b'{"input": "\xff"}',
        b'{"input": "\xed\xa0\x80"}',
        b'{"input": "\\ud800"}',
        b'{"input": "\\udc00 \\ud800"}',
        b'{"top_p": NaN}',
        b'{"top_p": Infinity}',
        b'{"top_p": -Infinity}',
        b'{"top_p": 1e400}',
        b'{"top_p": -1e400}',
        b'{"x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"x": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}",
        b"{} {}",
    ],
)
def test_what_is_not_json_is_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedBody):
        decode_request(raw)


@pytest.mark.parametrize("raw", [b"", b" \r\n\t", b"null", b"[]", b'"text"', b"5", b"true", b"[{}]"])
def test_json_that_is_no_object_is_a_fault_at_the_root(raw: bytes) -> None:
    with pytest.raises(ValidationError) as caught:
        decode_request(raw)
    assert [loc for loc, _ in caught.value.errors] == ["$"]


def test_decode_json_gives_any_value() -> None:
    assert decode_json(b"null") is None
    assert decode_json(b'[1, "\\ud83d\\ude00"]') == [1, "😀"]


def test_a_whole_request() -> None:
    body = {
        **HELLO,
        "session_id": "s1",
        "user_id": "u1",
        "id": "client-run_1",
        "stream": False,
        "model": "m",
        "top_p": 1,
        "temperature": 0.5,
        "frequency_penalty": -1.5,
        "presence_penalty": 0,
        "max_tokens": 10,
        "stop": ["a", "b"],
        "n": 1,
        "seed": 7,
        "tools": [{"name": "t"}],
        "on_disconnect": {"cancel_after": 2.5},
        "timeout_s": 30,
        "multitask_strategy": "reject",
        "background": False,
        "colour": {"deep": [1]},
    }
    request = decode_request(json.dumps(body).encode())
    assert request.input == [Message(role="user", content="hi")]
    assert request.on_disconnect == CancelAfter(2.5)
    assert request.extra == {"colour": {"deep": [1]}}
    for name in body.keys() - {"input", "on_disconnect", "multitask_strategy", "background", "colour"}:
        assert getattr(request, name) == body[name], name


def test_null_means_not_given() -> None:
    names = ["session_id", "user_id", "id", "stream", "top_p", "stop", "tools", "on_disconnect", "timeout_s"]
    names += ["multitask_strategy", "background", "run_id", "max_tokens"]
    assert decode_request(json.dumps({**HELLO, **dict.fromkeys(names)}).encode()) == decode_request(
        json.dumps(HELLO).encode()
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input", None),
        ("input", 5),
        ("input", []),
        ("input", {}),
        ("session_id", ""),
        ("session_id", 5),
        ("session_id", "x" * 10_000),
        ("session_id", "a\u0000b"),
        ("user_id", "x" * 257),
        ("user_id", "a\u009bb"),
        ("user_id", ["u"]),
        ("id", "short"),
        ("id", "x" * 10_000),
        ("id", "abcdefgh\n"),
        ("id", 12345678),
        ("run_id", "no spaces please"),
        ("stream", 1),
        ("stream", "true"),
        ("model", 5),
        ("top_p", "0.5"),
        ("top_p", True),
        ("temperature", []),
        ("frequency_penalty", False),
        ("presence_penalty", {}),
        ("max_tokens", "5"),
        ("max_tokens", 5.0),
        ("max_tokens", True),
        ("n", 1.5),
        ("seed", "x"),
        ("stop", 5),
        ("stop", ["a", 5]),
        ("tools", {}),
        ("tools", ["t"]),
        ("on_disconnect", "stop"),
        ("on_disconnect", {}),
        ("on_disconnect", {"cancel_after": 0}),
        ("on_disconnect", {"cancel_after": "5"}),
        ("on_disconnect", {"cancel_after": True}),
        ("on_disconnect", {"cancel_after": 5, "more": 1}),
        ("on_disconnect", True),
        ("timeout_s", 0),
        ("timeout_s", -1),
        ("timeout_s", "5"),
        ("multitask_strategy", "queue"),
        ("multitask_strategy", 5),
        ("multitask_strategy", ["enqueue"]),
        ("background", 0),
        ("background", "yes"),
    ],
)
def test_a_wrong_field_is_told_by_its_path(field: str, value: object) -> None:
    assert faults({**HELLO, field: value}).keys() == {f"$.{field}"}


@pytest.mark.parametrize("strategy", ["reject", "enqueue", "interrupt", "rollback"])
def test_the_strategies(strategy: str) -> None:
    body = {**HELLO, "multitask_strategy": strategy, "background": True}
    request = decode_request(json.dumps(body).encode())
    assert (request.multitask_strategy, request.background) == (strategy, True)


def test_input_is_required_but_not_for_stops() -> None:
    assert faults({}) == {"$.input": "is required"}
    assert decode_request(b'{"session_id": "s"}', require_input=False).input == []
    assert decode_request(b'{"input": []}', require_input=False).input == []


def test_a_string_is_one_message_of_the_user() -> None:
    assert decode_request(b'{"input": "hi"}').input == [Message(role="user", content="hi")]


@pytest.mark.parametrize(
    ("body", "path", "words"),
    [
        (
            {"messages": HELLO["input"]},
            "$.input",
            "is required; 'messages' is not a field of this object, 'input' is",
        ),
        ({"prompt": "hi"}, "$.input", "is required; 'prompt' is not a field of this object, 'input' is"),
        (
            {"input": [{"role": "user", "text": "hi"}]},
            "$.input[0].content",
            "is required; 'text' is not a field of this object, 'content' is",
        ),
        ({"inputs": "hi"}, "$.input", "is required; 'inputs' is not a field of this object, 'input' is"),
        (
            {"input": [{"role": "user", "contnt": "hi"}]},
            "$.input[0].content",
            "is required; 'contnt' is not a field of this object, 'content' is",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "text", "txt": "hi"}]}]},
            "$.input[0].content[0].text",
            "is required; 'txt' is not a field of this object, 'text' is",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "image", "image": "https://a.example"}]}]},
            "$.input[0].content[0].image_url",
            "is required; 'image' is not a field of this object, 'image_url' is",
        ),
        ({"input": [{"role": "user"}]}, "$.input[0].content", "is required"),
        ({"input": [{"type": "reasoning"}]}, "$.input[0].content", "is required"),
    ],
)
def test_what_is_missing_is_told_with_what_is_there(body: dict[str, Any], path: str, words: str) -> None:
    assert faults(body) == {path: words}


@pytest.mark.parametrize(
    ("misspelt", "near"),
    [("sesion_id", "session_id"), ("user", "user_id"), ("strem", "stream"), ("max_token", "max_tokens")],
)
def test_misspelt_fields_of_a_refused_request_are_named(misspelt: str, near: str) -> None:
    assert faults({misspelt: "x"}) == {
        "$.input": "is required",
        f"$.{misspelt}": f"is not a field of this object; did you mean {near!r}?",
    }
    request = decode_request(json.dumps({"input": "hi", misspelt: "x"}).encode())
    assert request.extra == {misspelt: "x"}


def test_misspelt_fields_of_a_refused_message_are_named() -> None:
    body = {"input": [{"rol": "user", "meta_data": {}, "own": 1, "content": [{"type": "txt"}]}]}
    assert faults(body) == {
        "$.input[0].content[0].type": (
            "unknown content type 'txt'; known: text, data, image, audio, video, file, refusal"
        ),
        "$.input[0].rol": "is not a field of this object; did you mean 'role'?",
        "$.input[0].meta_data": "is not a field of this object; did you mean 'metadata'?",
    }


def test_no_hint_for_fields_that_are_there_and_not_for_long_objects() -> None:
    assert faults({"user": "x", "user_id": "joe"}) == {"$.input": "is required"}
    many = {f"field{number}": 1 for number in range(100_000)}
    assert faults({**many, "sesion_id": "x"}) == {"$.input": "is required"}


def test_messages_of_types_of_the_front_ends_own_and_their_fields_are_kept() -> None:
    body = {"input": [{"type": "a2ui_surface", "surface": {"id": 1}, "object": "message", "status": "completed"}]}
    [message] = decode_request(json.dumps(body).encode()).input
    assert (message.type, message.role, message.content) == ("a2ui_surface", "user", [])
    assert message.extra == {"surface": {"id": 1}}


@pytest.mark.parametrize("digits", ["18446744073709551616", "-9223372036854775809", "1" * 300])
@pytest.mark.parametrize("body", ['{"input": "x", "seed": %s}', '{"input": "x", "own": [{"id": %s}]}'])
def test_integers_beyond_64_bits_are_refused(body: str, digits: str) -> None:
    with pytest.raises(ValidationError) as caught:
        decode_request((body % digits).encode())
    assert f"{digits:.40} is an integer beyond 64 bits; send it as a string" in str(caught.value.errors)


def test_other_long_digits_are_read_as_they_are() -> None:
    body = b'{"input": "1234567890123456789012", "max": 18446744073709551615, "min": -9223372036854775808}'
    request = decode_request(body)
    assert request.input[0].text == "1234567890123456789012"
    assert request.extra == {"max": 2**64 - 1, "min": -(2**63)}
    assert decode_request(b'{"input": "x", "own": 1.2345678901234567890123}').extra["own"] == pytest.approx(
        1.2345678
    )


def test_a_byte_order_mark_is_skipped() -> None:
    assert decode_request(b'\xef\xbb\xbf{"input": "hi"}').input[0].text == "hi"


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (5, ""),
        ("hi", ""),
        (None, ""),
        ({"role": "robot", "content": "x"}, ".role"),
        ({"role": 5, "content": "x"}, ".role"),
        ({"type": "", "content": "x"}, ".type"),
        ({"type": "a\nb", "content": "x"}, ".type"),
        ({"type": ["message"], "content": "x"}, ".type"),
        ({"content": 5}, ".content"),
        ({"content": {"type": "text"}}, ".content"),
        ({"content": ["x"]}, ".content[0]"),
        ({"content": [{"text": "x"}]}, ".content[0].type"),
        ({"content": [{"type": "smell"}]}, ".content[0].type"),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text"}]}, ".content[1].text"),
        ({"content": [{"type": "text", "text": 5}]}, ".content[0].text"),
        ({"content": [{"type": "text", "text": "a", "delta": "yes"}]}, ".content[0].delta"),
        ({"content": [{"type": "data"}]}, ".content[0].data"),
        ({"content": [{"type": "image"}]}, ".content[0].image_url"),
        ({"content": [{"type": "image", "image_url": {}}]}, ".content[0].image_url"),
        ({"content": [{"type": "audio", "format": "wav"}]}, ".content[0].data"),
        ({"content": [{"type": "audio", "data": "x", "format": 1}]}, ".content[0].format"),
        ({"content": [{"type": "video"}]}, ".content[0].video_url"),
        ({"content": [{"type": "file", "filename": "a"}]}, ".content[0]"),
        ({"content": [{"type": "file", "file_id": 1}]}, ".content[0].file_id"),
        ({"content": [{"type": "refusal"}]}, ".content[0].refusal"),
        ({"content": "x", "id": 5}, ".id"),
        ({"content": "x", "id": "a\nb"}, ".id"),
        ({"content": "x", "metadata": []}, ".metadata"),
        ({"content": "x", "usage": 1}, ".usage"),
        ({"content": "x", "code": 1}, ".code"),
    ],
)
def test_a_wrong_message_is_told_by_its_path(message: object, path: str) -> None:
    assert faults({"input": [{"role": "user", "content": "fine"}, message]}).keys() == {"$.input[1]" + path}


def test_unknown_words_are_answered_with_the_known_ones() -> None:
    found = faults({"input": [{"role": "robot", "content": [{"type": "smell"}]}]})
    assert "assistant" in found["$.input[0].role"]
    assert "refusal" in found["$.input[0].content[0].type"]


def test_every_fault_is_told_at_once() -> None:
    found = faults(
        {"input": [{"role": "x", "content": ""}, {"content": [{"type": "y"}]}], "top_p": "z", "background": "x"}
    )
    assert found.keys() == {"$.input[0].role", "$.input[1].content[0].type", "$.top_p", "$.background"}


def test_content_of_every_type_and_unknown_fields() -> None:
    content = [
        {"type": "text", "text": "", "object": "content", "status": None, "delta": None},
        {"type": "data", "data": None},
        {"type": "image", "image_url": "u", "delta": True},
        {"type": "file", "file_id": "f", "size": 5},
    ]
    request = decode_request(json.dumps({"input": [{"role": "tool", "content": content, "x": 1}]}).encode())
    assert request.input == [
        Message(
            role="tool",
            content=[
                TextContent(""),
                DataContent(None),
                ImageContent(image_url="u"),
                FileContent(file_id="f"),
            ],
            extra={"x": 1},
        )
    ]


def test_a_missing_role_follows_from_the_type() -> None:
    types = ["message", "function_call", "mcp_call_output"]
    request = request_from({"input": [{"type": kind, "content": "x"} for kind in types]})
    assert [message.role for message in request.input] == ["user", "assistant", "tool"]


def test_a_flood_of_faults_is_cut_and_never_echoed() -> None:
    with pytest.raises(ValidationError) as caught:
        decode_request(json.dumps({"input": [{"role": "SECRET" * 10_000}] * 1000}).encode())
    assert len(caught.value.errors) == 100
    assert all(msg.count("SECRET") < 10 and len(loc) < 80 for loc, msg in caught.value.errors)


@pytest.mark.parametrize("field", ["session_id", "id", "on_disconnect", "multitask_strategy", "stop", "top_p"])
def test_long_values_are_not_echoed(field: str) -> None:
    value = {"deep": "SECRET" * 1000} if field in ("on_disconnect", "stop", "top_p") else "SECRET" * 1000
    assert all("SECRET" not in msg for msg in faults({**HELLO, field: value}).values())


def test_requests_made_in_python() -> None:
    assert AgentRequest(input="hello").input == [Message(role="user", content="hello")]
    assert request_from("hello") == request_from({"input": "hello"}) == AgentRequest(input="hello")
    mixed = AgentRequest(input=[Message(role="user", content="a"), {"role": "assistant", "content": "b"}])
    assert [message.text for message in mixed.input] == ["a", "b"]
    assert request_from(mixed) is mixed
    with pytest.raises(ValidationError):
        AgentRequest(input=[{"role": "robot"}])


@pytest.mark.parametrize("wrong", [{"session_id": "a\n"}, {"timeout_s": float("inf")}, {"id": "x"}, {"stream": 1}])
def test_requests_made_in_python_are_checked_too(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        request_from(AgentRequest(input="x", **wrong))


def test_request_from_anything_else() -> None:
    with pytest.raises(ValidationError):
        request_from(5)


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan"), True, "5"])
def test_cancel_after_needs_a_duration(seconds: object) -> None:
    with pytest.raises(ValueError, match="seconds"):
        CancelAfter(seconds)


def test_message_constructors() -> None:
    assert Message(content="a").text == "a"
    assert Message(content=[TextContent("a"), DataContent(1), TextContent("b")]).text == "ab"
    assert Message(content=None).content == []
    assert TextContent(text=None).text == ""
    assert Message.reasoning("why", id="r1").type == "reasoning"
    call = Message.tool_call("add", {"a": 1}, call_id="c1")
    assert (call.role, call.type) == ("assistant", "function_call")
    assert call.content[0].data == {"call_id": "c1", "name": "add", "arguments": '{"a":1}'}
    assert Message.tool_call("add", "raw").content[0].data["call_id"]
    output = Message.tool_output("c1", 3)
    assert (output.role, output.type, output.content[0].data) == (
        "tool",
        "function_call_output",
        {"call_id": "c1", "output": 3},
    )
    with pytest.raises(ValueError, match="known: user"):
        Message(role="robot")
    with pytest.raises(ValueError, match="type of a message"):
        Message(type="")
    with pytest.raises(TypeError, match="int"):
        Message(content=[5])
