"""The event store in the memory of one node.

It keeps the events of runs that have ended, as long as their records are kept, and within bounds. The events of a
live run are in its log.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import attrs
import trio

from ..abc import EventStore, Extent
from ..protocol.builder import MAX_ANSWER_BYTES
from ..protocol.events import Event
from ..protocol.ids import SessionKey

__all__ = ["MAX_WEIGHT", "LocalEventStore"]

RETENTION = 600.0
"""Seconds that the events of a run are kept after its end."""

MAX_WEIGHT = 16 * 1024 * 1024
"""Bytes of all events, as `Event.weight` estimates them; Python needs three times as much. The oldest runs are
forgotten. It is enough for 2,500 short chats, or 60 long ones."""

LARGE = 1024 * 1024
"""A run is large if its terminal event, which repeats the answer, has this many bytes."""

MAX_LARGE_WEIGHT = 2 * (MAX_ANSWER_BYTES + 1024 * 1024)
"""Bytes of all large runs. One run may take half of it: the largest answer, and a margin."""

BATCH = 256
"""Events returned by one read."""


@attrs.frozen
class _Kept:
    until: float
    weight: int
    events: tuple[Event, ...]


class _Shelf:
    """Runs within a bound. The runs that ended first are forgotten first."""

    def __init__(self, max_weight: int) -> None:
        self.runs: OrderedDict[tuple[SessionKey, str], _Kept] = OrderedDict()
        self.weight = 0
        self._max_weight = max_weight

    def keep(self, name: tuple[SessionKey, str], events: Sequence[Event]) -> None:
        # One run may take half of the bytes. Only its last events are kept then; readers get a gap before them.
        start, weight = len(events), 0
        while start and weight + events[start - 1].weight <= self._max_weight // 2:
            start -= 1
            weight += events[start].weight
        if start < len(events):
            self.runs[name] = _Kept(trio.current_time() + RETENTION, weight, tuple(events[start:]))
            self.weight += weight
        self.trim()

    def trim(self) -> None:
        now = trio.current_time()
        while self.runs:
            name, kept = next(iter(self.runs.items()))
            if kept.until > now and self.weight <= self._max_weight:
                break
            del self.runs[name]
            self.weight -= kept.weight


class LocalEventStore(EventStore):
    """Events of this node's runs. Readers on other nodes are referred to this node."""

    def __init__(self, *, max_weight: int = MAX_WEIGHT, max_large_weight: int = MAX_LARGE_WEIGHT) -> None:
        self._usual = _Shelf(max_weight)
        # Separate, so that one large run does not displace a thousand small ones.
        self._large = _Shelf(max_large_weight)

    def keep(self, key: SessionKey, run_id: str, events: Sequence[Event]) -> None:
        if not events or self._find(key, run_id) is not None:
            return
        shelf = self._usual if events[-1].weight < LARGE else self._large
        shelf.keep((key, run_id), events)

    def _find(self, key: SessionKey, run_id: str) -> _Kept | None:
        return self._usual.runs.get((key, run_id)) or self._large.runs.get((key, run_id))

    async def extent(self, key: SessionKey, run_id: str) -> Extent | None:
        await trio.lowlevel.checkpoint()
        self._usual.trim()
        self._large.trim()
        kept = self._find(key, run_id)
        if kept is None:
            return None
        return Extent(first=kept.events[0].sequence_number, end=kept.events[-1].sequence_number + 1, ended=True)

    async def read(self, key: SessionKey, run_id: str, start: int) -> Sequence[Event]:
        await trio.lowlevel.checkpoint()
        kept = self._find(key, run_id)
        if kept is None:
            return ()
        begin = max(0, start - kept.events[0].sequence_number)
        return kept.events[begin : begin + BATCH]
