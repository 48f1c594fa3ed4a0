"""Waiting in line for a busy session: order, interruptions, and every way out of the line."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio

from trio_agentapp.abc import MAX_QUEUED, Busy, Claim, Lease, RunWakeups, StopOutcome
from trio_agentapp.errors import Draining, QueueFull, SessionBusy
from trio_agentapp.interrupts import LocalInterruptBackend
from trio_agentapp.protocol.ids import SessionKey
from trio_agentapp.protocol.lifecycle import Cause, CleanupResult, Phase, RunState
from trio_agentapp.protocol.request import AgentRequest
from trio_agentapp.runs import Handler, Run, drain, stop_run
from trio_agentapp.runs.runner import Runner
from trio_agentapp.runs.session_queue import CLAIM_AGAIN
from trio_agentapp.runs.stop import _find_owner
from trio_agentapp.testing import Script, UnrulyBackend, say, wait

from .conftest import House, open_a_house, words_of
from .conftest import how as how_it_ended


async def queue_up(house: House, first: Run, count: int, *, seconds: float = 1.0) -> list[Run]:
    """So many runs that wait for the session of `first`, in this order."""
    runs = []
    for _ in range(count):
        runs.append(await house.start(Script(say("x"), wait(seconds)), strategy="enqueue", key=first.key))
        await trio.sleep(0.01)
    return runs


async def test_a_waiting_run_starts_at_once_when_the_session_is_free(autojump_clock, house: House) -> None:
    first = await house.start(Script(wait(10.3)))
    [second] = await queue_up(house, first, 1)
    assert (second.lifecycle.phase, second.lifecycle.state) == (Phase.QUEUED, RunState.IDLE)
    await first.ended.wait()
    free_at = trio.current_time()
    await trio.sleep(0.001)
    assert (second.lifecycle.phase, second.lifecycle.state) == (Phase.RUNNING, RunState.RUNNING)
    await second.ended.wait()
    assert trio.current_time() - free_at == pytest.approx(1.0, abs=0.01)
    assert how_it_ended(second) == ("FINISHED", "returned")
    assert second.token > first.token


async def test_the_line_is_kept_in_order(autojump_clock, house: House) -> None:
    order: list[str] = []

    def named(name: str) -> Any:
        async def handler() -> None:
            order.append(name)
            await trio.sleep(1)

        return handler

    first = await house.start(named("first"))
    for name in ("second", "third", "fourth"):
        await house.start(named(name), strategy="enqueue", key=first.key)
    await house.registry.wait_empty()
    assert order == ["first", "second", "third", "fourth"]


async def test_nobody_overtakes_the_line(autojump_clock, house: House) -> None:
    first = await house.start(Script(wait(3)))
    [second] = await queue_up(house, first, 1)
    gate = house.backend.hold("claim")
    await trio.sleep(3.5)
    # The session is free, and its next run is about to say so.
    with pytest.raises(SessionBusy) as raised:
        await house.start(Script(), key=first.key)
    assert raised.value.active_run_id == second.run_id
    gate.set()


async def test_bodies_of_a_line_never_overlap(autojump_clock, house: House) -> None:
    active = 0

    async def body(run: Run) -> None:
        nonlocal active
        active += 1
        assert active == 1
        try:
            await trio.sleep(1)
        finally:
            async with run.cleanup():
                await trio.sleep(0.5)
            active -= 1

    key = SessionKey("ann", "s")
    runs = [await house.start(body, key=key, strategy="enqueue") for _ in range(5)]
    await trio.sleep(0.5)
    await house.stop(runs[0])
    runs.append(await house.start(body, key=key, strategy="interrupt"))
    await house.registry.wait_empty()
    assert {run.lifecycle.cause for run in runs} == {Cause.STOPPED, Cause.RETURNED}


async def test_an_interrupting_run_stops_the_active_one_and_comes_first(autojump_clock, house: House) -> None:
    first = await house.start(Script(wait()))
    [queued] = await queue_up(house, first, 1)
    urgent = await house.start(Script(say("urgent"), wait(1)), strategy="interrupt", key=first.key)
    with trio.fail_after(2):
        await urgent.ended.wait()
    assert how_it_ended(first) == ("STOPPED", "stopped")
    assert how_it_ended(urgent) == ("FINISHED", "returned")
    assert urgent.replaces == [first.run_id]
    assert queued.lifecycle.state is RunState.RUNNING or not queued.ended.is_set()
    await queued.ended.wait()
    assert how_it_ended(queued) == ("FINISHED", "returned")


async def test_an_interruption_waits_for_the_cleanup(autojump_clock, house: House) -> None:
    async def tidy(run: Run) -> AsyncIterator[str]:
        try:
            yield "a"
            await trio.sleep_forever()
        finally:
            async with run.cleanup():
                await trio.sleep(4)

    first = await house.start(tidy)
    await trio.sleep(0.1)
    began = trio.current_time()
    urgent = await house.start(Script(say("b")), strategy="interrupt", key=first.key)
    await urgent.ended.wait()
    assert trio.current_time() - began == pytest.approx(4.0, abs=0.1)
    assert urgent.replaces == [first.run_id]
    assert house.backend.calls["request_stop"] == 1


async def test_a_stop_that_fails_is_tried_again(autojump_clock, house: House, log_text) -> None:
    first = await house.start(Script(wait()))
    house.backend.fail("request_stop", times=2)
    urgent = await house.start(Script(say("b")), strategy="interrupt", key=first.key)
    with trio.fail_after(3 * CLAIM_AGAIN):
        await urgent.ended.wait()
    assert how_it_ended(first) == ("STOPPED", "stopped")
    assert "could not be stopped yet" in log_text()


async def test_two_interruptions_at_once_both_run(autojump_clock, house: House) -> None:
    first = await house.start(Script(wait()))
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(
                lambda: house.start(Script(say("b"), wait(0.1)), strategy="interrupt", key=first.key)
            )
    await house.registry.wait_empty()
    assert how_it_ended(first) == ("STOPPED", "stopped")
    endings = sorted(how_it_ended(run) for run in house.started[1:])
    assert endings[0] == ("FINISHED", "returned")
    assert endings[1][0] in ("FINISHED", "STOPPED")


async def test_wake_ups_may_be_lost(autojump_clock, house: House) -> None:
    class Deaf(LocalInterruptBackend):
        def offers(self, capability: type[object]) -> bool:
            return capability is not RunWakeups

    async with open_a_house(backend=UnrulyBackend(Deaf())) as deaf:
        first = await deaf.start(Script(wait(10.3)))
        [second] = await queue_up(deaf, first, 1)
        await first.ended.wait()
        with trio.fail_after(CLAIM_AGAIN + 1.1):
            await second.ended.wait()


@pytest.mark.parametrize("by", ["registry", "run id elsewhere"])
async def test_a_stop_while_it_waits(autojump_clock, house: House, by: str) -> None:
    first = await house.start(Script(wait(5)))
    [second] = await queue_up(house, first, 1)
    if by == "registry":
        receipt = await house.stop(second, wait=True)
        assert (receipt.stopped, receipt.run_id) == (True, second.run_id)
    else:
        answer = await house.request_stop(second)
        assert answer.outcome is StopOutcome.PENDING
        with trio.fail_after(CLAIM_AGAIN + 0.1):
            await second.ended.wait()
    assert how_it_ended(second) == ("STOPPED", "stopped_before_start")
    assert words_of(second) == ""
    assert not first.stopping
    # The place is free: the next claim is not refused for its sake.
    await first.ended.wait()
    assert how_it_ended(await house.play(Script(), key=first.key)) == ("FINISHED", "returned")


async def test_a_stop_by_session_hits_the_run_that_has_it(autojump_clock, house: House) -> None:
    first = await house.start(Script(wait()))
    [second] = await queue_up(house, first, 1)
    receipt = await stop_run(house.registry, house.backend, first.key, wait=True)
    assert receipt.run_id == first.run_id
    await second.ended.wait()
    assert how_it_ended(second) == ("FINISHED", "returned")


async def test_a_stop_by_session_hits_the_owner_on_another_node_and_nobody_in_line(autojump_clock) -> None:
    server = LocalInterruptBackend()
    async with (
        open_a_house(backend=UnrulyBackend(server), node_id="node-1") as here,
        open_a_house(backend=UnrulyBackend(server), node_id="node-2") as there,
    ):
        first = await here.start(Script(wait()))
        second = await there.start(Script(say("b"), wait(1)), strategy="enqueue", key=first.key)
        receipt = await stop_run(there.registry, there.backend, first.key, wait=True)
        assert (receipt.run_id, receipt.node, receipt.stopped) == (first.run_id, "node-1", True)
        await second.ended.wait()
        assert how_it_ended(second) == ("FINISHED", "returned")


async def test_a_stop_by_session_that_overlaps_the_change_of_runs(autojump_clock, house: House) -> None:
    """It was accepted for the first run; the second has the session by the time the answer comes."""
    first = await house.start(Script(wait(1)))
    [second] = await queue_up(house, first, 1, seconds=5)
    [third] = await queue_up(house, first, 1, seconds=5)
    gate = house.backend.hold("request_stop", after=True)
    async with trio.open_nursery() as nursery:
        found: list[Any] = []

        async def stop() -> None:
            found.append(await _find_owner(house.registry, house.backend, third))

        nursery.start_soon(stop)
        await second_runs(second)
        gate.set()
    [(run, answer)] = found
    assert answer is None or answer.run_id == first.run_id
    assert run is None or run is first
    assert not second.stopping
    assert not third.stopping


async def second_runs(run: Run) -> None:
    while run.lifecycle.state is not RunState.RUNNING:
        await trio.sleep(0.1)


async def test_a_deadline_while_it_waits(autojump_clock, house: House) -> None:
    first = await house.start(Script(wait(10)))
    second = await house.start(Script(say("b")), strategy="enqueue", key=first.key, timeout_s=3.5)
    began = trio.current_time()
    await second.ended.wait()
    assert trio.current_time() - began == pytest.approx(3.5, abs=0.1)
    assert how_it_ended(second) == ("ERROR", "deadline_exceeded")
    assert words_of(second) == ""


async def test_a_deadline_while_its_claim_is_on_its_way(autojump_clock, house: House) -> None:
    first = await house.start(Script(wait(2.5)))
    second = await house.start(Script(say("b")), strategy="enqueue", key=first.key, timeout_s=3.5)
    await trio.sleep(1.5)
    gate = house.backend.hold("claim")
    await trio.sleep(3)
    gate.set()
    await second.ended.wait()
    assert how_it_ended(second) == ("ERROR", "deadline_exceeded")
    assert words_of(second) == ""


async def test_a_stop_while_its_claim_is_granted(autojump_clock, house: House) -> None:
    first = await house.start(Script(wait(2.5)))
    [second] = await queue_up(house, first, 1)
    await trio.sleep(2.0)
    gate = house.backend.hold("claim", after=True)
    await trio.sleep(1.0)
    await house.stop(second)
    gate.set()
    await second.ended.wait()
    assert how_it_ended(second) == ("STOPPED", "stopped")
    assert words_of(second) == ""


@pytest.mark.parametrize("lost", [False, True])
async def test_a_backend_that_fails_while_it_waits(autojump_clock, house: House, lost: bool, log_text) -> None:
    first = await house.start(Script(wait(2.5)))
    [second] = await queue_up(house, first, 1)
    await trio.sleep(2.0)
    if lost:
        house.backend.lose("claim")
    else:
        house.backend.fail("claim")
    await second.ended.wait()
    assert how_it_ended(second) == ("ERROR", "claim_failed")
    assert words_of(second) == ""
    assert "cannot wait for its session any more" in log_text()
    await first.ended.wait()
    assert how_it_ended(await house.play(Script(), key=first.key)) == ("FINISHED", "returned")


async def test_a_bug_of_a_backend_is_one_runs_own(autojump_clock, house: House, log_text) -> None:
    first = await house.start(Script(wait(2.5)))
    [second] = await queue_up(house, first, 1)
    house.backend.fail("claim", RuntimeError("a bug"))
    await second.ended.wait()
    assert how_it_ended(second) == ("ERROR", "claim_failed")
    await first.ended.wait()
    assert how_it_ended(first) == ("FINISHED", "returned")


async def test_as_many_as_may_wait(autojump_clock, house: House) -> None:
    first = await house.start(Script(wait()))
    waiting = await queue_up(house, first, MAX_QUEUED, seconds=0)
    for strategy in ("enqueue", "interrupt"):
        with pytest.raises(QueueFull):
            await house.start(Script(), strategy=strategy, key=first.key)
    await house.stop(waiting[3], wait=True)
    waiting += await queue_up(house, first, 1, seconds=0)
    assert len(house.registry.live()) == MAX_QUEUED + 1
    await house.stop(first)


async def test_a_backend_without_queues_says_busy(autojump_clock) -> None:
    class WithoutQueues(LocalInterruptBackend):
        async def claim(self, lease: Lease) -> Claim:
            session = self._session(lease.key)
            if session.lease is not None and session.lease.run_id != lease.run_id:
                await trio.lowlevel.checkpoint()
                return Busy(session.lease.run_id, 2.0)
            return await super().claim(lease)

    async with open_a_house(backend=UnrulyBackend(WithoutQueues())) as house:
        first = await house.start(Script(wait(1)))
        for strategy in ("enqueue", "interrupt", "rollback"):
            with pytest.raises(SessionBusy) as raised:
                await house.start(Script(), strategy=strategy, key=first.key)
            assert (raised.value.active_run_id, raised.value.retry_after) == (first.run_id, 2.0)
        assert not first.stopping


async def test_whoever_hangs_up_leaves_the_line(autojump_clock, house: House) -> None:
    first = await house.start(Script(wait(2)))
    second = await house.start(Script(say("b")), strategy="enqueue", key=first.key, on_disconnect="cancel")
    second.watch().close()
    with trio.fail_after(1):
        await second.ended.wait()
    assert how_it_ended(second) == ("STOPPED", "disconnected")


# Leaving.


async def test_a_drain_ends_those_who_wait_at_once(autojump_clock, house: House) -> None:
    first = await house.start(Script(wait(3)))
    waiting = await queue_up(house, first, 3)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain, house.registry, 30.0)
        for run in waiting:
            await run.ended.wait()
        assert trio.current_time() - began < 0.1
    assert how_it_ended(first) == ("FINISHED", "returned")
    assert {how_it_ended(run) for run in waiting} == {("STOPPED", "shutdown")}


async def test_who_is_about_to_wait_when_a_drain_begins(autojump_clock, house: House) -> None:
    first = await house.start(Script(wait(3)))
    gate = house.backend.hold("claim", after=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: house.start(Script(say("b")), strategy="enqueue", key=first.key))
        await trio.sleep(1)
        nursery.start_soon(drain, house.registry, 30.0)
        await trio.sleep(1)
        gate.set()
    [_, second] = house.started
    assert how_it_ended(first) == ("FINISHED", "returned")
    assert how_it_ended(second) == ("STOPPED", "shutdown")
    assert words_of(second) == ""


async def test_a_closing_registry_ends_the_line(autojump_clock) -> None:
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(open_a_house())
        first = await house.start(Script(wait()))
        waiting = await queue_up(house, first, 2)
    assert [how_it_ended(run) for run in (first, *waiting)] == [("STOPPED", "shutdown")] * 3
    with pytest.raises(Draining):
        await house.start(Script(), strategy="enqueue", key=first.key)


# The same request again.


async def test_a_waiting_run_is_joined_by_its_id(autojump_clock, house: House) -> None:
    runner = Runner(app=None, handler=Handler(Script(say("b"), wait(1))), registry=house.registry)
    first = await house.start(Script(wait(3)))

    def request() -> AgentRequest:
        return AgentRequest(
            input="hi",
            id="the-same-run",
            session_id=first.session_id,
            user_id=first.user_id,
            multitask_strategy="enqueue",
        )

    one = await runner.start(request())
    two = await runner.start(request())
    assert one.run is two.run is not None
    with one.subscriber, two.subscriber:
        await one.run.ended.wait()
    assert how_it_ended(one.run) == ("FINISHED", "returned")


async def test_another_claim_of_a_waiting_run_takes_neither_place_nor_end(autojump_clock) -> None:
    """The same run id, sent to two nodes."""
    server = LocalInterruptBackend()
    key = SessionKey("ann", "s")
    async with (
        open_a_house(backend=UnrulyBackend(server), node_id="node-1") as here,
        open_a_house(backend=UnrulyBackend(server), node_id="node-2", check=False) as there,
    ):
        first = await here.start(Script(wait(3)), key=key)
        queued = await here.start(Script(say("b"), wait(1)), strategy="enqueue", key=key, run_id="the-same-run")
        for strategy in ("enqueue", "reject"):
            with pytest.raises(SessionBusy):
                await there.start(Script(), strategy=strategy, key=key, run_id="the-same-run")
        gate = there.backend.hold("claim")
        with trio.move_on_after(1):
            await there.start(Script(), strategy="enqueue", key=key, run_id="the-same-run")
        gate.set()
        await queued.ended.wait()
        assert how_it_ended(queued) == ("FINISHED", "returned")
        assert how_it_ended(first) == ("FINISHED", "returned")


# What it replaces is undone.


async def test_a_rollback_undoes_what_it_replaced_and_nothing_else(autojump_clock) -> None:
    undone: list[tuple[SessionKey, int]] = []

    async def undo(key: SessionKey, token: int) -> None:
        undone.append((key, token))
        await trio.sleep(0.1)

    async with open_a_house(undo=undo) as house:
        key = SessionKey("ann", "s")
        finished = await house.play(Script(), key=key)
        first = await house.start(Script(wait()), key=key)
        interrupting = await house.start(Script(wait(1)), key=key, strategy="interrupt")
        await interrupting.ended.wait()
        assert undone == []
        second = await house.start(Script(wait()), key=key)
        back = await house.start(Script(say("b")), key=key, strategy="rollback")
        await back.ended.wait()
        assert undone == [(key, second.token)]
    assert finished.token < first.token < second.token < back.token


async def test_a_run_that_finished_before_its_stop_is_not_undone(autojump_clock) -> None:
    undone: list[int] = []

    async def undo(key: SessionKey, token: int) -> None:
        undone.append(token)

    async with open_a_house(undo=undo) as house:
        first = await house.start(Script(wait(1)))
        gate = house.backend.hold("finish")
        await trio.sleep(2)
        back = await house.start(Script(say("b")), key=first.key, strategy="rollback")
        await trio.sleep(2)
        gate.set()
        await back.ended.wait()
        assert back.replaces == [first.run_id]
        assert how_it_ended(first) == ("FINISHED", "returned")
        assert undone == []


async def test_a_stop_during_a_rollback_that_fails(autojump_clock) -> None:
    begun = trio.Event()

    async def undo(key: SessionKey, token: int) -> None:
        begun.set()
        await trio.sleep(1)
        raise OSError("no room")

    async with open_a_house(undo=undo) as house:
        first = await house.start(Script(wait()))
        back = await house.start(Script(say("b")), key=first.key, strategy="rollback")
        await begun.wait()
        assert back.scope.stop(Cause.STOPPED)
        await back.ended.wait()
        assert how_it_ended(back) == ("STOPPED", "stopped")
        assert back.lifecycle.ending.stop_requested


async def test_a_stop_waits_for_a_rollback_and_the_handler_does_not_start(autojump_clock) -> None:
    begun, undone = trio.Event(), []

    async def undo(key: SessionKey, token: int) -> None:
        begun.set()
        await trio.sleep(3)
        undone.append(token)

    async with open_a_house(undo=undo) as house:
        first = await house.start(Script(wait()))
        back = await house.start(Script(say("b")), key=first.key, strategy="rollback")
        await begun.wait()
        receipt = await house.stop(back, wait=True)
        assert (receipt.stopped, receipt.cleanup) == (True, CleanupResult.DONE)
        assert receipt.latency_ms == pytest.approx(3000, abs=100)
        assert undone == [first.token]
        assert how_it_ended(back) == ("STOPPED", "stopped")
        assert words_of(back) == ""


@pytest.mark.parametrize("stopped_after", [0.0, 4.0])
async def test_a_rollback_that_hangs_ends_with_the_cleanup_budget(autojump_clock, stopped_after: float) -> None:
    begun, cancelled = trio.Event(), trio.Event()

    async def undo(key: SessionKey, token: int) -> None:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with open_a_house(undo=undo, cleanup_budget=10.0) as house:
        first = await house.start(Script(wait()))
        back = await house.start(Script(say("b")), key=first.key, strategy="rollback")
        await begun.wait()
        began_at = trio.current_time()
        await trio.sleep(stopped_after)
        assert back.scope.stop(Cause.STOPPED)
        await cancelled.wait()
        assert trio.current_time() - began_at == pytest.approx(10.0, abs=0.1)
        await back.ended.wait()
        assert how_it_ended(back) == ("ERROR", "cleanup_timeout")
        assert back.lifecycle.ending.cleanup is CleanupResult.TIMED_OUT
        assert back.lifecycle.ending.stop_requested
        assert words_of(back) == ""
        next_one = await house.play(Script(say("c")), key=first.key)
        assert words_of(next_one) == "c"


async def test_a_rollback_that_hangs_without_a_stop_is_an_error(autojump_clock) -> None:
    async def undo(key: SessionKey, token: int) -> None:
        await trio.sleep_forever()

    async with open_a_house(undo=undo) as house:
        first = await house.start(Script(wait()))
        back = await house.start(Script(say("b")), key=first.key, strategy="rollback")
        await back.ended.wait()
        assert how_it_ended(back) == ("ERROR", "exception")
        assert words_of(back) == ""


async def test_what_cannot_be_undone_starts_nothing(autojump_clock, caplog) -> None:
    async def undo(key: SessionKey, token: int) -> None:
        raise OSError("no room")

    caplog.set_level(logging.ERROR)
    async with open_a_house(undo=undo) as house:
        first = await house.start(Script(wait()))
        back = await house.start(Script(say("b")), key=first.key, strategy="rollback")
        await back.ended.wait()
        assert how_it_ended(back) == ("ERROR", "exception")
        assert words_of(back) == ""
