"""The event store in the memory of one node.

It keeps the events of ended runs, as long as their records are kept and there is room. The events of a live run are
in its log.

They are kept as bytes: the JSON that readers got. Objects would take three times as much memory, and the garbage
collector would traverse them again and again.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Sequence

import trio

from ..abc import EventStore, Extent
from ..protocol.builder import MAX_ANSWER_BYTES
from ..protocol.codec import encode_event
from ..protocol.events import Event
from ..protocol.ids import SessionKey
from ..protocol.stored_events import decode_event

__all__ = ["MAX_WEIGHT", "LocalEventStore"]

RETENTION = 600.0
"""Seconds that the events of a run are kept after its end."""

MAX_WEIGHT = 16 * 1024 * 1024
"""Bytes of all events, as `Event.weight` estimates them; compressed text needs a fifth of it.

Beyond it the oldest runs are dropped. It is enough for 2,500 short chats, or 60 long ones.
"""

LARGE = 1024 * 1024
"""A run is large if its terminal event, which repeats the answer, has this many bytes."""

MAX_LARGE_WEIGHT = 2 * (MAX_ANSWER_BYTES + 1024 * 1024)
"""Bytes of all large runs. One run may take half of it: the largest answer, and a margin."""

BATCH = 256
"""Events of a piece, and events returned by one read at most."""

MAX_PACKED = 64 * 1024
"""The largest weight of a piece that is compressed, which takes half a millisecond.

A larger one would block the event loop for too long, so its events are kept as objects. There are few of these.
"""

_Name = tuple[str, str, str]
"""User, session and run. It is not a class, because the garbage collector ignores tuples of strings."""

_Piece = bytes | Sequence[Event]

_Kept = tuple[float, int, int, int, *tuple[_Piece, ...]]
"""When a run expires, its weight, the number of its first event, the number after its last event, its pieces."""


class _Shelf:
    """Keeps runs up to a weight. The runs that ended first are dropped first."""

    def __init__(self, max_weight: int) -> None:
        self.runs: OrderedDict[_Name, _Kept] = OrderedDict()
        self.weight = 0
        self._max_weight = max_weight

    def keep(self, name: _Name, events: Sequence[Event]) -> None:
        # One run may take half of the bytes. Only its last events are kept then; readers get a gap before them.
        weights = [event.weight for event in events]
        start, weight = len(events), 0
        while start and weight + weights[start - 1] <= self._max_weight // 2:
            start -= 1
            weight += weights[start]
        if start < len(events):
            kept, weights = events[start:], weights[start:]
            first = kept[0].sequence_number
            pieces = [
                _packed(kept[at : at + BATCH], sum(weights[at : at + BATCH])) for at in range(0, len(kept), BATCH)
            ]
            self.runs[name] = (trio.current_time() + RETENTION, weight, first, first + len(kept), *pieces)
            self.weight += weight
        self.trim()

    def trim(self) -> None:
        now = trio.current_time()
        while self.runs:
            name, (until, weight, *_) = next(iter(self.runs.items()))
            if until > now and self.weight <= self._max_weight:
                break
            del self.runs[name]
            self.weight -= weight


class LocalEventStore(EventStore):
    """Events of this node's runs. Readers on other nodes are referred to this node."""

    def __init__(self, *, max_weight: int = MAX_WEIGHT, max_large_weight: int = MAX_LARGE_WEIGHT) -> None:
        self._usual = _Shelf(max_weight)
        # Large runs are kept separately, so that one of them does not displace a thousand small ones.
        self._large = _Shelf(max_large_weight)

    def keep(self, key: SessionKey, run_id: str, events: Sequence[Event]) -> None:
        if not events or self._find(key, run_id) is not None:
            return
        shelf = self._usual if events[-1].weight < LARGE else self._large
        shelf.keep((key.user_id, key.session_id, run_id), events)

    def _find(self, key: SessionKey, run_id: str) -> _Kept | None:
        name = (key.user_id, key.session_id, run_id)
        return self._usual.runs.get(name) or self._large.runs.get(name)

    async def extent(self, key: SessionKey, run_id: str) -> Extent | None:
        await trio.lowlevel.checkpoint()
        self._usual.trim()
        self._large.trim()
        kept = self._find(key, run_id)
        if kept is None:
            return None
        _, _, first, end, *_ = kept
        return Extent(first=first, end=end, ended=True)

    async def read(self, key: SessionKey, run_id: str, start: int) -> Sequence[Event]:
        await trio.lowlevel.checkpoint()
        kept = self._find(key, run_id)
        if kept is None:
            return ()
        _, _, first, end, *pieces = kept
        if start >= end:
            return ()
        piece, skipped = divmod(max(0, start - first), BATCH)
        return _unpacked(pieces[piece], skipped)


def _packed(events: Sequence[Event], weight: int) -> _Piece:
    """Return the compressed JSON of the events, one in a line; the events themselves if they are too large."""
    if weight > MAX_PACKED:
        return tuple(events)
    return zlib.compress(b"\n".join(map(encode_event, events)), 1)


def _unpacked(piece: _Piece, start: int) -> Sequence[Event]:
    """Return the events of a piece from index `start` on."""
    if not isinstance(piece, bytes):
        return piece[start:]
    return [decode_event(line) for line in zlib.decompress(piece).split(b"\n")[start:]]
