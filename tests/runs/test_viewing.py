"""Reading runs from anywhere: live here, live elsewhere, over; on a virtual clock, with two nodes in a process."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from trio_agentapp.abc import BaseInterruptBackend, EventStore
from trio_agentapp.errors import BackendUnavailable, Draining, Elsewhere, RunNotFound, StreamExpired, TooManyRuns
from trio_agentapp.events import LocalEventStore
from trio_agentapp.interrupts import LocalInterruptBackend
from trio_agentapp.protocol.events import Event, ResponseEvent
from trio_agentapp.protocol.lifecycle import Cause, RunRecord, RunState
from trio_agentapp.runs import Gap, Run, Subscriber, drain, follower, terminal_events, viewing
from trio_agentapp.runs.viewing import Viewing
from trio_agentapp.testing import Script, UnrulyBackend, say, wait

from .conftest import House, open_a_house
from .shared_nodes import SharedBackend, SharedStore


class Node:
    def __init__(self, house: House, store: EventStore) -> None:
        self.house = house
        self.viewing = Viewing(house.registry, house.backend, store)

    async def record(self, run: Run) -> RunRecord:
        record = await self.house.backend.run_status(run.run_id)
        assert record is not None
        return record

    async def attach(self, run: Run, after: int = -1) -> Subscriber:
        reader = await self.viewing.attach(await self.record(run), after)
        assert reader is not None
        return reader

    def check_idle(self) -> None:
        """Nothing is left of any reader."""
        assert self.viewing._followed == {}
        assert self.house.registry.ticker.logs == set()


@asynccontextmanager
async def open_nodes(
    store: EventStore | None = None, server: BaseInterruptBackend | None = None
) -> AsyncIterator[tuple[Node, Node]]:
    """Of stores that are not shared each node has its own."""
    stores = [store or LocalEventStore(), store or LocalEventStore()]
    if server is None:
        server = SharedBackend(store) if isinstance(store, SharedStore) else LocalInterruptBackend()
    async with (
        open_a_house(store=stores[0], backend=UnrulyBackend(server), node_id="node-1", check=False) as one,
        open_a_house(store=stores[1], backend=UnrulyBackend(server), node_id="node-2", check=False) as two,
    ):
        yield Node(one, stores[0]), Node(two, stores[1])


async def read(reader: Subscriber) -> list[Any]:
    """Numbers, and gaps as pairs, to the end of the stream."""
    told: list[Any] = []
    with reader:
        try:
            while True:
                for each in await reader.receive():
                    told.append((each.start, each.stop) if isinstance(each, Gap) else each.sequence_number)
        except trio.EndOfChannel:
            return told


async def last_of(reader: Subscriber) -> ResponseEvent:
    last: Event | Gap | None = None
    with reader:
        try:
            while True:
                last = [last, *await reader.receive()][-1]
        except trio.EndOfChannel:
            assert isinstance(last, ResponseEvent)
            assert last.terminal
            return last


def chat(words: int = 10, pause: float = 0.4) -> Script:
    steps = [step for _ in range(words) for step in (say("word "), wait(pause))]
    return Script(*steps)


def all_numbers(run: Run) -> list[int]:
    return list(range(run.log.end))


# On the node of the run.


async def test_a_live_run_is_read_where_it_runs(autojump_clock) -> None:
    async with open_nodes() as (here, _):
        run = await here.house.start(chat())
        assert await read(await here.attach(run)) == all_numbers(run)
        assert await read(await here.attach(run)) == all_numbers(run)
        here.check_idle()


async def test_a_reader_here_counts_as_a_watcher(autojump_clock) -> None:
    async with open_nodes() as (here, _):
        run = await here.house.start(Script(say("a"), wait()), on_disconnect="cancel")
        (await here.attach(run)).close()
        with trio.fail_after(1):
            await run.ended.wait()
        assert run.lifecycle.cause is Cause.DISCONNECTED


@pytest.mark.parametrize("after", [-1, 0, 3, 7])
async def test_an_ended_run_is_replayed_from_any_number(autojump_clock, after: int) -> None:
    async with open_nodes() as (here, _):
        run = await here.house.play(chat())
        assert await read(await here.attach(run, after)) == all_numbers(run)[after + 1 :]
        here.check_idle()


@pytest.mark.parametrize("beyond", [0, 1, 1000])
async def test_who_has_seen_the_end_gets_nothing(autojump_clock, beyond: int) -> None:
    async with open_nodes() as (here, _):
        run = await here.house.play(chat())
        assert await here.viewing.attach(await here.record(run), run.log.end - 1 + beyond) is None


async def test_the_end_alone(autojump_clock) -> None:
    store = SharedStore()
    async with open_nodes(store) as (here, there):
        run = await here.house.start(chat())
        with trio.fail_after(60):
            for node in (here, there):
                assert (await last_of(await attach_end(node, run))).status == "completed"
        for node in (here, there):
            with await attach_end(node, run) as reader:
                [only] = await reader.receive()
                assert only.sequence_number == run.log.end - 1


async def test_all_readers_are_shown_the_time_of_the_record(
    autojump_clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of the run's node is another one than that of the server which records the end."""
    store = SharedStore()
    monkeypatch.setattr(terminal_events, "time", SimpleNamespace(time=lambda: time.time() + 100))
    async with open_nodes(store) as (here, there):
        run = await here.house.start(chat())
        with trio.fail_after(60):
            ends = [await last_of(await attach_end(node, run)) for node in (here, there)]
        ends += [await last_of(await here.attach(run))]
        ended_at = (await here.record(run)).ended_at
        assert ended_at is not None
        assert [end.completed_at for end in ends] == [int(ended_at)] * 3


