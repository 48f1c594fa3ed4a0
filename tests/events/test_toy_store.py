"""Event stores that a user would write: one short class of three methods is enough."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio
from trio.testing import MockClock

from trio_agentapp.abc import EventSink, EventStore, Extent, Lease, Renewal
from trio_agentapp.events import LocalEventStore
from trio_agentapp.interrupts import LocalInterruptBackend
from trio_agentapp.protocol.events import ContentEvent, Event
from trio_agentapp.protocol.ids import SessionKey, new_run_id, new_session_id
from trio_agentapp.runs import Gap, Handler, Run, RunRegistry, Subscriber
from trio_agentapp.runs.viewing import Viewing
from trio_agentapp.testing import Script, ask_event_store, check_event_store, event_questions, say, wait

from .toy_stores import Database, ToyEventStore, ToySharedStore, ToySink

FOR_SHARED = [
    "events_of_a_live_run_are_read_on_other_nodes",
    "events_are_shown_once_and_in_order",
    "an_event_is_stored_before_it_is_shown",
    "a_sink_that_gave_up_shows_no_more",
    "readers_on_other_nodes_are_counted",
]


def opening(make: Callable[[], EventStore]):
    @asynccontextmanager
    async def opened() -> AsyncIterator[EventStore]:
        yield make()

    return opened


def of_nodes(kind: type[ToySharedStore] = ToySharedStore):
    """Opens a shared store for one more node each time."""
    database = Database()
    return opening(lambda: kind(database, new_run_id()))


async def test_a_minimal_store_passes() -> None:
    assert await check_event_store(opening(ToyEventStore)) == FOR_SHARED


async def test_the_local_store_passes() -> None:
    assert await check_event_store(opening(LocalEventStore)) == FOR_SHARED


async def test_a_store_with_everything_passes() -> None:
    assert await check_event_store(of_nodes()) == ["a_run_may_begin_late"]


# Stores that break one promise each, and the question that finds it.


class ById(ToyEventStore):
    """Knows runs by their ids alone."""

    def keep(self, key: SessionKey, run_id: str, events: Sequence[Event]) -> None:
        super().keep(SessionKey("all", "all"), run_id, events)

    async def extent(self, key: SessionKey, run_id: str) -> Extent | None:
        return await super().extent(SessionKey("all", "all"), run_id)

    async def read(self, key: SessionKey, run_id: str, start: int) -> Sequence[Event]:
        return await super().read(SessionKey("all", "all"), run_id, start)


class Last(ToyEventStore):
    def keep(self, key: SessionKey, run_id: str, events: Sequence[Event]) -> None:
        self.events[key, run_id] = events


class FromZero(ToyEventStore):
    async def read(self, key: SessionKey, run_id: str, start: int) -> Sequence[Event]:
        return (await super().read(key, run_id, 0))[start:]


class OneTooMany(ToyEventStore):
    async def read(self, key: SessionKey, run_id: str, start: int) -> Sequence[Event]:
        return await super().read(key, run_id, start - 1)


class Once(ToyEventStore):
    async def read(self, key: SessionKey, run_id: str, start: int) -> Sequence[Event]:
        found = await super().read(key, run_id, start)
        self.events[key, run_id] = ()
        return found


class Truncating(ToyEventStore):
    def keep(self, key: SessionKey, run_id: str, events: Sequence[Event]) -> None:
        super().keep(key, run_id, events[:1000])


class Sparse(ToyEventStore):
    async def read(self, key: SessionKey, run_id: str, start: int) -> Sequence[Event]:
        return [event for event in await super().read(key, run_id, start) if event.sequence_number % 1000 != 500]


class Emptying(ToyEventStore):
    def keep(self, key: SessionKey, run_id: str, events: Sequence[Event]) -> None:
        super().keep(key, run_id, [*events])
        events.clear()  # type: ignore[attr-defined]


class TextOnly(ToyEventStore):
    async def read(self, key: SessionKey, run_id: str, start: int) -> Sequence[Event]:
        found = await super().read(key, run_id, start)
        return [attrs.evolve(each, payload=None) if isinstance(each, ContentEvent) else each for each in found]


class NeverUnknown(ToyEventStore):
    async def extent(self, key: SessionKey, run_id: str) -> Extent | None:
        return await super().extent(key, run_id) or Extent(first=0, end=0, ended=False)


class AsyncKeep(ToyEventStore):
    async def keep(self, key: SessionKey, run_id: str, events: Sequence[Event]) -> None:  # type: ignore[override]
        super().keep(key, run_id, events)


class Full(ToyEventStore):
    def keep(self, key: SessionKey, run_id: str, events: Sequence[Event]) -> None:
        raise OSError("no space left")


class Slow(ToyEventStore):
    async def extent(self, key: SessionKey, run_id: str) -> Extent | None:
        await trio.sleep_forever()


@pytest.mark.parametrize(
    ("store", "question"),
    [
        (ById, "runs_are_separate"),
        (Last, "the_first_end_stays"),
        (FromZero, "a_run_may_begin_late"),
        (OneTooMany, "reading_starts_where_it_is_asked_to"),
        (Once, "what_was_read_is_read_again"),
        (Truncating, "a_long_run_is_read_in_batches_without_gaps"),
        (Sparse, "a_long_run_is_read_in_batches_without_gaps"),
        (Emptying, "keeping_changes_nothing_of_the_caller"),
        (TextOnly, "an_ended_run_is_read_as_it_was"),
        (AsyncKeep, "an_ended_run_is_read_as_it_was"),
        (NeverUnknown, "an_unknown_run_has_no_events"),
        (Slow, "an_unknown_run_has_no_events"),
    ],
)
async def test_a_broken_promise_is_found(autojump_clock: MockClock, store: type[EventStore], question: str) -> None:
    with pytest.raises(AssertionError, match=f"^{question}: "):
        await ask_event_store(opening(store), named(question))


def named(question: str):
    return next(each for each in event_questions() if each.__name__ == question)


class Shown(ToySink):
    """Shows events before it stores them; readers on other nodes have some turns in between."""

    waiting: Sequence[Event] = ()

    def put(self, events: Sequence[Event]) -> None:
        self.waiting = events
        self.show(events)

    async def flush(self) -> None:
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        self.stored += self.waiting


class Talkative(ToySink):
    def put(self, events: Sequence[Event]) -> None:
        self.stored += events
        self.show(events)


class Reversed(ToySink):
    def put(self, events: Sequence[Event]) -> None:
        super().put(events[::-1])


class WithSink(ToySharedStore):
    kind: type[ToySink] = ToySink

    def sink(
        self, lease: Lease, show: Callable[[Sequence[Event]], None], report: Callable[[Renewal], None]
    ) -> EventSink:
        return self.kind(self.database.events.setdefault((lease.key, lease.run_id), []), show)


class Premature(WithSink):
    kind = Shown


class Tireless(WithSink):
    kind = Talkative


class Backwards(WithSink):
    kind = Reversed


class Alone(ToySharedStore):
    """Shares nothing."""

    def __init__(self, database: Database, node: str) -> None:
        super().__init__(Database(), node)


class Uncounted(ToySharedStore):
    async def unwatched(self, runs: Sequence[tuple[SessionKey, str]]) -> Sequence[float]:
        return [math.inf] * len(runs)


@pytest.mark.parametrize(
    ("store", "question"),
    [
        (Premature, "an_event_is_stored_before_it_is_shown"),
        (Tireless, "a_sink_that_gave_up_shows_no_more"),
        (Backwards, "events_are_shown_once_and_in_order"),
        (Alone, "events_of_a_live_run_are_read_on_other_nodes"),
        (Uncounted, "readers_on_other_nodes_are_counted"),
    ],
)
async def test_a_broken_promise_of_a_shared_store_is_found(
    autojump_clock: MockClock, store: type[ToySharedStore], question: str
) -> None:
    with pytest.raises(AssertionError, match=f"^{question}: "):
        await ask_event_store(of_nodes(store), named(question))


# The runtime works with them.


async def numbers_of(reader: Subscriber) -> list[int]:
    found: list[int] = []
    with reader:
        try:
            while True:
                found += [event.sequence_number for event in await reader.receive() if not isinstance(event, Gap)]
        except trio.EndOfChannel:
            return found


async def test_a_run_is_read_after_its_end(autojump_clock: MockClock) -> None:
    backend, store = LocalInterruptBackend(), ToyEventStore()
    registry = RunRegistry(backend, store=store, node_id="node-1")
    async with registry.open():
        run = Run(run_id=new_run_id(), key=SessionKey("ann", new_session_id()))
        await registry.start(run, Handler(Script(say("a"), say("b"))), {"run": run, "msgs": []}, strategy="reject")
        await run.ended.wait()
        record = await backend.run_status(run.run_id)
        assert record is not None
        reader = await Viewing(registry, backend, store).attach(record)
        assert reader is not None
        numbers = await numbers_of(reader)
        assert numbers == list(range(len(store.events[run.key, run.run_id])))
        assert len(numbers) > 3


async def test_a_store_that_raises_does_not_harm_the_run(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    registry = RunRegistry(LocalInterruptBackend(), store=Full(), node_id="node-1")
    async with registry.open():
        run = Run(run_id=new_run_id(), key=SessionKey("ann", new_session_id()))
        await registry.start(run, Handler(Script(say("a"))), {"run": run, "msgs": []}, strategy="reject")
        await run.ended.wait()
    failures = [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]
    assert [record.getMessage() for record in failures] == [
        f"run {run.run_id}: its events could not be kept by Full"
    ]
    assert f"run {run.run_id} has ended: FINISHED" in caplog.text


async def test_a_live_run_is_read_on_another_node(autojump_clock: MockClock) -> None:
    backend, database = LocalInterruptBackend(), Database()
    here, there = ToySharedStore(database, "node-1"), ToySharedStore(database, "node-2")
    registry = RunRegistry(backend, store=here, node_id="node-1")
    other = RunRegistry(backend, store=there, node_id="node-2")
    async with registry.open(), other.open(), trio.open_nursery() as nursery:
        run = Run(run_id=new_run_id(), key=SessionKey("ann", new_session_id()))
        script = Script(say("a"), wait(10), say("b"))
        start = partial(registry.start, run, Handler(script), {"run": run, "msgs": []}, strategy="reject")
        nursery.start_soon(start)
        await trio.sleep(1)
        record = await backend.run_status(run.run_id)
        assert record is not None
        assert not record.state.terminal
        reader = await Viewing(other, backend, there).attach(record)
        assert reader is not None
        assert await here.unwatched([(run.key, run.run_id)]) == [0]
        early = [event.sequence_number for event in await reader.receive() if not isinstance(event, Gap)]
        assert early
        numbers = early + await numbers_of(reader)
        assert numbers == list(range(len(database.events[run.key, run.run_id])))
