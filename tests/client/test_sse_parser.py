"""An event stream in pieces: the same events, wherever it is cut and however its lines end."""

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
    frames = SSEParser()
    # A CR at the end may be half of a line's end, so something follows.
    stream = STREAM.replace(b"\n", newline) + b":"
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert [event for piece in pieces for event in frames.feed(piece)] == EVENTS


def test_what_has_been_searched_is_not_searched_again() -> None:
    """The search for an event's end begins where the last one ended, so its cost does not grow with the event."""
    frames = SSEParser()
    for number in range(1, 20):
        assert frames.feed(b"x" * 1000) == []
        assert frames._searched == 1000 * number
