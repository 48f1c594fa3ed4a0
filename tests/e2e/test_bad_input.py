"""What is refused before the first byte: the exact problem, nothing started, nobody hurt (WIRE, section 2)."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
from typing import Any

import pytest
import trio

from .harness import Answer, Server, fresh, say

OPTIONS = {"read_timeout": 1.0}

MEMBERS = {"type", "title", "status", "detail", "instance", "code", "request_id", "retryable"}
OURS = re.compile(
    rb"trio_agentapp|Traceback|site-packages|\.py\b|orjson|msgspec|quart|werkzeug|AgentRequest|SessionKey"
    rb"|ValidationError|MalformedBody|DecodeError|TypeError|ValueError|<class|NoneType"
)


def assert_problem(answer: Answer, status: int, code: str, path: str) -> dict[str, Any]:
    assert answer.status == status, answer
    assert answer.header("content-type") == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    extra = {"validation_error": {"errors"}, "session_busy": {"active_run_id"}}.get(code, set())
    assert set(problem) == MEMBERS | extra
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["instance"] == path.partition("?")[0]
    assert isinstance(problem["title"], str)
    assert problem["title"]
    assert isinstance(problem["detail"], str)
    assert problem["detail"]
    assert re.fullmatch(r"[0-9a-zA-Z_-]{8,}", problem["request_id"])
    assert isinstance(problem["retryable"], bool)
    assert re.match(r"(urn|https?):", problem["type"])
    for fault in problem.get("errors", ()):
        assert set(fault) == {"loc", "msg"}
        assert fault["loc"].startswith(("$", "query."))
    assert not OURS.search(answer.body), answer
    assert answer.header("x-run-id") is None
    return problem


def nested(depth: int) -> bytes:
    return b'{"input": ' + b"[" * depth + b"]" * depth + b"}"


MALFORMED = {
    "no JSON": b"hello",
    "half an object": b'{"input": [',
    "two values": b"{} {}",
    "single quotes": b"{'input': []}",
    "a trailing comma": b'{"input": [],}',
    "bad UTF-8": b'{"input": [{"role": "user", "content": "\xff\xfe"}]}',
    "overlong UTF-8": b'{"input": [], "user_id": "\xc0\xaf"}',
    "UTF-16": '{"input": []}'.encode("utf-16"),
    "a NUL": b'{"input": []}\x00',
    "a raw control character": b'{"input": [], "user_id": "a\x01b"}',
    "NaN": b'{"input": [], "temperature": NaN}',
    "Infinity": b'{"input": [], "temperature": -Infinity}',
    "1e400": b'{"input": [], "temperature": 1e400}',
    "1e400 in an unknown field": b'{"input": [], "x": [-1e400]}',
    "an integer beyond what floats hold": b'{"input": [], "timeout_s": 1' + b"0" * 400 + b"}",
    "a lone surrogate": b'{"input": [], "user_id": "a\\ud800b"}',
    "a lone surrogate in an unknown field": b'{"input": [], "x": "\\udfff"}',
    "5,000 levels": nested(5000),
    "100,000 levels": nested(100_000),
    "500,000 open brackets": b"[" * 500_000,
}

WRONG_SHAPES = {
    "an empty body": (b"", "$"),
    "white space": (b" \r\n\t ", "$"),
    "null": (b"null", "$"),
    "a list": (b"[]", "$"),
    "a list of requests": (b'[{"input": []}]', "$"),
    "a string": (b'"input"', "$"),
    "a number": (b"1", "$"),
    "true": (b"true", "$"),
}


def wrong(**fields: Any) -> bytes:
    return json.dumps({"input": say(), "session_id": "evil-1", **fields}).encode()


BOTH = {
    "a session that is a number": (wrong(session_id=1), "$.session_id"),
    "a session that is a list": (wrong(session_id=["s"]), "$.session_id"),
    "an empty session": (wrong(session_id=""), "$.session_id"),
    "an empty user": (wrong(user_id=""), "$.user_id"),
    "a user that is an object": (wrong(user_id={}), "$.user_id"),
    "a user that is a boolean": (wrong(user_id=True), "$.user_id"),
    "a session of 10,000 characters": (wrong(session_id="s" * 10_000), "$.session_id"),
    "a session of 257 characters": (wrong(session_id="s" * 257), "$.session_id"),
    "a user of 10,000 characters": (wrong(user_id="u" * 10_000), "$.user_id"),
    "a session with a newline": (wrong(session_id="a\nb"), "$.session_id"),
    "a session with CR LF": (wrong(session_id="a\r\nX-Evil: 1"), "$.session_id"),
    "a session with NUL": (wrong(session_id="a\x00"), "$.session_id"),
    "a session with DEL": (wrong(session_id="a\x7f"), "$.session_id"),
    "a session with C1": (wrong(session_id="a\x85"), "$.session_id"),
    "a user with an escape": (wrong(user_id="\x1b[31m"), "$.user_id"),
    "an id of 10,000 characters": (wrong(id="r" * 10_000), "$.id"),
    "an id of 65 characters": (wrong(id="r" * 65), "$.id"),
    "an id of 7 characters": (wrong(id="r" * 7), "$.id"),
    "an id with a space": (wrong(id="run 12345"), "$.id"),
    "an id with a slash": (wrong(id="../../etc/passwd"), "$.id"),
    "an id with a newline": (wrong(id="run12345\n"), "$.id"),
    "an id beyond ASCII": (wrong(id="r\u00e9sum\u00e9-1234"), "$.id"),
    "an id that is a number": (wrong(id=12345678), "$.id"),
    "a run_id that is a list": (wrong(run_id=[]), "$.run_id"),
    "a run_id with a colon": (wrong(run_id="run:12345"), "$.run_id"),
    "input without content": (wrong(input=[{"role": "user", "text": "hi"}]), "$.input[0].content"),
    "an integer beyond 64 bits": (wrong(own=[2**64]), "$"),
    "input that is an object": (wrong(input={"role": "user"}), "$.input"),
    "input that is a number": (wrong(input=7), "$.input"),
    "a message that is a string": (wrong(input=["hi"]), "$.input[0]"),
    "a message that is null": (wrong(input=[None]), "$.input[0]"),
    "an unknown role": (wrong(input=[{"role": "boss", "content": "hi"}]), "$.input[0].role"),
    "a role that is a number": (wrong(input=[{"role": 1, "content": "hi"}]), "$.input[0].role"),
    "an empty message type": (wrong(input=[{"role": "user", "type": "", "content": "hi"}]), "$.input[0].type"),
    "a message type that is a list": (
        wrong(input=[{"role": "user", "type": [], "content": "hi"}]),
        "$.input[0].type",
    ),
    "content that is a number": (wrong(input=[{"role": "user", "content": 1}]), "$.input[0].content"),
    "content that is an object": (wrong(input=[{"role": "user", "content": {}}]), "$.input[0].content"),
    "an unknown content type": (
        wrong(input=[{"role": "user", "content": [{"type": "smell"}]}]),
        "$.input[0].content[0].type",
    ),
    "a content without a type": (
        wrong(input=[{"role": "user", "content": [{"text": "hi"}]}]),
        "$.input[0].content[0].type",
    ),
    "text that is a number": (
        wrong(input=[{"role": "user", "content": [{"type": "text", "text": 1}]}]),
        "$.input[0].content[0].text",
    ),
    "text without text": (
        wrong(input=[{"role": "user", "content": [{"type": "text"}]}]),
        "$.input[0].content[0].text",
    ),
    "an image_url that is an object": (
        wrong(input=[{"role": "user", "content": [{"type": "image", "image_url": {}}]}]),
        "$.input[0].content[0].image_url",
    ),
    "a content that is a string": (wrong(input=[{"role": "user", "content": ["hi"]}]), "$.input[0].content[0]"),
    "stream that is a string": (wrong(stream="true"), "$.stream"),
    "stream that is 1": (wrong(stream=1), "$.stream"),
    "temperature that is a string": (wrong(temperature="0.5"), "$.temperature"),
    "top_p that is a boolean": (wrong(top_p=True), "$.top_p"),
    "max_tokens that is a fraction": (wrong(max_tokens=1.5), "$.max_tokens"),
    "max_tokens that is a string": (wrong(max_tokens="100"), "$.max_tokens"),
    "n that is a list": (wrong(n=[1]), "$.n"),
    "seed that is an object": (wrong(seed={}), "$.seed"),
    "model that is a number": (wrong(model=4), "$.model"),
    "stop that is a number": (wrong(stop=4), "$.stop"),
    "stop that is a list of numbers": (wrong(stop=[4]), "$.stop"),
    "tools that are an object": (wrong(tools={}), "$.tools"),
    "tools that are strings": (wrong(tools=["x"]), "$.tools"),
    "timeout_s that is 0": (wrong(timeout_s=0), "$.timeout_s"),
    "timeout_s that is negative": (wrong(timeout_s=-1), "$.timeout_s"),
    "timeout_s that is a string": (wrong(timeout_s="5"), "$.timeout_s"),
    "on_disconnect unknown": (wrong(on_disconnect="explode"), "$.on_disconnect"),
    "on_disconnect a list": (wrong(on_disconnect=["cancel"]), "$.on_disconnect"),
    "on_disconnect without seconds": (wrong(on_disconnect={"cancel_after": None}), "$.on_disconnect"),
    "on_disconnect with more": (wrong(on_disconnect={"cancel_after": 1, "x": 1}), "$.on_disconnect"),
    "on_disconnect negative": (wrong(on_disconnect={"cancel_after": -1}), "$.on_disconnect"),
}

ONLY_PROCESS = {
    "no input": (b'{"session_id": "evil-1"}', "$.input"),
    "input null": (wrong(input=None), "$.input"),
    "no message": (wrong(input=[]), "$.input"),
    "messages for input": (b'{"messages": [{"role": "user", "content": "hi"}]}', "$.input"),
}

PATHS = ("/process", "/stop", "/stop?wait=1")


async def assert_unharmed(server: Server) -> None:
    assert (await server.get("/test/live"))["live"] == 0
    assert not any("evil" in mark for mark in server.marks)
    assert (await server.call("GET", "/health")).status == 200
    async with server.chat() as chat:
        assert (await chat.finish())["status"] == "completed"


@pytest.mark.parametrize("path", PATHS)
async def test_bytes_that_are_not_json(server: Server, path: str) -> None:
    for what, body in MALFORMED.items():
        answer = await server.call("POST", path, body)
        try:
            assert_problem(answer, 400, "malformed_body", path)
        except AssertionError as error:
            raise AssertionError(f"{what}: {error}") from None
    await assert_unharmed(server)


@pytest.mark.parametrize("path", PATHS)
async def test_json_of_the_wrong_shape(server: Server, path: str) -> None:
    table = {**WRONG_SHAPES, **BOTH, **(ONLY_PROCESS if path == "/process" else {})}
    failures = []
    for what, (body, loc) in table.items():
        answer = await server.call("POST", path, body)
        try:
            problem = assert_problem(answer, 422, "validation_error", path)
            assert [fault["loc"] for fault in problem["errors"]] == [loc]
            assert len(answer.body) < 2000, "it repeats what it was sent"
        except AssertionError as error:
            failures.append(f"{what}: {str(error)[:600]}")
    assert not failures, "\n".join(failures)
    await assert_unharmed(server)


async def test_every_fault_with_its_path(server: Server) -> None:
    body = {
        "input": [{"role": "boss", "content": [{"type": "text", "text": 1}, {"type": "smell"}]}, 7],
        "session_id": 5,
        "stream": "no",
        "temperature": "hot",
    }
    answer = await server.call("POST", "/process", body)
    problem = assert_problem(answer, 422, "validation_error", "/process")
    assert {fault["loc"] for fault in problem["errors"]} == {
        "$.input[0].role",
        "$.input[0].content[0].text",
        "$.input[0].content[1].type",
        "$.input[1]",
        "$.session_id",
        "$.stream",
        "$.temperature",
    }


async def test_thousands_of_faults_make_a_short_answer(server: Server) -> None:
    answer = await server.call("POST", "/process", {"input": [1] * 200_000})
    problem = assert_problem(answer, 422, "validation_error", "/process")
    assert len(problem["errors"]) <= 100
    await assert_unharmed(server)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "nonsense", "json"],
)
async def test_another_content_type(server: Server, path: str, kind: str) -> None:
    answer = await server.call("POST", path, {"input": say(), "session_id": "evil"}, headers={"Content-Type": kind})
    assert_problem(answer, 415, "unsupported_media_type", path)
    await assert_unharmed(server)


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "application/vnd.x+json"])
async def test_content_types_of_json(server: Server, kind: str) -> None:
    body = {"input": say(), "stream": False}
    assert (await server.call("POST", "/process", body, headers={"Content-Type": kind})).status == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
async def test_two_megabytes(server: Server, path: str, chunked: bool) -> None:
    body = json.dumps({"input": say("x" * 2**21), "session_id": "evil"}).encode()
    async with server.connect() as client:
        # The server may answer and close before it has read everything.
        with contextlib.suppress(trio.BrokenResourceError):
            await client.send("POST", path, body, chunked=chunked)
        answer = await client.answer()
    assert_problem(answer, 413, "payload_too_large", path)
    await assert_unharmed(server)


async def test_just_below_the_limit(server: Server) -> None:
    body = json.dumps({"input": say("x" * (2**20 - 300)), "stream": False}).encode()
    assert len(body) < 2**20
    assert (await server.call("POST", "/process", body)).status == 200


async def test_a_declared_length_is_refused_before_it_is_sent(server: Server) -> None:
    async with server.connect() as client:
        head = b"POST /process HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        client.spell("POST", "/process", b"{}")
        await client.stream.send_all(head + b"Content-Length: 10000000000\r\n\r\n")
        answer = await client.answer()
    assert_problem(answer, 413, "payload_too_large", "/process")


@pytest.mark.parametrize("path", ["/nowhere", "/process/", "/runs/", "/runs/a/b", "/%2e%2e/etc/passwd", "/stop/x"])
async def test_an_unknown_route(server: Server, path: str) -> None:
    answer = await server.call("GET", path)
    assert answer.status == 404
    assert answer.header("content-type") == "application/problem+json"
    assert answer.json()["code"] == "not_found"
    assert set(answer.json()) == MEMBERS
    assert not OURS.search(answer.body)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/process", {"POST"}),
        ("PUT", "/process", {"POST"}),
        ("DELETE", "/process", {"POST"}),
        ("GET", "/stop", {"POST"}),
        ("PATCH", "/stop", {"POST"}),
        ("POST", "/health", {"GET", "HEAD"}),
        ("DELETE", "/runs/12345678", {"GET", "HEAD"}),
        ("POST", "/", {"GET", "HEAD"}),
        ("BREW", "/process", {"POST"}),
    ],
)
async def test_a_wrong_method(server: Server, method: str, path: str, allowed: set[str]) -> None:
    answer = await server.call(method, path)
    assert_problem(answer, 405, "method_not_allowed", path)
    allow = {each.strip() for each in (answer.header("allow") or "").split(",")}
    assert allow - {"OPTIONS"} == allowed


async def test_a_slow_body(server: Server) -> None:
    session = fresh("evil")
    async with server.connect() as client:
        request = client.spell("POST", "/process", {"input": say(), "session_id": session})
        began = trio.current_time()
        await client.stream.send_all(request[:-10])
        answer = await client.answer(5)
        assert trio.current_time() - began < OPTIONS["read_timeout"] + 2
    problem = assert_problem(answer, 408, "request_timeout", "/process")
    assert problem["retryable"] is True
    await assert_unharmed(server)


async def test_a_body_that_drips(server: Server) -> None:
    """A byte now and then does not prolong it."""
    async with server.connect() as client:
        request = client.spell("POST", "/process", {"input": say(), "session_id": "evil"})
        head, _, body = request.partition(b"\r\n\r\n")
        began = trio.current_time()
        await client.stream.send_all(head + b"\r\n\r\n")

        async def drip() -> None:
            for byte in body[:-5]:
                try:
                    await client.stream.send_all(bytes([byte]))
                except trio.BrokenResourceError:
                    return
                await trio.sleep(0.2)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            answer = await client.answer(8)
            nursery.cancel_scope.cancel()
        assert trio.current_time() - began < OPTIONS["read_timeout"] + 2
    assert_problem(answer, 408, "request_timeout", "/process")
    await assert_unharmed(server)


async def test_slow_headers_are_cut(server: Server) -> None:
    if server.way == "hypercorn":
        return  # that limit is our launcher's
    async with server.connect() as silent, server.connect() as slow:
        began = trio.current_time()
        await slow.stream.send_all(b"POST /process HTTP/1.1\r\nHost: 12")
        assert b" 200 " not in await slow.wait_eof(5)
        assert await silent.wait_eof(5) == b""
        assert trio.current_time() - began < OPTIONS["read_timeout"] + 2
    await assert_unharmed(server)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\r\n\r\n",
        b"POST /process HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /process HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /process HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_what_is_not_http(server: Server, raw: bytes) -> None:
    async with server.connect() as client:
        try:
            await client.stream.send_all(raw)
            with server.deadline(8):
                seen = await client.stream.receive_some(65536)
        except trio.BrokenResourceError:
            seen = b""
        assert b" 500 " not in seen
        assert not OURS.search(seen)
    await assert_unharmed(server)


@pytest.mark.parametrize("run_id", ["x", "%00", "a" * 5000, "%F0%9F%98%80", "..%2f..%2fetc", "%ff%fe"])
async def test_strange_run_ids_in_a_path(server: Server, run_id: str) -> None:
    answer = await server.call("GET", f"/runs/{run_id}")
    assert answer.status in (404, 422)
    assert answer.header("content-type") == "application/problem+json"
    assert not OURS.search(answer.body)


async def test_extra_fields_are_kept_and_bodies_are_not_logged(server: Server) -> None:
    secret = fresh("wombat")
    body = {"input": say(secret), "x-unknown": {"deep": [1, None, {"a": secret}]}, "stream": False, "do": "echo"}
    assert secret in (await server.call("POST", "/process", body)).body.decode()
    await server.call("POST", "/process", {"input": [{"role": secret}]})
    await server.call("POST", "/process", f"{secret}".encode())
    assert secret not in server.log


@pytest.mark.parametrize("path", PATHS)
async def test_a_compressed_body(server: Server, path: str) -> None:
    answer = await server.call("POST", path, gzip.compress(wrong()), headers={"Content-Encoding": "gzip"})
    assert answer.status == 415
    assert "gzip" in answer.json()["detail"]


async def test_a_byte_order_mark(server: Server) -> None:
    answer = await server.call("POST", "/process", b"\xef\xbb\xbf" + wrong(session_id=fresh(), stream=False))
    assert answer.status == 200
