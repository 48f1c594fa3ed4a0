"""The ticker: keep-alives, stalled readers, and runs that nobody watches, here or elsewhere."""

from __future__ import annotations

import attrs
import trio
from trio.testing import MockClock

from trio_agentapp.abc import Lease
from trio_agentapp.interrupts import LocalInterruptBackend
from trio_agentapp.protocol.ids import SessionKey
from trio_agentapp.protocol.lifecycle import Cause
from trio_agentapp.protocol.request import CancelAfter
from trio_agentapp.runs import Run
from trio_agentapp.runs.event_log import EventLog
from trio_agentapp.runs.ticker import KEEP_ALIVE, STALLED
from trio_agentapp.testing import Script, UnrulyBackend, say, wait

from .conftest import House, Open, how
from .shared_nodes import SharedStore


async def test_a_quiet_reader_is_nudged_every_15_s(autojump_clock: MockClock, house: House) -> None:
    run = await house.start(Script(say("a"), wait(100)))
    silences: list[float] = []
    with run.log.subscribe() as reader:
        try:
            while True:
                began = trio.current_time()
                if not await reader.receive():
                    silences.append(trio.current_time() - began)
        except trio.EndOfChannel:
            pass
    assert len(silences) == 6
    assert all(KEEP_ALIVE - 1.5 <= each <= KEEP_ALIVE + 1.0 for each in silences)


async def test_a_reader_that_takes_and_does_not_come_back_is_told_of(
    autojump_clock: MockClock, house: House
) -> None:
    run = await house.start(Script(say("a"), wait(100)))
    stalled: list[float] = []
    with run.log.subscribe() as reader, run.log.subscribe() as patient:
        reader.on_stalled = lambda: (stalled.append(trio.current_time()), reader.close())
        await reader.receive()
        await patient.receive()
        began = trio.current_time()
        await run.ended.wait()
    assert len(stalled) == 1
    assert STALLED - 1 <= stalled[0] - began <= STALLED + 2


async def test_readers_of_followed_logs_are_kept_alive_too(autojump_clock: MockClock, house: House) -> None:
    log = EventLog()
    house.registry.ticker.logs.add(log)
    with log.subscribe() as reader, trio.fail_after(2 * KEEP_ALIVE):
        assert await reader.receive() == []


def shared_house(open_house: Open, store: SharedStore):
    return open_house(store=store, backend=UnrulyBackend(LocalInterruptBackend()), check=False)


async def leave(run: Run) -> None:
    run.watch().close()
    await trio.sleep(0.01)


async def test_a_run_that_nobody_watches_anywhere_ends(autojump_clock: MockClock, open_house: Open) -> None:
    store = SharedStore()
    async with shared_house(open_house, store) as house:
        run = await house.start(Script(say("a"), wait()), on_disconnect="cancel")
        await leave(run)
        with trio.fail_after(1):
            await run.ended.wait()
    assert how(run) == ("STOPPED", "disconnected")
    assert store.asked == [[run.run_id]]


async def test_a_run_that_is_watched_elsewhere_goes_on(autojump_clock: MockClock, open_house: Open) -> None:
    store = SharedStore()
    async with shared_house(open_house, store) as house:
        run = await house.start(Script(say("a"), wait()), on_disconnect="cancel")
        async with store.attending(run.key, run.run_id):
            await leave(run)
            await trio.sleep(30)
            assert not run.stopping
        with trio.fail_after(2.5):
            await run.ended.wait()
    assert how(run) == ("STOPPED", "disconnected")


async def test_patience_counts_from_the_last_reader_on_any_node(
    autojump_clock: MockClock, open_house: Open
) -> None:
    store = SharedStore()
    async with shared_house(open_house, store) as house:
        run = await house.start(Script(say("a"), wait()), on_disconnect=CancelAfter(10))
        await leave(run)
        await trio.sleep(8)
        async with store.attending(run.key, run.run_id):
            await trio.sleep(8)
        left = trio.current_time()
        await run.ended.wait()
        assert 10 <= trio.current_time() - left <= 12
    assert how(run) == ("STOPPED", "disconnected")


async def test_whoever_came_back_while_the_store_was_asked_has_their_patience(
    autojump_clock: MockClock, open_house: Open
) -> None:
    store = SharedStore()
    async with shared_house(open_house, store) as house:
        run = await house.start(Script(say("a"), wait()), on_disconnect=CancelAfter(10))
        await leave(run)
        back: list[float] = []

        def look_in() -> None:
            if not back:
                run.watch().close()
                back.append(trio.current_time())

        store.on_asked = look_in
        await run.ended.wait()
        assert trio.current_time() - back[0] >= 10


async def test_a_store_that_cannot_be_asked_ends_no_run(autojump_clock: MockClock, open_house: Open) -> None:
    store = SharedStore()
    async with shared_house(open_house, store) as house:
        run = await house.start(Script(say("a"), wait()), on_disconnect="cancel")
        store.down = True
        await leave(run)
        await trio.sleep(20)
        assert not run.stopping
        store.down = False
        with trio.fail_after(2.5):
            await run.ended.wait()


async def test_a_slow_store_holds_up_neither_keep_alives_nor_the_search_for_stuck_runs(
    autojump_clock: MockClock, open_house: Open
) -> None:
    store = SharedStore()
    store.slow = 40.0

    async def obstinate(run: Run):
        yield "a"
        with trio.CancelScope(shield=True):
            await trio.sleep(60)

    async with shared_house(open_house, store) as house:
        lonely = await house.start(Script(say("a"), wait(200)), on_disconnect="cancel")
        quiet = await house.start(Script(say("a"), wait(200)))
        stubborn = await house.start(obstinate)
        await leave(lonely)
        await house.stop(stubborn)
        with quiet.log.subscribe() as reader, trio.fail_after(KEEP_ALIVE + 2):
            while await reader.receive():
                pass
        assert stubborn.lifecycle.is_stuck


async def test_a_waiting_run_that_is_watched_elsewhere_keeps_its_place(
    autojump_clock: MockClock, open_house: Open
) -> None:
    store = SharedStore()
    async with shared_house(open_house, store) as house:
        first = await house.start(Script(wait(20)))
        queued = await house.start(
            Script(say("a"), wait(20)), strategy="enqueue", key=first.key, on_disconnect="cancel"
        )
        async with store.attending(queued.key, queued.run_id):
            await leave(queued)
            await trio.sleep(5)
            assert not queued.stopping
        await queued.ended.wait()
    assert how(queued) == ("STOPPED", "disconnected")


async def test_runs_of_one_node_are_asked_for_together(autojump_clock: MockClock, open_house: Open) -> None:
    store = SharedStore()
    async with shared_house(open_house, store) as house:
        runs = [await house.start(Script(say("a"), wait()), on_disconnect=CancelAfter(3)) for _ in range(3)]
        for run in runs:
            run.watch().close()
        for run in runs:
            await run.ended.wait()
    assert [sorted(asked) for asked in store.asked] == [sorted(run.run_id for run in runs)]


def test_a_lease_may_be_a_key() -> None:
    lease = Lease(key=SessionKey("a", "b"), run_id="r", node_id="n", nonce="x")
    taught = attrs.evolve(lease, fallback_events={Cause.OWNER_LOST: [b"x"]})
    assert {lease: 1, taught: 2}[taught] == 2
    assert lease != taught
