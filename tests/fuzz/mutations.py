"""Bodies that begin as what a route asks for, and are then changed, as JSON and as bytes."""

from __future__ import annotations

import json
from random import Random
from typing import Any

__all__ = ["BODIES", "ROUTES", "mutated"]

MESSAGE = {"role": "user", "type": "message", "content": [{"type": "text", "text": "hi"}]}
REQUEST = {
    "input": [
        MESSAGE,
        {
            "role": "assistant",
            "content": [
                {"type": "data", "data": {"call_id": "c", "name": "n", "arguments": "{}"}},
                {"type": "image", "image_url": "https://example.com/i.png"},
                {"type": "file", "file_id": "f"},
            ],
        },
    ],
    "session_id": "s1",
    "user_id": "u1",
    "stream": False,
    "temperature": 0.5,
    "max_tokens": 5,
    "stop": ["a"],
    "tools": [{"type": "function"}],
    "on_disconnect": {"cancel_after": 1},
    "timeout_s": 30,
}
ITEM = {"name": "a", "price": 1.5, "colour": "red", "below": [{"name": "b"}]}
LINE = {
    "item": ITEM,
    "when": "2030-01-02T03:04:05Z",
    "amount": "1.10",
    "place": [1, "x"],
    "ids": [1, 2],
    "more": {"a": 1, "b": "c"},
    "kind": "a",
    "raw": "AP8=",
}
SEVERAL = {
    "struct": {"number": 1, "next": {"number": 2}},
    "model": {"number": 1, "words": ["a"], "below": {"number": 2}},
    "options": {"depth": 1, "words": ["a"]},
}

RESPONSE = {
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "a", "annotations": []}],
        },
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "c", "name": "n", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "5"},
        {"type": "mcp_call", "id": "m", "name": "n", "arguments": "{}", "server_label": "l", "output": "5"},
        {
            "role": "user",
            "content": [
                {"type": "input_image", "image_url": "https://example.com/i.png"},
                {"type": "input_file", "file_id": "f"},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            ],
        },
    ],
    "model": "m",
    "instructions": "Be brief.",
    "conversation": {"id": "s1"},
    "tools": [{"type": "function", "name": "n", "parameters": {}}],
    "metadata": {"a": "b"},
    "temperature": 0.5,
    "max_output_tokens": 5,
    "user": "u1",
}
APPROVAL = {
    "input": [{"type": "mcp_approval_response", "approval_request_id": "call_1", "approve": True, "reason": "r"}],
    "previous_response_id": "resp_12345678",
}
COMPLETION = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "u"}}],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "n", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "5"},
        {"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]},
    ],
    "model": "m",
    "n": 1,
    "max_tokens": 5,
    "stop": ["a"],
    "tools": [{"type": "function", "function": {"name": "n"}}],
    "metadata": {"session_id": "s1"},
    "user": "u1",
}

BODIES: dict[str, Any] = {
    "POST /process": REQUEST,
    "POST /process?": {**REQUEST, "stream": True},
    "POST /v1/responses": RESPONSE,
    "POST /v1/responses?": {**RESPONSE, "stream": True},
    "POST /compatible-mode/v1/responses": {"input": "hi", "background": True, "store": True},
    "POST /compatible-mode/v1/responses?": APPROVAL,
    "POST /v1/chat/completions": COMPLETION,
    "POST /v1/chat/completions?": {**COMPLETION, "stream": True, "stream_options": {"include_usage": True}},
    "POST /stop": {"session_id": "s1", "user_id": "u1", "run_id": "run-12345", "input": []},
    "POST /stop?wait=1": {"session_id": "s1", "input": [MESSAGE]},
    "POST /echo": {"anything": [1, None, {"goes": True}]},
    "POST /items/5?words=a&dry=1": ITEM,
    "PUT /items/5": ITEM,
    "POST /lines?at=2030-01-02": LINE,
    "POST /several": SEVERAL,
    "POST /bulk": [ITEM, {"name": "c"}],
    "POST /either": ITEM,
    "POST /stream?count=2": {"a": 1},
    "POST /agent": REQUEST,
    "POST /update_config": {"config_key": "max_tokens", "value": 512},
}
ROUTES = list(BODIES)

