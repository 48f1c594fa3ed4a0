"""The contract of event stores as questions. They ask for what `abc` promises, and for nothing else.

    async def test_my_store():
        not_offered = await check_event_store(my_store)   # `async with my_store() as store:` opens one

or one test for each question:

    @pytest.mark.parametrize("question", event_questions(), ids=lambda question: question.__name__)
    async def test_my_store(question):
        await ask_event_store(my_store, question)

A shared store is opened twice: each is the store of another node over the same place. If it writes only for the
owner of a session, open it together with the interrupt backend of its node, as a pair `(store, backend)`.

Each question uses new ids, so a store with the events of earlier questions serves as well as an empty one. No
question waits for events to be forgotten.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TypeAlias

import attrs
import trio

from ...abc import BaseInterruptBackend, EventSink, EventStore, Extent, Lease, Renewal
from ...protocol.codec import encode_event
from ...protocol.events import ContentEvent, Event, MessageEvent, ResponseEvent, StateEvent
from ...protocol.ids import SessionKey, new_run_id
from .asking import TIMEOUT, NotApplicable, expect, opened_by, present, put, put_all, questions_in
from .parties import ENDED, fresh_lease, fresh_session, own

__all__ = ["MakeEventStore", "ask_event_store", "check_event_store", "event_questions"]

MakeEventStore: TypeAlias = Callable[
    [], AbstractAsyncContextManager[EventStore | tuple[EventStore, BaseInterruptBackend]]
]
"""Opens a new store, or one more over the same place. Its `serve`, and that of its backend, run while a question is
asked."""

Question: TypeAlias = Callable[[MakeEventStore], Awaitable[None]]

LOOK_AGAIN = 0.01
"""Seconds between two looks at a shared store, which may need some time for the end of a run."""


async def an_unknown_run_has_no_events(make: MakeEventStore) -> None:
    async with _opened(make) as nodes:
        run = nodes.run()
        extent, events = await run.extent(), await run.read(0)
        expect(extent is None, f"extent() of an unknown run is {extent!r}, and must be None")
        expect(not events, f"read() of an unknown run returned {events!r:.100}")


async def an_ended_run_is_read_as_it_was(make: MakeEventStore) -> None:
    async with _opened(make) as nodes:
        run = nodes.run()
        events = _every_kind()
        await run.lives(events)
        read = await run.read_all(0)
        expect(
            [event.sequence_number for event in read] == [*range(len(events))],
            f"events 0 to {len(events) - 1} were kept, and read as {[event.sequence_number for event in read]}",
        )
        for kept, event in zip(_timeless(events), _timeless(read), strict=True):
            expect(event == kept, f"{kept!r} was kept, and read as {event!r}")
            expect(encode_event(event) == encode_event(kept), f"the JSON of {kept!r} has changed")
        extent = await run.extent()
        expect(extent == Extent(first=0, end=len(events), ended=True), f"extent() is {extent!r} after the end")


async def reading_starts_where_it_is_asked_to(make: MakeEventStore) -> None:
    async with _opened(make) as nodes:
        run = nodes.run()
        await run.lives(_answer(6))
        for start in range(6):
            numbers = [event.sequence_number for event in await run.read_all(start)]
            expect(numbers == [*range(start, 6)], f"read() from {start} of 6 events returned {numbers}")
        for start in (6, 1000):
            expect(not await run.read(start), f"read() from {start} returned something, and the last event is 5")


async def what_was_read_is_read_again(make: MakeEventStore) -> None:
    async with _opened(make) as nodes:
        run = nodes.run()
        await run.lives(_answer(20))
        first = await run.read_all(0)
        expect(await run.read_all(0) == first, "a second reader gets other events than the first")


async def a_long_run_is_read_in_batches_without_gaps(make: MakeEventStore) -> None:
    async with _opened(make) as nodes:
        run, count = nodes.run(), 1500
        await run.lives(_answer(count))
        numbers = [event.sequence_number for event in await run.read_all(0)]
        expect(
            numbers and numbers == [*range(numbers[0], count)],
            f"the events of a run of {count} are read as {numbers[:3]}..., with gaps, repeated, or without the end",
        )


async def runs_are_separate(make: MakeEventStore) -> None:
    async with _opened(make) as nodes:
        run = nodes.run()
        await run.lives(_answer(3))
        key, run_id = run.lease.key, run.lease.run_id
        strangers = {
            "another run of the session": (key, new_run_id()),
            "the run of this id in another session of the user": (fresh_session(key.user_id), run_id),
            "the run of this id in another user's session": (
                SessionKey("other-" + key.user_id, key.session_id),
                run_id,
            ),
        }
        for words, (other, other_id) in strangers.items():
            found = await nodes.there.extent(other, other_id), await nodes.there.read(other, other_id, 0)
            expect(found[0] is None and not found[1], f"{words} has the events of the run, too: {found!r:.100}")


async def the_first_end_stays(make: MakeEventStore) -> None:
    async with _opened(make) as nodes:
        run = nodes.run()
        await run.lives(_answer(5))
        nodes.keep(run.lease, _answer(2))
        numbers = [event.sequence_number for event in await run.read_all(0)]
        expect(numbers == [*range(5)], f"a second keep() of the run has changed its events to {numbers}")


async def keeping_changes_nothing_of_the_caller(make: MakeEventStore) -> None:
    async with _opened(make) as nodes:
        run = nodes.run()
        events = [*_answer(4)]
        before = [*events]
        await run.lives(events)
        await run.read_all(0)
        expect(events == before, "keep() has changed the events that it got")


async def a_run_may_begin_late(make: MakeEventStore) -> None:
    async with _opened(make) as nodes:
        if nodes.here.shared:
            raise NotApplicable
        run = nodes.run()
        await run.lives(_answer(9)[4:])
        for start, first in ((0, 4), (2, 4), (6, 6)):
            numbers = [event.sequence_number for event in await run.read_all(start)]
            expect(numbers == [*range(first, 9)], f"events 4 to 8 were kept, and read from {start} on as {numbers}")
        extent = await run.extent()
        expect(extent == Extent(first=4, end=9, ended=True), f"events 4 to 8 were kept, and extent() is {extent!r}")


# Shared stores.


async def events_of_a_live_run_are_read_on_other_nodes(make: MakeEventStore) -> None:
    async with _opened(make) as nodes:
        run = await nodes.live_run()
        events = _answer(300)
        await run.puts(events[:200])
        read = await run.read_all(0)
        expect(read == events[:200], f"200 events were put and flushed, and another node reads {len(read)} of them")
        extent = await run.extent()
        expect(extent == Extent(first=0, end=200, ended=False), f"extent() of the live run is {extent!r}")
        await run.puts(events[200:-1])
        await run.ends(events)
        read = _timeless(await run.read_all(200))
        expect(read == _timeless(events[200:]), "the end of the run is not what another node reads")


async def events_are_shown_once_and_in_order(make: MakeEventStore) -> None:
    async with _opened(make) as nodes:
        run = await nodes.live_run()
        events = _answer(100)
        for start in range(0, 100, 10):
            run.sink.put(events[start : start + 10])
            if start % 30 == 0:
                await run.sink.flush()
        await run.sink.flush()
        numbers = [event.sequence_number for event in run.shown]
        expect(numbers == [*range(100)], f"events 0 to 99 were put, and shown as {numbers}")
        expect(not run.reported, f"the run owns its session, and the sink reported {run.reported}")
        expect(
            run.sink.drained and not run.sink.congested, "a sink that was flushed is not drained, or is congested"
        )
        await run.sink.wait_relieved()


async def an_event_is_stored_before_it_is_shown(make: MakeEventStore) -> None:
    async with _opened(make) as nodes:
        run = await nodes.live_run()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run.puts, _answer(50))
            shown = 0
            while shown < 50:
                await trio.lowlevel.checkpoint()
                shown = len(run.shown)
                read = await run.read_all(0)
                expect(len(read) >= shown, f"{shown} events were shown, and another node reads {len(read)}")


async def a_sink_that_gave_up_shows_no_more(make: MakeEventStore) -> None:
    async with _opened(make) as nodes:
        run = await nodes.live_run()
        events = _answer(10)
        await run.puts(events[:4])
        run.sink.give_up()
        run.sink.put(events[4:])
        await run.sink.flush()
        await run.sink.wait_relieved()
        expect(run.shown == events[:4], f"a sink that gave up after 4 events has shown {len(run.shown)}")


async def readers_on_other_nodes_are_counted(make: MakeEventStore) -> None:
    async with _opened(make) as nodes:
        run = await nodes.live_run()
        await run.puts(_answer(3)[:2])
        place = (run.lease.key, run.lease.run_id)
        answers = [*await nodes.here.unwatched([place, (place[0], new_run_id())])]
        expect(answers == [math.inf, math.inf], f"unwatched() is {answers}, and nobody ever read these two runs")
        async with nodes.there.attending(*place), nodes.there.attending(*place):
            [idle] = await nodes.here.unwatched([place])
            expect(idle == 0, f"unwatched() is {idle} while another node attends the run")
        [idle] = await nodes.here.unwatched([place])
        expect(0 <= idle < math.inf, f"unwatched() is {idle} right after the last reader has left")


QUESTIONS: Sequence[Question] = questions_in(globals())


# What the questions are asked with.


@attrs.frozen
class _Nodes:
    """Two nodes: runs live `here`, and are read `there`. A store that is not shared is the same on both."""

    here: EventStore
    there: EventStore
    backend: BaseInterruptBackend | None

    def run(self) -> _Run:
        return _Run(self, fresh_lease())

    def keep(self, lease: Lease, events: Sequence[Event]) -> None:
        kept: object = self.here.keep(lease.key, lease.run_id, events)
        if isinstance(kept, Coroutine):
            kept.close()
        expect(kept is None, "keep() is `async def`, and must be a plain `def` that does not block")

    async def live_run(self) -> _Run:
        """A run with a sink. Ends the question as not applicable if the store is not shared."""
        if not self.here.shared:
            raise NotApplicable
        run = self.run()
        await run.begins()
        return run


class _Run:
    """One run, and what comes of its events."""

    def __init__(self, nodes: _Nodes, lease: Lease) -> None:
        self.lease = lease
        self.shown: list[Event] = []
        self.reported: list[Renewal] = []
        self.sink: EventSink
        self._nodes = nodes

    async def begins(self) -> None:
        backend = self._nodes.backend
        self.lease = attrs.evolve(self.lease, token=1) if backend is None else await own(backend, self.lease)
        sink = self._nodes.here.sink(self.lease, self.shown.extend, self.reported.append)
        self.sink = present(sink, "sink() of a shared store returned None")

    async def puts(self, events: Sequence[Event]) -> None:
        self.sink.put(events)
        await self.sink.flush()

    async def ends(self, events: Sequence[Event]) -> None:
        """End the run as the runtime does. `events`: all events of its log."""
        nodes, lease = self._nodes, self.lease
        if nodes.here.shared:
            self.sink.give_up()
        last = events[-1]
        if nodes.backend is not None and isinstance(last, ResponseEvent):
            # The backend sets the time.
            terminal = encode_event(attrs.evolve(last, completed_at=0))
            await nodes.backend.finish(lease, attrs.evolve(ENDED, terminal_event=terminal))
        nodes.keep(lease, events)
        while nodes.here.shared:
            extent = await self.extent()
            if extent is not None and extent.ended:
                return
            await trio.sleep(LOOK_AGAIN)

    async def lives(self, events: Sequence[Event]) -> None:
        """Put the whole run into the store."""
        if self._nodes.here.shared:
            await self.begins()
            await self.puts(events[:-1])
        await self.ends(events)

    async def extent(self) -> Extent | None:
        return await self._nodes.there.extent(self.lease.key, self.lease.run_id)

    async def read(self, start: int) -> Sequence[Event]:
        return await self._nodes.there.read(self.lease.key, self.lease.run_id, start)

    async def read_all(self, start: int) -> list[Event]:
        """Read as a reader does: batch by batch, until there is no more."""
        found: list[Event] = []
        while batch := await self.read(start):
            numbers = [event.sequence_number for event in batch]
            first = numbers[0]
            expect(
                first >= start and numbers == [*range(first, first + len(numbers))],
                f"read() from {start} returned a batch with the numbers {numbers}",
            )
            found += batch
            start = first + len(numbers)
        return found


def _answer(count: int) -> list[Event]:
    """A run of `count` events that ends with its terminal event."""
    deltas = [
        ContentEvent(number, "in_progress", "text", 0, True, "m", f"{number}, ") for number in range(count - 1)
    ]
    return [*deltas, ResponseEvent(count - 1, "completed", "r", 1_700_000_000, 1_700_000_001, ())]


def _timeless(events: Sequence[Event]) -> list[Event]:
    """The events without the time of the end, which a backend may have set."""
    return [
        attrs.evolve(event, completed_at=None) if isinstance(event, ResponseEvent) else event for event in events
    ]


def _every_kind() -> list[Event]:
    text = 'Grüße, 世界, 🙂, \x00, \u2028, \\, "quoted"\n'
    data = {"data": {"nested": [1, None, True, 0.5, {"ü": ""}], "large": 2**63 - 1}}
    whole = (
        ContentEvent(6, "completed", "text", 0, False, "m", text),
        ContentEvent(7, "completed", "data", 1, False, "m", payload=data),
    )
    message = MessageEvent(
        8, "completed", "m", "message", "assistant", whole, metadata={"note": "ü"}, extra={"name": "x"}
    )
    return [
        ResponseEvent(0, "created", "r", 1_700_000_000, session_id="ü s"),
        ResponseEvent(1, "in_progress", "r", 1_700_000_000, session_id="ü s"),
        StateEvent(2, False, {"step": 1}),
        StateEvent(3, True, patch=[{"op": "replace", "path": "/step", "value": 2}]),
        MessageEvent(4, "in_progress", "m", "message", "assistant"),
        ContentEvent(5, "in_progress", "text", 0, True, "m", text),
        *whole,
        message,
        ResponseEvent(9, "completed", "r", 1_700_000_000, 1_700_000_001, (message,), {"input_tokens": 3}),
    ]


@asynccontextmanager
async def _opened(make: MakeEventStore) -> AsyncIterator[_Nodes]:
    """Open one store, and a second one if it is shared."""
    async with opened_by(make) as first, trio.open_nursery() as nursery:
        here, backend = await _serve(first, nursery)
        if here.shared:
            async with opened_by(make) as second:
                there, _ = await _serve(second, nursery)
                yield _Nodes(here, there, backend)
                nursery.cancel_scope.cancel(reason="the question was answered")
        else:
            yield _Nodes(here, here, backend)
            nursery.cancel_scope.cancel(reason="the question was answered")


async def _serve(
    opened: EventStore | tuple[EventStore, BaseInterruptBackend], nursery: trio.Nursery
) -> tuple[EventStore, BaseInterruptBackend | None]:
    store, backend = opened if isinstance(opened, tuple) else (opened, None)
    if backend is not None:
        await nursery.start(backend.serve)
    await nursery.start(store.serve)
    return store, backend


def event_questions() -> Sequence[Question]:
    """Return all questions, the simple ones first, those about shared stores last."""
    return QUESTIONS


async def ask_event_store(make: MakeEventStore, question: Question, *, timeout: float = TIMEOUT) -> bool:
    """Put one question to a new store. Return False if it is about a part that the store does not offer.

    Raises:
        AssertionError: the answer is wrong, is an exception, or did not come within `timeout` seconds. The message
            begins with the name of the question.
    """
    return await put(question, make, "event store", timeout)


async def check_event_store(make: MakeEventStore, *, timeout: float = TIMEOUT) -> Sequence[str]:
    """Put every question to a store. Return the names of those about parts that it does not offer.

    Raises:
        AssertionError: the first wrong answer. See `ask_event_store`.
    """
    return await put_all(QUESTIONS, partial(ask_event_store, make, timeout=timeout))
