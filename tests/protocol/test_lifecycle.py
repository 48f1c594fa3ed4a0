"""The state machine of a run, driven directly: any events in any order."""

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import Phase as Stage
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_agentapp.protocol import lifecycle
from trio_agentapp.protocol.lifecycle import (
    ENDS,
    TRANSITIONS,
    Cause,
    Ending,
    Event,
    IllegalTransition,
    Phase,
    RunLifecycle,
    RunState,
)

STOPS = (Cause.STOPPED, Cause.DISCONNECTED, Cause.SHUTDOWN, Cause.ANSWER_TOO_LARGE, Cause.STOPPED_BEFORE_START)
BY_STOP = (*STOPS, Cause.DEADLINE_EXCEEDED, Cause.LEASE_LOST)
ORDER = list(Phase)

Happening = tuple[str, Callable[[RunLifecycle, float], object]]

flags = st.booleans()
happenings: st.SearchStrategy[Happening] = st.one_of(
    st.just(("queued", lambda life, _: life.queued())),
    st.just(("claimed", lambda life, _: life.claimed())),
    st.just(("refused", lambda life, _: life.refused())),
    st.sampled_from(STOPS).map(lambda cause: ("stop", lambda life, at: life.stop_requested(cause, at=at))),
    st.just(("stop", lambda life, at: life.deadline(at=at))),
    st.just(("stop", lambda life, at: life.lease_lost(at=at))),
    st.just(("returned", lambda life, at: life.returned(at=at))),
    st.just(("raised", lambda life, at: life.raised(at=at))),
    st.tuples(flags, flags, flags).map(
        lambda said: (
            "unwound",
            lambda life, _: life.unwound(failed=said[0], cleanup_timed_out=said[1], interrupted=said[2]),
        )
    ),
    st.sampled_from(Cause).map(lambda cause: ("ended", lambda life, _: life.ended(Ending(cause=cause)))),
    st.just(("stuck", lambda life, _: life.found_stuck())),
)


def facts(life: RunLifecycle) -> dict[str, object]:
    return {name: getattr(life, name) for name in life.__slots__}


def check_step(name: str, before: dict[str, object], life: RunLifecycle, result: object) -> None:
    """What holds after each event that was not refused."""
    now = facts(life)
    for name_of_fact in ("cause", "stopped_at", "body_ended_at", "ending"):
        assert before[name_of_fact] in (None, now[name_of_fact]), f"{name_of_fact} was replaced"
    for flag in ("asked_to_stop", "has_unwound"):
        assert now[flag] or not before[flag], f"{flag} was taken back"
    assert ORDER.index(now["phase"]) >= ORDER.index(before["phase"]), "the run went back"
    if before["phase"] is Phase.ENDED:
        assert name in ("stop", "stuck")
        assert {**now, "asked_to_stop": None} == {**before, "asked_to_stop": None}
    if name == "stop":
        too_late = before["phase"] in (Phase.FINISHING, Phase.ENDED)
        assert result is not too_late
        assert now["stopped_at"] is None or not too_late or before["stopped_at"] is not None
    if name == "unwound":
        assert before["body_ended_at"] is not None
        if before["stopped_at"] is not None:
            assert result in (before["cause"], Cause.CLEANUP_TIMEOUT, Cause.SHUTDOWN)


def check_always(life: RunLifecycle) -> None:
    """What holds at every moment."""
    owns = life.phase in (Phase.RUNNING, Phase.STOPPING, Phase.FINISHING)
    assert (life.state is RunState.RUNNING) is owns
    assert life.state.terminal is (life.ending is not None)
    assert (life.stopped_at is not None) is (life.cause in BY_STOP)
    assert life.phase is not Phase.RUNNING or life.cause is None
    assert life.phase is not Phase.STOPPING or life.stopped_at is not None
    assert life.phase is not Phase.FINISHING or life.body_ended_at is not None
    assert not (life.is_stuck and life.has_unwound)


def live(story: list[Happening]) -> None:
    life = RunLifecycle()
    ended = 0
    for moment, (name, happen) in enumerate(story):
        before = facts(life)
        try:
            result = happen(life, float(moment))
        except IllegalTransition:
            assert facts(life) == before
            assert name != "stop", "stops come from outside at any time"
        else:
            ended += name in ("ended", "refused")
            check_step(name, before, life, result)
        check_always(life)
        assert ended == (life.phase is Phase.ENDED)


CLAIMED: Happening = ("claimed", lambda life, _: life.claimed())
RETURNED: Happening = ("returned", lambda life, at: life.returned(at=at))

# Most random stories end early. Some get a start, so that all phases are visited often.
stories = st.tuples(
    st.sampled_from([[], [CLAIMED], [CLAIMED, RETURNED]]), st.lists(happenings, min_size=1, max_size=20)
).map(lambda parts: [*parts[0], *parts[1]])


@settings(max_examples=1000)
@given(stories)
def test_any_order_of_events_keeps_the_rules(story: list[Happening]) -> None:
    live(story)


@given(stories, st.sampled_from(STOPS))
def test_a_stop_before_the_claim_is_answered_keeps_the_handler_from_starting(
    story: list[Happening], cause: Cause
) -> None:
    """Whatever happens in between, a granted claim leads to STOPPING and never to RUNNING."""
    life = RunLifecycle()
    life.stop_requested(cause, at=0.0)
    for moment, (_, happen) in enumerate(story, 1):
        with suppress(IllegalTransition):
            happen(life, float(moment))
        assert life.phase is not Phase.RUNNING
        assert (life.cause, life.stopped_at) == (cause, 0.0)


