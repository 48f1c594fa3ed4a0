"""Two event stores that are written from the text of the contract alone.

They forget nothing, so they are examples and not for use.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from trio_agentapp.abc import EventSink, EventStore, Extent, Lease, Renewal
from trio_agentapp.protocol import Event, ResponseEvent, SessionKey

Place = tuple[SessionKey, str]


class ToyEventStore(EventStore):
    """The minimal contract in one short class: the events of ended runs, for one process."""

    def __init__(self) -> None:
        self.events: dict[Place, Sequence[Event]] = {}

    def keep(self, key: SessionKey, run_id: str, events: Sequence[Event]) -> None:
        self.events.setdefault((key, run_id), events)

    async def extent(self, key: SessionKey, run_id: str) -> Extent | None:
        if not (events := self.events.get((key, run_id))):
            return None
        return Extent(first=events[0].sequence_number, end=events[-1].sequence_number + 1, ended=True)

    async def read(self, key: SessionKey, run_id: str, start: int) -> Sequence[Event]:
        return [event for event in self.events.get((key, run_id), ()) if event.sequence_number >= start]


@attrs.frozen
class Database:
    """What the nodes share."""

    events: dict[Place, list[Event]] = attrs.field(factory=dict)
    readers: dict[tuple[Place, str], float] = attrs.field(factory=dict)
    """When a node last had a reader of a run, by run and node; `inf` while it has one."""


@attrs.define
class ToySink:
    """Stores events and shows them in one step."""

    stored: list[Event]
    show: Callable[[Sequence[Event]], None]
    over: bool = False

    congested, drained = False, True

    def put(self, events: Sequence[Event]) -> None:
        if not self.over:
            self.stored += events
            self.show(events)

    async def wait_relieved(self) -> None:
        await trio.lowlevel.checkpoint()

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()

    def give_up(self) -> None:
        self.over = True


class ToySharedStore(EventStore):
    """All of the contract: events for readers on every node, while the run is live."""

    shared = True

    def __init__(self, database: Database, node: str) -> None:
        self.database = database
        self.node = node

    def sink(
        self, lease: Lease, show: Callable[[Sequence[Event]], None], report: Callable[[Renewal], None]
    ) -> EventSink:
        return ToySink(self.database.events.setdefault((lease.key, lease.run_id), []), show)

    def keep(self, key: SessionKey, run_id: str, events: Sequence[Event]) -> None:
        stored = self.database.events.setdefault((key, run_id), [])
        if not _ended(stored):
            end = stored[-1].sequence_number + 1 if stored else 0
            stored += [event for event in events if event.sequence_number >= end]

    async def extent(self, key: SessionKey, run_id: str) -> Extent | None:
        if not (events := self.database.events.get((key, run_id))):
            return None
        return Extent(first=events[0].sequence_number, end=events[-1].sequence_number + 1, ended=_ended(events))

    async def read(self, key: SessionKey, run_id: str, start: int) -> Sequence[Event]:
        return [event for event in self.database.events.get((key, run_id), ()) if event.sequence_number >= start]

    @asynccontextmanager
    async def attending(self, key: SessionKey, run_id: str) -> AsyncIterator[None]:
        self.database.readers[(key, run_id), self.node] = math.inf
        try:
            yield
        finally:
            self.database.readers[(key, run_id), self.node] = trio.current_time()

    async def unwatched(self, runs: Sequence[Place]) -> Sequence[float]:
        now, readers = trio.current_time(), self.database.readers
        seen = [[at for (place, _), at in readers.items() if place == run] for run in runs]
        return [max(0.0, now - max(at)) if at else math.inf for at in seen]


def _ended(events: Sequence[Event]) -> bool:
    return bool(events) and isinstance(events[-1], ResponseEvent) and events[-1].terminal