async def attach_end(node: Node, run: Run) -> Subscriber:
    reader = await node.viewing.attach_end(await node.record(run))
    assert reader is not None
    return reader


async def test_an_old_record_of_a_run_that_has_ended_meanwhile(autojump_clock) -> None:
    async with open_nodes() as (here, _):
        run = await here.house.start(chat())
        record = await here.record(run)
        await run.ended.wait()
        reader = await here.viewing.attach(record)
        assert reader is not None
        assert await read(reader) == all_numbers(run)


async def test_a_record_of_a_run_that_nobody_has(autojump_clock) -> None:
    async with open_nodes() as (here, _):
        run = here.house.new_run()
        record = RunRecord(run_id=run.run_id, key=run.key, state=RunState.RUNNING, node_id="node-1")
        with pytest.raises(RunNotFound):
            await here.viewing.attach(record)


async def test_readers_of_one_run_are_bounded(autojump_clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewing, "MAX_READERS", 2)
    async with open_nodes(SharedStore()) as (here, there):
        run = await here.house.start(Script(say("a"), wait(5)))
        for node in (here, there):
            with await node.attach(run), await node.attach(run) as second:
                with pytest.raises(TooManyRuns):
                    await node.attach(run)
                second.close()
                (await node.attach(run)).close()


# Where events stay on their node.


async def test_events_of_another_node_are_elsewhere(autojump_clock) -> None:
    async with open_nodes() as (here, there):
        run = await here.house.start(Script(say("a"), wait(5)))
        for _ in ("live", "ended"):
            with pytest.raises(Elsewhere) as raised:
                await there.attach(run)
            assert raised.value.node_id == "node-1"
            with pytest.raises(Elsewhere):
                await attach_end(there, run)
            await run.ended.wait()


async def test_events_that_are_not_kept_any_more_have_expired(autojump_clock) -> None:
    store = LocalEventStore(max_weight=1)
    async with open_nodes(store) as (here, _):
        run = await here.house.play(chat())
        with pytest.raises(StreamExpired):
            await here.attach(run)


