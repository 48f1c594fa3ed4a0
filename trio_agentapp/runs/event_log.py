"""The event log of a run: its events, in order and numbered, for any number of readers.

Appending is synchronous and never waits. Two bounds keep the log small. It drops its oldest events; a reader that
has not read them gets a `Gap`. If even the fastest reader lags behind, the log is *congested* and its run waits
between two items. So a slow reader uses at most as much memory as the bound of the log, and does not delay other
readers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence

import trio

from ..protocol.events import Event
from .stream import Subscriber

__all__ = ["HELD_BACK_EVENTS", "HELD_BACK_WEIGHT", "MAX_EVENTS", "MAX_WEIGHT", "EventLog"]

MAX_EVENTS = 8192
"""Events kept: four times `HELD_BACK_EVENTS`, so that the foremost reader never gets a gap."""

MAX_WEIGHT = 4 * 1024 * 1024
"""Bytes kept, by the events' own estimate."""

HELD_BACK_EVENTS = 2048
"""Lead of the run over its foremost reader at which it has to wait."""

HELD_BACK_WEIGHT = 1024 * 1024

RECENT_EVENTS = 1024
"""Events kept if a store has all of them: for readers that follow closely, and in case the store loses some."""

RECENT_WEIGHT = 1024 * 1024

Archive = Callable[[int], Awaitable[Sequence[Event]]]
"""Reads a batch of events from a store, beginning at a number."""


class EventLog:
    """Events `first` to `end - 1` of one run.

    With an `archive`, events that were dropped here can still be read there. Then few events are kept, and slow
    readers do not hold the run back.
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
        self.kept: list[Event] = []
        """The events that were not dropped."""
        self._max_events = max_events
        self._max_weight = max_weight
        self.kept_weight = 0
        """Bytes of the events that are kept."""
        self._written_weight = 0
        # A list, since an empty set takes 216 bytes. Most runs have one reader.
        self._subscribers: list[Subscriber] = []
        # A dict, not a list: a reader whose wait was cancelled waits again, and must not be woken twice.
        self._parked: dict[Subscriber, None] = {}
        self._relieved: trio.Event | None = None
        # The position of the foremost reader: its next sequence number, and the weight of all events before it.
        self._front = first
        self._front_weight = 0

    def keep_in(self, archive: Archive) -> None:
        """Read dropped events from `archive` from now on, and keep fewer in memory."""
        self.archive = archive
        self._max_events, self._max_weight = RECENT_EVENTS, RECENT_WEIGHT

    def shrink(self, max_weight: int) -> None:
        """Keep at most `max_weight` bytes from now on, besides those that the foremost reader has not read."""
        self._max_weight = min(self._max_weight, max_weight)
        self._forget_oldest()

    def put(self, events: Sequence[Event]) -> None:
        """Append events. Their sequence numbers continue those of the log."""
        weight = 0
        for event in events:
            weight += event.weight
        self.kept += events
        self.kept_weight += weight
        self._written_weight += weight
        self.end += len(events)
        if len(self.kept) > self._max_events or self.kept_weight > self._max_weight:
            self._forget_oldest()
        if self._parked and events:
            self._offer(events, weight)

    def skip_to(self, number: int) -> None:
        """Continue at `number`: the events before it are lost. Readers that have not read them get a gap."""
        self.kept_weight = 0
        self.kept.clear()
        self.first = self.end = number

    def close(self) -> None:
        """Append no more events. Readers end when they have read the rest."""
        self.closed = True
        self._wake_readers()
        self._relieve()

    def subscribe(self, after: int = -1) -> Subscriber:
        """Return a reader of all events with a number greater than `after`: first the kept ones, then new ones."""
        subscriber = Subscriber(self, max(after + 1, 0))
        subscriber.passed = self.weight_before(subscriber.position)
        self._subscribers.append(subscriber)
        self._note_front()
        return subscriber

    @property
    def subscribers(self) -> Iterator[Subscriber]:
        return iter(tuple(self._subscribers))

    @property
    def reader_count(self) -> int:
        return len(self._subscribers)

    @property
    def drained(self) -> bool:
        """Whether at least one reader has read all events."""
        return self._front == self.end and bool(self._subscribers)

    def weight_before(self, position: int) -> int:
        """Return the weight of the events before a number, in bytes. All dropped events count as before it."""
        before = self.kept[: max(0, position - self.first)]
        return self._written_weight - self.kept_weight + sum(event.weight for event in before)

    @property
    def congested(self) -> bool:
        """Whether all readers lag, so that the run should wait. A run without readers never waits."""
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
        """Nothing to do: readers get events at once."""

    def give_up(self) -> None:
        """Nothing to do: no event is on its way."""

    # What `Subscriber` calls.

    def read(self, position: int, max_weight: int) -> list[Event]:
        """Events from `position` on: at least one if there is one, about `max_weight` bytes at most."""
        start = position - self.first
        if self.end - position <= 64 and self.kept_weight <= max_weight:
            return self.kept[start:]
        taken, weight = start, 0
        for event in self.kept[start:]:
            weight += event.weight
            if weight > max_weight and taken > start:
                break
            taken += 1
        return self.kept[start:taken]

    def park(self, subscriber: Subscriber) -> None:
        self._parked[subscriber] = None

    def advanced(self, subscriber: Subscriber) -> None:
        """Note that `subscriber` has taken events."""
        if subscriber.position > self._front:
            self._front = subscriber.position
            self._front_weight = subscriber.passed
            if self._relieved is not None and self.end - self._front <= HELD_BACK_EVENTS // 2:
                self._relieve()

    def unsubscribe(self, subscriber: Subscriber) -> None:
        if subscriber in self._subscribers:
            self._subscribers.remove(subscriber)
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

    def _offer(self, events: Sequence[Event], weight: int) -> None:
        """Send new events through the waiting readers at once; wake those that have to send by themselves."""
        for subscriber in tuple(self._parked):
            if not subscriber.offer(events, weight):
                self._parked.pop(subscriber, None)
                subscriber.wake()

    def _wake_readers(self) -> None:
        parked, self._parked = self._parked, {}
        for subscriber in parked:
            subscriber.wake()

    def _forget_oldest(self) -> None:
        # A quarter at a time, so that deleting from the front of the list stays cheap per event.
        drop = 0
        if len(self.kept) > self._max_events:
            drop = len(self.kept) - self._max_events * 3 // 4
        # Keep all events that the foremost reader has not read. They are bounded, because the run waits for this
        # reader: they are at most the lead at which it waits, plus the events of one item.
        spare = len(self.kept) - 1
        if self._subscribers and self.archive is None:
            spare = max(0, min(spare, self._front - self.first))
        drop = min(drop, spare)
        weight = sum(event.weight for event in self.kept[:drop])
        while self.kept_weight - weight > self._max_weight and drop < spare:
            weight += self.kept[drop].weight
            drop += 1
        del self.kept[:drop]
        self.kept_weight -= weight
        self.first += drop