@pytest.mark.parametrize(
    "broken",
    [
        {Phase.ENDED: {Event.STOP: Phase.STOPPING}},
        {Phase.ENDED: {Event.STOP: Phase.ENDED, Event.ENDED: Phase.ENDED}},
        {Phase.FINISHING: {**TRANSITIONS[Phase.FINISHING], Event.STOP: Phase.STOPPING}},
        {Phase.FINISHING: {Event.UNWOUND: Phase.FINISHING, Event.ENDED: Phase.ENDED}},
        {Phase.FINISHING: {**TRANSITIONS[Phase.FINISHING], Event.RETURNED: Phase.FINISHING}},
        {Phase.STOPPING: {**TRANSITIONS[Phase.STOPPING], Event.RETURNED: Phase.RUNNING}},
        {Phase.STOPPING: {**TRANSITIONS[Phase.STOPPING], Event.ENDED: Phase.FINISHING}},
        {Phase.RUNNING: {**TRANSITIONS[Phase.RUNNING], Event.STOP: Phase.RUNNING}},
        {Phase.RUNNING: {**TRANSITIONS[Phase.RUNNING], Event.UNWOUND: Phase.RUNNING}},
        {Phase.QUEUED: {**TRANSITIONS[Phase.QUEUED], Event.STOP: Phase.STOPPING, Event.CLAIMED: Phase.CLAIMING}},
        {Phase.CLAIMING: {**TRANSITIONS[Phase.CLAIMING], Event.REFUSED: Phase.RUNNING}},
        {Phase.CLAIMING: {Event.CLAIMED: Phase.RUNNING}},
    ],
)
def test_the_rules_find_a_broken_table(broken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "TRANSITIONS", MappingProxyType({**TRANSITIONS, **broken}))
    with pytest.raises((AssertionError, ExceptionGroup)):
        settings(max_examples=1000, phases=(Stage.generate,))(given(stories)(live))()


def test_only_the_lifecycle_changes_itself() -> None:
    """Everything else reports events."""
    package = Path(lifecycle.__file__).parent.parent
    assigned = re.compile(r"lifecycle\.\w+(: [^=]+)? [-+|]?= ")
    assert not [path for path in package.rglob("*.py") if assigned.search(path.read_text())]


def test_the_table_is_whole() -> None:
    assert set(TRANSITIONS) == set(Phase)
    assert all(Event.STOP in row for row in TRANSITIONS.values())
    assert {event for row in TRANSITIONS.values() for event in row} == set(Event)
    assert set(ENDS) == set(Cause)
    assert all(state.terminal for state in ENDS.values())


def finished(life: RunLifecycle, **facts_of_unwinding: bool) -> Cause:
    return life.unwound(**{"failed": False, "cleanup_timed_out": False, **facts_of_unwinding})


def running() -> RunLifecycle:
    life = RunLifecycle()
    life.claimed()
    return life


def test_a_handler_that_returns() -> None:
    life = running()
    life.returned(at=1.0)
    assert not life.stop_requested(Cause.STOPPED, at=2.0)
    assert finished(life) is Cause.RETURNED
    assert (life.asked_to_stop, life.stopped_at) == (True, None)


def test_a_handler_that_raises_while_it_is_stopped_is_stopped() -> None:
    life = running()
    assert life.stop_requested(Cause.STOPPED, at=1.0)
    assert life.deadline(at=1.5)
    life.raised(at=2.0)
    assert finished(life, failed=True) is Cause.STOPPED
    assert (life.stopped_at, life.body_ended_at) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("after", "cause"),
    [
        ({"failed": True}, Cause.EXCEPTION),
        ({"cleanup_timed_out": True, "failed": True}, Cause.CLEANUP_TIMEOUT),
        ({"interrupted": True}, Cause.SHUTDOWN),
    ],
)
def test_what_goes_wrong_after_the_handler_has_returned_is_recorded(after: dict[str, bool], cause: Cause) -> None:
    life = running()
    life.returned(at=1.0)
    assert finished(life, **after) is cause
    assert life.cause is Cause.RETURNED


def test_the_record_may_say_something_else_than_this_node() -> None:
    life = running()
    life.returned(at=1.0)
    finished(life)
    life.ended(Ending(cause=Cause.OWNER_LOST))
    assert (life.state, life.cause) == (RunState.ERROR, Cause.RETURNED)


def test_a_refused_claim_was_no_run() -> None:
    life = RunLifecycle()
    life.stop_requested(Cause.STOPPED, at=0.0)
    life.refused()
    assert (life.state, life.ending) == (RunState.IDLE, None)


def test_a_run_is_found_stuck_once_until_it_unwinds() -> None:
    life = running()
    life.stop_requested(Cause.STOPPED, at=0.0)
    assert life.found_stuck()
    assert not life.found_stuck()
    life.raised(at=1.0)
    finished(life)
    assert not life.is_stuck
    assert not life.found_stuck()


def test_the_error_names_event_and_phase() -> None:
    with pytest.raises(IllegalTransition, match="RETURNED cannot happen to a run that is claiming"):
        RunLifecycle().returned(at=0.0)
