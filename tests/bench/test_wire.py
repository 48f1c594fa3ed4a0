"""The load clients understand both products, and notice what is missing."""

import json
from itertools import pairwise

import pytest

from client import Times
from wire import DELTA, Answer, Events, ProtocolError, chat_body, request

CREATED = {"sequence_number": 0, "object": "response", "status": "created"}
STAMPED = {"sequence_number": 1, "object": "content", "delta": True, "text": "token @12.500000 "}
COMPLETED = {"sequence_number": 2, "object": "response", "status": "completed"}
CHAT = (CREATED, STAMPED, COMPLETED)
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def compact(event: dict) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode()


def of_ours(*events: dict) -> bytes:
    frames = (b"id: %d\ndata: %b\n\n" % (event["sequence_number"], compact(event)) for event in events)
    return b": stream\nretry: 3000\n\n" + b"".join(frames)


def of_replaced(*events: dict) -> bytes:
    return b"".join(b"data: %b\n\n" % compact(event) for event in events)


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


@pytest.mark.parametrize("dialect", [of_ours, of_replaced])
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_a_chat_in_pieces_of_any_size(dialect, step: int) -> None:
    wire = CHUNKED + b"".join(chunk(dialect(event)) for event in CHAT) + chunk(b"")
    answer, events, times = Answer(), Events(), Times()
    for start, stop in pairwise([*range(0, len(wire), step), len(wire)]):
        times.note(events.feed(answer.feed(wire[start:stop])), now=12.75)
    assert answer.finished
    assert events.verdict() is None
    assert (times.events, list(times.deltas), list(times.delays)) == (3, [12.75], [0.25])


@pytest.mark.parametrize("dialect", [of_ours, of_replaced])
def test_a_hole_is_noticed(dialect) -> None:
    with pytest.raises(ProtocolError, match="event 1 expected"):
        Events().feed(dialect(CREATED, COMPLETED))


def test_an_id_that_differs_from_the_number_is_noticed() -> None:
    with pytest.raises(ProtocolError, match="event 0 expected"):
        Events().feed(b"id: 1\ndata: " + compact(CREATED) + b"\n\n")


def test_a_refusal_of_the_replaced_product_is_noticed() -> None:
    with pytest.raises(ProtocolError, match="already in RUNNING state"):
        Events().feed(b'data: {"error": "Task u:s is already in RUNNING state."}\n\n')


def test_a_stream_without_its_end_has_not_completed() -> None:
    events = Events()
    assert events.verdict() == "no event at all"
    events.feed(of_replaced(CREATED))
    assert events.verdict() == "ended by response created: None"


def test_an_answer_with_a_length() -> None:
    answer = Answer()
    assert answer.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok") == b"ok"
    assert not answer.finished
    assert answer.feed(b"ay") == b"ay"
    assert answer.finished


def test_an_answer_without_an_end_is_refused() -> None:
    with pytest.raises(ProtocolError):
        Answer().feed(b"HTTP/1.1 200 OK\r\n\r\n")


def test_a_request_is_whole() -> None:
    body = chat_body("s1", "slow", rate=20, count=3)
    head, _, content = request("localhost:1", "/process", body).partition(b"\r\n\r\n")
    assert f"content-length: {len(content)}".encode() in head
    assert json.loads(content) == body
    assert DELTA in compact(STAMPED)
