"""The numbered memory of a run: its events, in order, for any number of readers.

Appending is synchronous and never waits. Two bounds keep it small: the log forgets its oldest events (a reader that
falls behind them is told of the gap), and a run whose foremost reader lags is *congested*, so that its driver can
hold it back between two items. A slow reader therefore costs the log's bound at most, and slows nobody.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence

import trio

from ..protocol.events import Event
from .stream import Subscriber

__all__ = ["HELD_BACK_EVENTS", "HELD_BACK_WEIGHT", "MAX_EVENTS", "MAX_WEIGHT", "EventLog"]

MAX_EVENTS = 8192
"""Events kept; four times what a run may be ahead of its foremost reader, so that it never meets a gap."""

MAX_WEIGHT = 4 * 1024 * 1024
"""Bytes kept, by the events' own estimate."""

HELD_BACK_EVENTS = 2048
"""Lead of the run over its foremost reader at which it is held back (HOT-PATH, section 6.7)."""

HELD_BACK_WEIGHT = 1024 * 1024

RECENT_EVENTS = 1024
"""Events kept where a store has them all: for readers that follow closely, and for a store that lost some."""

RECENT_WEIGHT = 1024 * 1024

Archive = Callable[[int], Awaitable[Sequence[Event]]]
"""Reads a batch of events from a number on, out of a store."""


class EventLog:
    """Events `first` to `end - 1` of one run.

    With an `archive`, events that are forgotten here can still be read there: a slow reader then holds back nobody,
    and few events are kept.
    """

    def __init__(
        self,
        *,
        first: int = 0,
        archive: Archive | None = None,
        max_events: int = MAX_EVENTS,
        max_weight: int = MAX_WEIGHT,
    ) -> None:
        self.first = first
        self.end = first
        self.closed = False
        self.archive = archive
        self._events: list[Event] = []
        self._max_events = max_events
        self._max_weight = max_weight
        self._kept_weight = 0
        self._written_weight = 0
        self._subscribers: set[Subscriber] = set()
        # As a dict, since a reader whose wait was cut short parks again: it must not stand here twice.
        self._parked: dict[Subscriber, None] = {}
        self._relieved: trio.Event | None = None
        # Where the foremost reader stands: its next sequence number, and the weight of all before it.
        self._front = first
        self._front_weight = 0

    def keep_in(self, archive: Archive) -> None:
        """From now on events can be read from `archive`, too."""
        self.archive = archive
        self._max_events, self._max_weight = RECENT_EVENTS, RECENT_WEIGHT

    def put(self, events: Sequence[Event]) -> None:
        """Append events; their sequence numbers continue the log's."""
        weight = 0
        for event in events:
            weight += event.weight
        self._events += events
        self._kept_weight += weight
        self._written_weight += weight
        self.end += len(events)
        if len(self._events) > self._max_events or self._kept_weight > self._max_weight:
            self._forget_oldest()
        if self._parked and events:
            self._offer(events)

    def skip_to(self, number: int) -> None:
        """Events before `number` will not come: readers who miss some are told of a gap."""
        self._kept_weight = 0
        self._events.clear()
        self.first = self.end = number

    def close(self) -> None:
        """No event follows: readers end once they have read what is there."""
        self.closed = True
        self._wake_readers()
        self._relieve()

    def subscribe(self, after: int = -1) -> Subscriber:
        """A reader of all events with a sequence number greater than `after`: replay first, then live."""
        subscriber = Subscriber(self, max(after + 1, 0))
        subscriber.passed = self.weight_before(subscriber.position)
        self._subscribers.add(subscriber)
        self._note_front()
        return subscriber

    @property
    def subscribers(self) -> Iterator[Subscriber]:
        return iter(tuple(self._subscribers))

    @property
    def has_readers(self) -> bool:
        return bool(self._subscribers)

    @property
    def drained(self) -> bool:
        """Some reader has read all there is."""
        return self._front == self.end and bool(self._subscribers)

    @property
    def kept(self) -> Sequence[Event]:
        """The events that are still here."""
        return self._events

    def weight_before(self, position: int) -> int:
        """Weight of the events before a number; what is forgotten counts as one."""
        before = self._events[: max(0, position - self.first)]
        return self._written_weight - self._kept_weight + sum(event.weight for event in before)

    @property
    def congested(self) -> bool:
        """All readers lag: the run should wait. A run without readers never does."""
        return (
            self.archive is None
            and (
                self.end - self._front > HELD_BACK_EVENTS
                or self._written_weight - self._front_weight > HELD_BACK_WEIGHT
            )
            and bool(self._subscribers)
        )

    async def wait_relieved(self) -> None:
        """Wait until the foremost reader has caught up with the log, or there is none."""
        while self.congested and not self.closed:
            if self._relieved is None:
                self._relieved = trio.Event()
            await self._relieved.wait()

    async def flush(self) -> None:
        """Readers see what is put at once."""

    def give_up(self) -> None:
        """Nothing is on its way."""

    # What follows is for Subscriber.

    def read(self, position: int, max_weight: int) -> list[Event]:
        """Events from `position` on, at least one if there is one, about `max_weight` bytes at most."""
        start = position - self.first
        if self.end - position <= 64 and self._kept_weight <= max_weight:
            return self._events[start:]
        taken, weight = start, 0
        for event in self._events[start:]:
            weight += event.weight
            if weight > max_weight and taken > start:
                break
            taken += 1
        return self._events[start:taken]

    def park(self, subscriber: Subscriber) -> None:
        self._parked[subscriber] = None

    def advanced(self, subscriber: Subscriber) -> None:
        """`subscriber` has taken events."""
        if subscriber.position > self._front:
            self._front = subscriber.position
            self._front_weight = subscriber.passed
            if self._relieved is not None and self.end - self._front <= HELD_BACK_EVENTS // 2:
                self._relieve()

    def unsubscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.discard(subscriber)
        self._parked.pop(subscriber, None)
        self._note_front()

    def _note_front(self) -> None:
        foremost = max(self._subscribers, key=lambda each: each.position, default=None)
        self._front = self.end if foremost is None else foremost.position
        self._front_weight = self._written_weight if foremost is None else foremost.passed
        self._relieve()

    def _relieve(self) -> None:
        if self._relieved is not None:
            self._relieved.set()
            self._relieved = None

    def _offer(self, events: Sequence[Event]) -> None:
        """Have new events sent to the readers that wait, or wake them."""
        for subscriber in tuple(self._parked):
            if not subscriber.offer(events):
                self._parked.pop(subscriber, None)
                subscriber.wake()

    def _wake_readers(self) -> None:
        parked, self._parked = self._parked, {}
        for subscriber in parked:
            subscriber.wake()

    def _forget_oldest(self) -> None:
        # A quarter at a time, so that deleting from the front of the list stays cheap per event.
        drop = 0
        if len(self._events) > self._max_events:
            drop = len(self._events) - self._max_events * 3 // 4
        # The foremost reader never meets a gap: what it has still to read is bounded by holding the run back, plus
        # one item, whose closing events repeat it (and are one batch, which nobody can read halfway).
        spare = len(self._events) - 1
        if self._subscribers and self.archive is None:
            spare = max(0, min(spare, self._front - self.first))
        drop = min(drop, spare)
        weight = sum(event.weight for event in self._events[:drop])
        while self._kept_weight - weight > self._max_weight and drop < spare:
            weight += self._events[drop].weight
            drop += 1
        del self._events[:drop]
        self._kept_weight -= weight
        self.first += drop
