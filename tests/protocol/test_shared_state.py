"""The state that front ends show: what may be set, what is sent, and how little of it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trio_agentapp.errors import ItemError
from trio_agentapp.protocol.codec import encode_event
from trio_agentapp.protocol.events import StateEvent
from trio_agentapp.protocol.json_patch import difference
from trio_agentapp.protocol.shared_state import MAX_STATE_BYTES, WHOLE_AFTER, SharedState
from trio_agentapp.protocol.stored_events import decode_event

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | st.text("a/~-0", max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab/~", max_size=2), inner, max_size=4),
)


def applied(value: Any, patch: Any) -> Any:
    """Apply a patch as RFC 6902 and RFC 6901 say."""
    value = copy.deepcopy(value)
    for operation in patch:
        *way, last = [token.replace("~1", "/").replace("~0", "~") for token in operation["path"].split("/")] or [""]
        if not way:
            assert operation["op"] == "replace"
            value = operation["value"]
            continue
        target = value
        for token in way[1:]:
            target = target[int(token)] if isinstance(target, list) else target[token]
        match operation["op"]:
            case "add" if isinstance(target, list):
                assert last == "-"
                target.append(operation["value"])
            case "add":
                assert last not in target
                target[last] = operation["value"]
            case "replace":
                target[int(last) if isinstance(target, list) else last] = operation["value"]
            case "remove":
                del target[int(last) if isinstance(target, list) else last]
    return value


PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@PATIENT
@given(JSON, JSON)
def test_a_patch_turns_one_value_into_the_other(before: Any, after: Any) -> None:
    patch = difference(before, after)
    assert applied(before, patch) == after
    assert difference(after, after) == []


def test_true_is_not_one() -> None:
    assert difference([1], [True]) == [{"op": "replace", "path": "/0", "value": True}]


@PATIENT
@given(st.lists(st.dictionaries(st.text("ab", max_size=2), JSON, max_size=4), max_size=12))
def test_a_client_that_applies_every_event_has_the_state(versions: list[dict[str, Any]]) -> None:
    state = SharedState()
    shown: Any = None
    for version in versions:
        state.replace(version)
        assert state.pending
        taken = state.take()
        if taken is not None:
            whole, patch = taken
            shown = whole if whole is not None else applied(shown, patch)
        assert json.loads(json.dumps(state._now)) == version
        assert shown == version


def test_the_first_event_has_the_whole_state_with_that_of_the_request() -> None:
    state = SharedState({"theme": "dark"})
    assert not state.pending
    state["step"] = 1
    assert state.take() == ({"theme": "dark", "step": 1}, None)
    state["step"] = 2
    assert state.take() == (None, [{"op": "replace", "path": "/step", "value": 2}])
    state["step"] = 2
    assert state.take() is None


def test_a_change_in_place_is_refused_with_the_way_to_do_it() -> None:
    state = SharedState({"files": [{"name": "a"}]})
    for change in (
        lambda: state["files"].append(1),
        lambda: state["files"][0].update(name="b"),
        lambda: state["files"].__setitem__(0, 1),
    ):
        with pytest.raises(TypeError, match=r"with run\.state\.edit\(\)"):
            change()
    assert json.dumps(state["files"]) == '[{"name": "a"}]'
    mine = copy.deepcopy(state["files"])
    mine[0]["name"] = "mine"
    assert state["files"] == [{"name": "a"}]


def test_an_edit_keeps_what_others_have_set_meanwhile() -> None:
    state = SharedState({"files": [], "gone": 1})
    state.take()
    with state.edit() as draft:
        state["step"] = "read"
        draft["files"].append("a.txt")
        del draft["gone"]
    assert dict(state) == {"files": ["a.txt"], "step": "read"}
    with pytest.raises(ZeroDivisionError), state.edit() as draft:
        draft["files"] = 1 / 0
    assert state["files"] == ["a.txt"]


def test_a_value_is_copied_when_it_is_set() -> None:
    state, files = SharedState(), ["a"]
    state["files"] = files
    files.append("b")
    assert state["files"] == ["a"]


@pytest.mark.parametrize("value", [object(), {1: 2}, float("nan"), 2**70])
def test_what_has_no_form_in_json_is_refused_and_changes_nothing(value: Any) -> None:
    state = SharedState({"x": 1})
    with pytest.raises(ItemError, match=r"\$\.state\.x"):
        state.update(y=2, x=value)
    assert dict(state) == {"x": 1}
    assert not state.pending


def test_the_size_is_bounded_whatever_the_order_of_changes() -> None:
    state = SharedState()
    for _ in range(5):
        state["big"] = "x" * (MAX_STATE_BYTES - 100)
        with pytest.raises(ItemError, match="the limit is 262144"):
            state["more"] = "y" * 200
        state["big"] = ""
    del state["big"]
    assert state._size == 0


def test_after_enough_patches_the_whole_state_is_sent() -> None:
    state = SharedState({"list": []})
    wholes = sent = 0
    for number in range(400):
        with state.edit() as draft:
            draft["list"].append(number)
        whole, _ = state.take() or (None, None)
        if whole is not None and number:
            wholes += 1
            sent += len(json.dumps(whole))
    assert 3 < wholes < 20
    assert sent < 10 * WHOLE_AFTER


def test_an_event_is_read_back_as_it_was_written() -> None:
    for event in (
        StateEvent(3, False, {"a": [1]}),
        StateEvent(4, True, None, [{"op": "remove", "path": "/a"}]),
    ):
        assert decode_event(encode_event(event)) == event
    assert encode_event(StateEvent(3, False, {"a": [1]})) == (
        b'{"sequence_number":3,"object":"state","status":"in_progress","error":null,"delta":false,'
        b'"state":{"a":[1]},"patch":null}'
    )