STRANGE: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    1.5,
    -0.0,
    1e308,
    2**31,
    2**63,
    2**64,
    -(2**70),
    10**400,
    "",
    "a",
    "\0",
    "\r\nX: 1",
    "\u2028\ud7ff\uffff",
    "\U0001f600" * 50,
    "x" * 5000,
    "../../etc/passwd",
    "<script>",
    "{{7*7}}",
    "%s%n%00",
    "2030-02-30",
    "NaN",
    [],
    {},
    [[]],
    [None],
    {"": None},
    {"__class__": "x", "__proto__": {}, "$ref": "#"},
    {"type": "text"},
    {"cancel_after": -1},
]
RAW = [
    b"",
    b" ",
    b"\xef\xbb\xbf{}",
    b"\xff\xfe",
    b"NaN",
    b"[1e400]",
    b'"\\ud800"',
    b'{"a":1,"a":2}',
    b"[" * 3000,
    b'{"a":' * 1000 + b"1" + b"}" * 1000,
    b"{'a': 1}",
    b"null",
    b"a=b&c=d",
]
TYPES = [
    "application/json",
    "application/json; charset=latin-1",
    "application/problem+json",
    "text/plain",
    "multipart/form-data; boundary=x",
    "application/x-www-form-urlencoded",
    "",
    "a" * 500,
    "application/json;;;=",
]


def mutated(body: Any, random: Random) -> tuple[bytes, str]:
    """A body made of this one, and a content type: mostly the right one."""
    media = "application/json" if random.random() < 0.95 else random.choice(TYPES)
    if random.random() < 0.03:
        return random.choice(RAW), media
    value = json.loads(json.dumps(body))
    for _ in range(random.choice((0, 1, 1, 1, 2, 3, 8))):
        value = _changed(value, random)
    raw = json.dumps(value, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    for _ in range(random.choice((0, 0, 0, 0, 0, 0, 1, 2, 5))):
        raw = _bent(raw, random)
    return raw, media


def _changed(value: Any, random: Random) -> Any:
    """The same with one change in it somewhere."""
    if isinstance(value, dict) and value and random.random() < 0.8:
        key = random.choice(list(value))
        what = random.random()
        if what < 0.15:
            return {name: item for name, item in value.items() if name != key}
        if what < 0.25:
            return {**value, str(random.choice(STRANGE))[:50]: random.choice(STRANGE)}
        if what < 0.3:
            return {(name.upper() if name == key else name): item for name, item in value.items()}
        return {**value, key: _changed(value[key], random)}
    if isinstance(value, list) and value and random.random() < 0.7:
        place = random.randrange(len(value))
        what = random.random()
        if what < 0.15:
            return value[:place] + value[place + 1 :]
        if what < 0.25:
            return [*value, random.choice(STRANGE)]
        if what < 0.3:
            return value * random.choice((2, 50))
        return [*value[:place], _changed(value[place], random), *value[place + 1 :]]
    if random.random() < 0.1:
        deep = value
        for _ in range(random.choice((1, 5, 150, 300))):
            deep = [deep] if random.random() < 0.5 else {"a": deep}
        return deep
    return random.choice(STRANGE)


def _bent(raw: bytes, random: Random) -> bytes:
    if not raw:
        return bytes([random.randrange(256)])
    place = random.randrange(len(raw))
    what = random.randrange(4)
    if what == 0:
        return raw[:place]
    if what == 1:
        return raw[:place] + bytes([random.randrange(256)]) + raw[place + 1 :]
    if what == 2:
        return raw[:place] + random.choice((b",", b"}", b"\0", b"\xed\xa0\x80", b"1", b'"')) + raw[place:]
    return raw[:place] + raw[place : place + 8] * 2 + raw[place + 8 :]
