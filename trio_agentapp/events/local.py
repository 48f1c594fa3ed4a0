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
from ..protocol.events import Event
from ..protocol.ids import SessionKey

__all__ = ["MAX_WEIGHT", "LocalEventStore"]

RETENTION = 600.0
"""Seconds that the events of a run are kept after its end (INTERRUPT-PROTOCOL, section 2)."""

MAX_WEIGHT = 16 * 1024 * 1024
"""Bytes of all events kept, by their own estimate, which is a third of what Python needs for them. Past it, the
runs that ended first are forgotten: some 2,500 short chats are kept, or 60 long ones."""

BATCH = 256
"""Events read at once."""


@attrs.frozen
class _Kept:
    until: float
    weight: int
    events: tuple[Event, ...]


class LocalEventStore(EventStore):
    """The events of this node's ended runs; another node's readers are told where to ask."""

    def __init__(self, *, max_weight: int = MAX_WEIGHT) -> None:
        self._max_weight = max_weight
        self._runs: OrderedDict[tuple[SessionKey, str], _Kept] = OrderedDict()
        self._weight = 0

    def keep(self, key: SessionKey, run_id: str, events: Sequence[Event]) -> None:
        self._trim()
        name = (key, run_id)
        # Of one that would push out half of all others the end is kept; readers are told of the gap before it.
        start, weight = len(events), 0
        while start and weight + events[start - 1].weight <= self._max_weight // 2:
            start -= 1
            weight += events[start].weight
        if name in self._runs or start == len(events):
            return
        self._runs[name] = _Kept(trio.current_time() + RETENTION, weight, tuple(events[start:]))
        self._weight += weight
        self._trim()

    async def extent(self, key: SessionKey, run_id: str) -> Extent | None:
        await trio.lowlevel.checkpoint()
        self._trim()
        kept = self._runs.get((key, run_id))
        if kept is None:
            return None
        return Extent(first=kept.events[0].sequence_number, end=kept.events[-1].sequence_number + 1, ended=True)

    async def read(self, key: SessionKey, run_id: str, start: int) -> Sequence[Event]:
        await trio.lowlevel.checkpoint()
        kept = self._runs.get((key, run_id))
        if kept is None:
            return ()
        begin = max(0, start - kept.events[0].sequence_number)
        return kept.events[begin : begin + BATCH]

    def _trim(self) -> None:
        now = trio.current_time()
        while self._runs:
            name, kept = next(iter(self._runs.items()))
            if kept.until > now and self._weight <= self._max_weight:
                break
            del self._runs[name]
            self._weight -= kept.weight
