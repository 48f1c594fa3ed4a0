"""Requests that the client builds and responses that it parses, without a network."""

from __future__ import annotations

from typing import Any

import attrs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_agentapp import errors
from trio_agentapp.client import AgentClient, Retries
from trio_agentapp.client.request_body import body_of
from trio_agentapp.client.responses import error_of_problem, receipt_of
from trio_agentapp.client.sse_parser import SSEParser
from trio_agentapp.client.subscription import Gap
from trio_agentapp.protocol import AgentRequest, CancelAfter, Message, decode_request
from trio_agentapp.protocol.content import DataContent, ImageContent, TextContent
from trio_agentapp.protocol.lifecycle import CleanupResult, RunState, StopReceipt

STREAM = (
    b": stream\nretry: 3000\n\n"
    b'id: 0\ndata: {"sequence_number":0,"text":"a\\u2028b"}\n\n'
    b": keep-alive\n\n"
    b'event: gap\ndata: {"from":1,"to":4}\n\n'
    b'id: 5\ndata: {"sequence_number":5,\ndata: "text":"\xc3\xa4"}\n\n'
    b"data: [DONE]\n\n"
)
EVENTS: list[Any] = [{"sequence_number": 0, "text": "a\u2028b"}, Gap(1, 4), {"sequence_number": 5, "text": "ä"}]


@given(cuts=st.lists(st.integers(0, 2 * len(STREAM))), line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_a_stream_is_parsed_in_any_pieces_and_with_any_line_end(cuts: list[int], line_end: bytes) -> None:
    stream = STREAM.replace(b"\n", line_end)
    parser, found, last = SSEParser(), [], 0
    for cut in [*sorted(cut for cut in cuts if cut < len(stream)), len(stream)]:
        found += parser.feed(stream[last:cut])
        last = cut
    found += parser.feed(b"\n")
    assert found == EVENTS


@pytest.mark.parametrize(
    "frame", [b"data: nonsense\n\n", b"data: 5\n\n", b"data: {}\n\n", b"event: other\ndata: {}\n\n"]
)
def test_a_frame_that_is_not_an_event_is_refused(frame: bytes) -> None:
    with pytest.raises(errors.UnexpectedAnswer):
        SSEParser().feed(frame)


def test_a_request_is_decoded_as_it_was_made() -> None:
    request = AgentRequest(
        input=[
            Message(role="user", content=[TextContent("Hi"), ImageContent("https://example.com/a.png")]),
            Message(type="function_call", content=[DataContent({"call_id": "c1"})], metadata={"a": 1}),
        ],
        session_id="s1",
        user_id="u1",
        id="run_12345",
        stream=False,
        temperature=0.5,
        tools=[{"name": "t"}],
        on_disconnect=CancelAfter(3),
        extra={"mine": [1]},
    )
    assert decode_request(orjson.dumps(body_of(request))) == request


def test_a_request_gets_missing_ids() -> None:
    first, second = (body_of("Hi") for _ in range(2))
    assert first["input"] == [{"role": "user", "content": "Hi"}]
    assert first["id"] != second["id"]
    assert first["session_id"] != second["session_id"]
    assert "user_id" not in first
    assert body_of({"input": "Hi", "id": "run_12345"}, "s1", "u1") == {
        "input": [{"role": "user", "content": "Hi"}],
        "id": "run_12345",
        "session_id": "s1",
        "user_id": "u1",
    }


def test_the_clients_on_disconnect_is_used_if_the_request_has_none() -> None:
    assert body_of("Hi", on_disconnect=CancelAfter(3))["on_disconnect"] == {"cancel_after": 3}
    assert (
        body_of({"input": "Hi", "on_disconnect": "continue"}, on_disconnect="cancel")["on_disconnect"] == "continue"
    )
    assert "on_disconnect" not in body_of("Hi")


def test_the_callers_dict_is_not_changed() -> None:
    request = {"input": "Hi"}
    body_of(request, "s1")
    assert request == {"input": "Hi"}


@pytest.mark.parametrize(
    "error",
    [
        errors.ValidationError([("$.a", "is required"), ("$.b", "must be a list")]),
        errors.SessionBusy("run_12345", retry_after=3),
        errors.RunNotFound(),
        errors.Draining(),
        errors.TooManyRuns("Full.", limit="runs_per_node", quota=5, retry_after=2),
        errors.TooManyRequests("Slower.", limit="requests", quota=5, window=1.0),
        errors.Unauthorized(),
    ],
)
def test_a_problem_document_becomes_the_same_error(error: errors.RequestError) -> None:
    document = {
        "type": "urn:x",
        "code": error.code,
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": "/process",
        "request_id": "r1",
        "retryable": error.retryable,
        **error.extra(),
    }
    same = error_of_problem(document, error.retry_after)
    assert type(same) is type(error)
    assert vars(same) == vars(error)
    assert str(same) == str(error)


def test_an_unknown_code_is_kept() -> None:
    error = error_of_problem({"code": "of_tomorrow", "status": 418, "title": "T", "detail": "D", "more": 1})
    assert type(error) is errors.RequestError
    assert (error.code, error.status, error.title, str(error)) == ("of_tomorrow", 418, "T", "D")
    assert errors.RequestError.code == "internal"


def test_a_receipt_is_parsed_as_it_was_made() -> None:
    receipt = StopReceipt(
        accepted=True,
        stopped=False,
        run_id="r1",
        state=RunState.STOPPED,
        node="n1",
        latency_ms=1.5,
        cleanup=CleanupResult.DONE,
    )
    assert receipt_of(orjson.loads(orjson.dumps(attrs.asdict(receipt)))) == receipt
    with pytest.raises(errors.UnexpectedAnswer):
        receipt_of({"status": "success"})


@pytest.mark.parametrize("url", ["", "127.0.0.1:8090", "ftp://a", "http://", "http://a:b", "http://a/?x=1", []])
def test_an_invalid_base_url_is_refused(url: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match="base_url"):
        AgentClient(url)


def test_other_invalid_settings_are_refused() -> None:
    with pytest.raises(errors.ConfigurationError, match="transport"):
        AgentClient("http://a", transport="telegraph")  # type: ignore[arg-type]
    with pytest.raises(errors.ConfigurationError, match="Retries"):
        Retries(attempts=0)


async def test_a_client_that_is_not_open_raises() -> None:
    client = AgentClient("http://127.0.0.1:8090")
    with pytest.raises(RuntimeError, match="async with"):
        await client.health()
