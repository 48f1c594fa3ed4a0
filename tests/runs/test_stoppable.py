"""A cancel scope that knows why it was cancelled: stops, the deadline, and the lease."""

import pytest
import trio

from trio_agentapp.protocol.lifecycle import Cause, RunLifecycle
from trio_agentapp.runs.stoppable import StoppableScope


def new_scope(deadline: float = float("inf")) -> StoppableScope:
    lifecycle = RunLifecycle()
    lifecycle.claimed()
    return StoppableScope(lifecycle, "run x", deadline=deadline)


async def test_the_earlier_of_deadline_and_lease_is_the_cause(autojump_clock) -> None:
    for deadline, lease, cause in [(3, 8, Cause.DEADLINE_EXCEEDED), (8, 3, Cause.LEASE_LOST), (3, 3, "own")]:
        now = trio.current_time()
        scope = new_scope(now + deadline)
        scope.renew(now + lease)
        with scope.cancel_scope:
            await trio.sleep_forever()
        # It is noticed late, and counts from when it happened.
        await trio.sleep(5)
        assert scope.stopped_at() == now + 3
        assert scope.lifecycle.cause is (Cause.DEADLINE_EXCEEDED if cause == "own" else cause)


async def test_an_expired_deadline_comes_before_a_later_stop(autojump_clock) -> None:
    scope = new_scope(trio.current_time() + 1)
    with scope.cancel_scope:
        await trio.sleep_forever()
    assert scope.stop(Cause.STOPPED)
    assert scope.lifecycle.cause is Cause.DEADLINE_EXCEEDED
    assert scope.lifecycle.asked_to_stop


async def test_an_expired_deadline_comes_before_the_end_of_the_body(autojump_clock) -> None:
    scope = new_scope(trio.current_time() + 1)
    with scope.cancel_scope:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
        scope.body_ended()
    assert scope.lifecycle.cause is Cause.DEADLINE_EXCEEDED


async def test_a_renewal_after_the_lease_has_expired_changes_nothing(autojump_clock) -> None:
    scope = new_scope()
    scope.renew(trio.current_time() + 1)
    with scope.cancel_scope, trio.CancelScope(shield=True):
        await trio.sleep(2)
        scope.renew(trio.current_time() + 10)
    assert scope.lifecycle.cause is Cause.LEASE_LOST


async def test_a_stop_after_the_body_has_ended_cancels_nothing() -> None:
    called: list[str] = []
    scope = new_scope()
    scope.on_stop = lambda: called.append("stop")
    scope.body_ended()
    assert not scope.stop(Cause.STOPPED)
    assert not scope.cancel_scope.cancel_called
    assert (called, scope.stopped_at()) == ([], None)


async def test_the_reason_of_the_cancellation_names_run_and_cause() -> None:
    scope = new_scope()
    scope.stop(Cause.SHUTDOWN)
    with scope.cancel_scope:
        with pytest.raises(trio.Cancelled, match="run x: shutdown"):
            await trio.lowlevel.checkpoint()
