"""A tool call while its arguments arrive in pieces."""

from __future__ import annotations

from trio_agentapp.wires.growing_call import GrowingCall


def test_pieces_wait_until_the_call_is_known() -> None:
    call = GrowingCall()
    assert not call.grow({"arguments": '{"a"'})
    assert not call.grow({"call_id": 7, "arguments": None})
    assert call.grow({"call_id": "other", "name": "look", "arguments": ": "})
    assert (call.id, call.name) == ("7", "look")
    assert [call.take(), call.take()] == ['{"a": ', ""]
    assert call.grow({"arguments": "1"})
    assert (call.take(), call.sent) == ("1", '{"a": 1')
    call.complete('{"a": 1}')
    assert (call.take(), call.sent) == ("}", '{"a": 1}')


def test_whole_arguments_that_are_not_those_of_the_pieces() -> None:
    call = GrowingCall("c", "look")
    call.grow({"arguments": '{"b'})
    call.complete('{"a": 1}')
    assert call.take() == '{"a": 1}'
    call.complete('{"c": 1}')
    assert (call.take(), call.sent) == ("", '{"a": 1}')
