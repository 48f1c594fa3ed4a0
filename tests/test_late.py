"""Events and locks that are made when a task first waits for them."""

from __future__ import annotations

import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from trio_agentapp.late import LateEvent, LateLock


async def test_an_event_wakes_all_that_wait_and_may_be_cleared() -> None:
    event, woken = LateEvent(), []

    async def wait(name: str) -> None:
        await event.wait()
        woken.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "a")
        nursery.start_soon(wait, "b")
        await wait_all_tasks_blocked()
        assert woken == []
        event.set()
        await wait_all_tasks_blocked()
        assert sorted(woken) == ["a", "b"]
        await event.wait()
        event.clear()
        assert not event.is_set()
        nursery.start_soon(wait, "c")
        await wait_all_tasks_blocked()
        assert "c" not in woken
        event.set()
        assert event.is_set()


async def test_waiting_is_a_checkpoint_and_can_be_cancelled() -> None:
    event = LateEvent()
    event.set()
    with assert_checkpoints():
        await event.wait()
    event.clear()
    with trio.CancelScope() as scope:
        scope.cancel()
        await event.wait()
    assert scope.cancelled_caught


async def test_a_lock_is_held_by_one_task_in_turn_and_is_gone_when_nobody_holds_it() -> None:
    lock, order = LateLock(), []

    async def hold(name: str) -> None:
        async with lock:
            order.append(name)
            await trio.lowlevel.checkpoint()
            assert order[-1] == name
            assert lock.locked()

    async def give_up(scope: trio.CancelScope) -> None:
        with scope:
            async with lock:
                order.append("never")

    async with trio.open_nursery() as nursery, lock:
        assert lock.locked()
        scope = trio.CancelScope()
        nursery.start_soon(hold, "a")
        await wait_all_tasks_blocked()
        nursery.start_soon(give_up, scope)
        await wait_all_tasks_blocked()
        nursery.start_soon(hold, "b")
        await wait_all_tasks_blocked()
        scope.cancel()
        await wait_all_tasks_blocked()
        assert order == []
    assert order == ["a", "b"]
    assert not lock.locked()
    assert lock._lock is None
    with trio.CancelScope() as cancelled:
        cancelled.cancel()
        await give_up(trio.CancelScope())
    assert not lock.locked()
