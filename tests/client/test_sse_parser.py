"""An event stream in pieces gives the same events, with any size of pieces and any line end."""

from __future__ import annotations

import pytest

from trio_agentapp.client.sse_parser import SSEParser
from trio_agentapp.client.subscription import Gap

STREAM = (
    b": keep-alive\nretry: 3000\n\n"
    b'id: 0\ndata: {"sequence_number":0,"text":"a"}\n\n'
    b'event: gap\ndata: {"from":1,\ndata: "to":4}\n\n\n'
    b'data: {"sequence_number":5}\n\ndata: [DONE]\n\n'
)
EVENTS = [{"sequence_number": 0, "text": "a"}, Gap(1, 4), {"sequence_number": 5}]


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 1000])
def test_pieces_of_every_size(newline: bytes, size: int) -> None:
    parser = SSEParser()
    # A CR at the end may be half of a CRLF, so another byte follows.
    stream = STREAM.replace(b"\n", newline) + b":"
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert [event for piece in pieces for event in parser.feed(piece)] == EVENTS


def test_bytes_are_searched_once() -> None:
    """A search for the end of an event starts where the last one stopped, so an event costs time once."""
    parser = SSEParser()
    for number in range(1, 20):
        assert parser.feed(b"x" * 1000) == []
        assert parser._reader._searched == 1000 * number