async def test_a_run_without_events_of_its_own_is_told_from_its_record(autojump_clock) -> None:
    async with open_nodes() as (here, there):
        run = here.house.new_run()
        record = RunRecord(
            run_id=run.run_id, key=run.key, state=RunState.STOPPED, reason="stopped_before_start", node_id="node-1"
        )
        for node in (here, there):
            for after in (-1, 4):
                reader = await node.viewing.attach(record, after)
                assert reader is not None
                last = await last_of(reader)
                assert (last.status, last.sequence_number) == ("canceled", after + 1)


async def test_of_a_node_that_died_only_the_end_is_told_and_a_gap(autojump_clock) -> None:
    async with open_nodes() as (here, there):
        run = here.house.new_run()
        record = RunRecord(
            run_id=run.run_id, key=run.key, state=RunState.ERROR, reason="owner_lost", node_id="node-9"
        )
        reader = await there.viewing.attach(record, 4)
        assert reader is not None
        assert await read(reader) == [(5, 5), 6]


# Where readers elsewhere can follow.


async def test_a_live_run_is_followed_to_its_end(autojump_clock) -> None:
    store = SharedStore()
    async with open_nodes(store) as (here, there):
        run = await here.house.start(chat())
        assert await read(await there.attach(run)) == all_numbers(run)
        there.check_idle()


async def test_a_wake_up_is_not_waited_for(autojump_clock) -> None:
    async with open_nodes(SharedStore()) as (here, there):
        run = await here.house.start(Script(say("a"), wait(10.3)))
        began = trio.current_time()
        await last_of(await there.attach(run))
        assert trio.current_time() - began == pytest.approx(10.3, abs=0.01)


async def test_readers_share_one_follower_from_wherever_they_begin(autojump_clock) -> None:
    store = SharedStore()
    async with open_nodes(store) as (here, there):
        run = await here.house.start(chat())
        told: dict[int, list[Any]] = {}

        async def follow(after: int) -> None:
            told[after] = await read(await there.attach(run, after))

        async with trio.open_nursery() as nursery:
            # One that begins late comes first.
            for after in (5, -1, 2, 8):
                nursery.start_soon(follow, after)
                await trio.sleep(0.3)
            assert len(there.viewing._followed) == len(there.house.registry.ticker.logs) == 1
        for after, numbers in told.items():
            assert numbers == all_numbers(run)[after + 1 :]
        there.check_idle()


async def test_a_number_from_nowhere_harms_no_other_reader(autojump_clock) -> None:
    store = SharedStore()
    async with open_nodes(store) as (here, there):
        run = await here.house.start(chat())
        with await there.attach(run, 2**53):
            assert await read(await there.attach(run)) == all_numbers(run)
        there.check_idle()


async def test_a_reader_of_this_node_may_be_ahead_of_it(autojump_clock) -> None:
    """It was on another node, and saw there what the owner does not know to be written yet."""
    store = SharedStore()
    async with open_nodes(store) as (here, _):
        run = await here.house.start(Script(say("a"), wait(1), say("b"), wait(1)))
        await trio.sleep(0.5)
        end = run.log.end
        ahead, normal = await here.attach(run, end), await here.attach(run)
        assert await read(ahead) == list(range(end + 1, run.log.end))
        assert await read(normal) == all_numbers(run)


async def test_who_leaves_last_ends_the_following(autojump_clock) -> None:
    store = SharedStore()
    async with open_nodes(store) as (here, there):
        run = await here.house.start(Script(say("a"), wait()))
        one, two = await there.attach(run), await there.attach(run)
        await trio.sleep(0.1)
        assert store.attended[run.run_id] == 1
        one.close()
        await trio.sleep(0.1)
        assert store.attended[run.run_id] == 1
        two.close()
        await trio.sleep(0.1)
        assert store.attended[run.run_id] == 0
        there.check_idle()
        with await there.attach(run) as again:
            assert (await again.receive())[0].sequence_number == 0
        there.check_idle()


