"""Events in the memory of the node that made them.

A live run's events are in its log; here are those of runs that have ended, for as long as their records are kept,
within bounds.
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
"""Seconds that the events of a run are kept after its end (INTERRUPT-PROTOCOL, section 2)."""

MAX_WEIGHT = 16 * 1024 * 1024
"""Bytes of all events kept, by their own estimate, which is a third of what Python needs for them. Past it, the
runs that ended first are forgotten: some 2,500 short chats are kept, or 60 long ones."""

LARGE = 1024 * 1024
"""Weight of a run's terminal event, which repeats the answer, from which on the run counts as large."""

MAX_LARGE_WEIGHT = 2 * (MAX_ANSWER_BYTES + 1024 * 1024)
"""Bytes of all large runs kept: the largest answer can be read until others of its size have ended.
Half of it is for one run, with a margin for what the terminal event says beside the answer."""

BATCH = 256
"""Events read at once."""


@attrs.frozen
class _Kept:
    until: float
    weight: int
    events: tuple[Event, ...]


class _Room:
    """Runs within a bound. Those that ended first are forgotten first."""

    def __init__(self, max_weight: int) -> None:
        self.runs: OrderedDict[tuple[SessionKey, str], _Kept] = OrderedDict()
        self.weight = 0
        self._max_weight = max_weight

    def keep(self, name: tuple[SessionKey, str], events: Sequence[Event]) -> None:
        # Of one that would push out half of all others the end is kept; readers are told of the gap before it.
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
    """The events of this node's ended runs; another node's readers are told where to ask."""

    def __init__(self, *, max_weight: int = MAX_WEIGHT, max_large_weight: int = MAX_LARGE_WEIGHT) -> None:
        self._usual = _Room(max_weight)
        # Apart, so that one of them does not push out a thousand others, nor they it.
        self._large = _Room(max_large_weight)

    def keep(self, key: SessionKey, run_id: str, events: Sequence[Event]) -> None:
        if not events or self._find(key, run_id) is not None:
            return
        room = self._usual if events[-1].weight < LARGE else self._large
        room.keep((key, run_id), events)

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