async def test_who_comes_as_the_last_one_leaves_follows_anew(autojump_clock) -> None:
    store = SharedStore()
    async with open_nodes(store) as (here, there):
        run = await here.house.start(chat())
        first = await there.attach(run)
        await trio.sleep(0.1)
        record = await there.record(run)
        extent = await store.extent(run.key, run.run_id)
        first.close()
        second = await there.viewing._follow(record, -1, extent)
        assert await read(second) == all_numbers(run)
        there.check_idle()


async def test_followed_runs_are_bounded(autojump_clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewing, "MAX_FOLLOWED", 1)
    async with open_nodes(SharedStore()) as (here, there):
        one, two = [await here.house.start(Script(say("a"), wait(5))) for _ in range(2)]
        with await there.attach(one):
            with pytest.raises(TooManyRuns):
                await there.attach(two)
        (await there.attach(two)).close()


async def test_what_is_gone_is_a_gap(autojump_clock) -> None:
    store = SharedStore()
    async with open_nodes(store) as (here, there):
        run = await here.house.play(chat())
        store.trimmed = 6
        for node in (here, there):
            assert await read(await node.attach(run)) == [(0, 5), *all_numbers(run)[6:]]
            assert await read(await node.attach(run, 3)) == [(4, 5), *all_numbers(run)[6:]]


async def test_what_is_trimmed_while_it_is_followed_is_a_gap(autojump_clock) -> None:
    store = SharedStore()
    async with open_nodes(store) as (here, there):
        run = await here.house.start(Script(say("a"), wait(0.5), *[say("b")] * 5, wait(3)))
        await trio.sleep(0.1)
        reader = await there.attach(run)
        began = [event.sequence_number for event in await reader.receive()]
        await trio.sleep(0.5)
        store.trimmed = 6
        assert began + await read(reader) == [0, 1, 2, 3, (4, 5), *all_numbers(run)[6:]]


async def test_a_run_whose_events_were_all_lost_is_told_with_a_gap(autojump_clock) -> None:
    store = SharedStore()
    async with open_nodes(store) as (here, there):
        run = await here.house.play(chat())
        store.streams.clear()
        assert await read(await there.attach(run)) == [(0, 0), 1]


async def test_a_lost_terminal_event_is_told_from_the_record(autojump_clock) -> None:
    store = SharedStore()
    async with open_nodes(store) as (here, there):
        run = await here.house.play(chat())
        store.streams[run.run_id].pop()
        reader = await there.attach(run)
        with trio.fail_after(5):
            assert await read(reader) == all_numbers(run)
        there.check_idle()


async def test_a_store_that_is_down_for_a_while(autojump_clock) -> None:
    store = SharedStore()
    async with open_nodes(store) as (here, there):
        run = await here.house.start(chat())
        reader = await there.attach(run)
        store.down = True
        with pytest.raises(BackendUnavailable):
            await there.attach(run)
        here_too = await here.attach(run)
        await trio.sleep(2)
        store.down = False
        assert await read(reader) == await read(here_too) == all_numbers(run)


async def test_a_store_that_fails_cuts_its_readers(
    autojump_clock, monkeypatch: pytest.MonkeyPatch, log_text
) -> None:
    store = SharedStore()
    async with open_nodes(store) as (here, there):
        run = await here.house.start(Script(say("a"), wait(5)))

        async def fail(*_: Any) -> Sequence[Event]:
            await trio.lowlevel.checkpoint()
            raise ValueError("not an event of a run")

        with monkeypatch.context() as patch, trio.fail_after(5):
            patch.setattr(store, "read", fail)
            reader = await there.attach(run)
            with pytest.raises(trio.EndOfChannel):
                await reader.receive()
        assert "cannot be followed any more" in log_text()
        # A reader that attaches now, before the first one has left, starts a new follower.
        assert await read(await there.attach(run)) == all_numbers(run)
        reader.close()
        there.check_idle()


async def test_a_run_that_is_forgotten_ends_its_readers(autojump_clock) -> None:
    store = SharedStore()
    async with open_nodes(store) as (here, there):
        run = here.house.new_run()
        record = RunRecord(run_id=run.run_id, key=run.key, state=RunState.RUNNING, node_id="node-9")
        reader = await there.viewing.attach(record)
        assert reader is not None
        with trio.fail_after(5):
            assert await read(reader) == []
        there.check_idle()


async def test_a_waiting_run_is_followed_from_its_first_event(autojump_clock) -> None:
    store = SharedStore()
    async with open_nodes(store) as (here, there):
        first = await here.house.start(Script(wait(5)))
        queued = await here.house.start(chat(), strategy="enqueue", key=first.key)
        assert await read(await there.attach(queued)) == all_numbers(queued)


async def test_a_slow_reader_elsewhere_reads_from_the_store(
    autojump_clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "RECENT_EVENTS", 4)
    store = SharedStore()
    async with open_nodes(store) as (here, there):
        run = await here.house.start(chat(40, pause=0.01))
        with await there.attach(run) as slow:
            # It is slow, and yet comes back each time.
            slow.on_stalled = slow.close
            told: list[int] = []
            try:
                while True:
                    told += [event.sequence_number for event in await slow.receive(1)]
                    await trio.sleep(5)
            except trio.EndOfChannel:
                pass
        assert told == all_numbers(run)


async def test_few_events_are_kept_where_a_store_has_them_all(autojump_clock, monkeypatch) -> None:
    monkeypatch.setattr("trio_agentapp.runs.event_log.RECENT_EVENTS", 8)
    store = SharedStore()
    async with open_nodes(store) as (here, _):
        run = await here.house.start(chat(40, pause=0.01))
        with await here.attach(run) as idle:
            await run.ended.wait()
            assert len(run.log.kept) <= 8
            assert await read(idle) == all_numbers(run)


async def test_readers_end_with_their_node(autojump_clock) -> None:
    store, server = SharedStore(), LocalInterruptBackend()
    async with open_a_house(store=store, backend=UnrulyBackend(server), node_id="node-1", check=False) as one:
        run = await one.start(Script(say("a"), wait()))
        async with open_a_house(store=store, backend=UnrulyBackend(server), node_id="node-2", check=False) as two:
            there = Node(two, store)
            reader = await there.attach(run)
            await reader.receive()
        with pytest.raises((trio.EndOfChannel, trio.ClosedResourceError)):
            await reader.receive()
        reader.close()
        there.check_idle()
        assert store.attended[run.run_id] == 0
        with pytest.raises(Draining):
            await there.attach(run)
        there.check_idle()
        assert not run.stopping


# What a drain shows of runs that do not end.


async def test_an_abandoned_run_shows_nothing_after_its_end(autojump_clock) -> None:
    store = SharedStore()

    async def obstinate(run: Run) -> AsyncIterator[str]:
        yield "a"
        store.withholding = True
        yield "never written"
        with trio.CancelScope(shield=True):
            await trio.sleep(60)

    async with open_nodes(store) as (here, _):
        run = await here.house.start(obstinate)
        reader = await here.attach(run)
        await trio.sleep(0.1)
        shown = run.log.end
        await drain(here.house.registry, timeout=0.0)
        assert run.log.closed
        told = await read(reader)
        assert told == list(range(len(told)))
        assert len(told) > shown
    assert run.ended.is_set()


async def test_terminal_numbers_follow_what_was_shown(autojump_clock) -> None:
    store = SharedStore()

    async def unwritten(run: Run) -> AsyncIterator[str]:
        yield "a"
        store.withholding = True
        yield "never written"

    async with open_nodes(store) as (here, there):
        run = await here.house.play(unwritten)
        seen = await read(run.log.subscribe())
        assert seen == list(range(len(seen)))
        assert await read(await there.attach(run)) == seen
