"""Two nodes in one process: what they share is a backend and an event store, in memory, on a virtual clock."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from trio_agentapp.abc import Claim, Ended, EventSink, EventStore, Extent, Lease, Renewal
from trio_agentapp.errors import BackendUnavailable
from trio_agentapp.interrupts import LocalInterruptBackend
from trio_agentapp.protocol.events import Event, ResponseEvent
from trio_agentapp.protocol.ids import SessionKey
from trio_agentapp.protocol.lifecycle import Cause, Ending, RunRecord
from trio_agentapp.protocol.stored_events import decode_event


class SharedStore(EventStore):
    """Shows what is put at once; `batch` events are read at a time; `down` while it cannot be asked."""

    shared = True

    def __init__(self, *, batch: int = 3) -> None:
        self.batch = batch
        self.down = False
        self.streams: defaultdict[str, list[Event]] = defaultdict(list)
        self.attended: defaultdict[str, int] = defaultdict(int)
        self.last_there: dict[str, float] = {}
        self.asked: list[list[str]] = []
        self.on_asked: Callable[[], object] = lambda: None
        self.slow = 0.0
        self.withholding = False
        """What is put is on its way, and stays so."""
        self.trimmed = 0
        """Events before this number are gone."""

    def sink(
        self, lease: Lease, show: Callable[[Sequence[Event]], None], hear: Callable[[Renewal], None]
    ) -> EventSink:
        return _Sink(self, lease.run_id, show)

    def keep(self, key: SessionKey, run_id: str, events: Sequence[Event]) -> None:
        pass

    def append_last(self, run_id: str, raw: bytes, ended_at: float) -> None:
        stream = self.streams[run_id]
        event = decode_event(raw)
        assert isinstance(event, ResponseEvent)
        number = max(stream[-1].sequence_number + 1 if stream else 0, event.sequence_number)
        stream.append(attrs.evolve(event, sequence_number=number, completed_at=int(ended_at)))

    async def _answer(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.down:
            raise BackendUnavailable("down")

    async def extent(self, key: SessionKey, run_id: str) -> Extent | None:
        await self._answer()
        stream = self.streams[run_id]
        if not stream:
            return None
        last = stream[-1]
        ended = isinstance(last, ResponseEvent) and last.terminal
        return Extent(first=max(self.trimmed, stream[0].sequence_number), end=last.sequence_number + 1, ended=ended)

    async def read(self, key: SessionKey, run_id: str, start: int) -> Sequence[Event]:
        await self._answer()
        return [event for event in self.streams[run_id] if event.sequence_number >= max(start, self.trimmed)][
            : self.batch
        ]

    @asynccontextmanager
    async def attending(self, key: SessionKey, run_id: str) -> AsyncIterator[None]:
        self.attended[run_id] += 1
        try:
            yield
        finally:
            self.attended[run_id] -= 1
            self.last_there[run_id] = trio.current_time()

    async def unwatched(self, runs: Sequence[tuple[SessionKey, str]]) -> Sequence[float]:
        self.asked.append([run_id for _, run_id in runs])
        await trio.sleep(self.slow)
        await self._answer()
        self.on_asked()
        now = trio.current_time()
        return [
            0.0 if self.attended[run_id] else now - self.last_there.get(run_id, -math.inf) for _, run_id in runs
        ]


class _Sink:
    congested = False
    drained = True

    def __init__(self, store: SharedStore, run_id: str, show: Callable[[Sequence[Event]], None]) -> None:
        self._store, self._run_id, self._show = store, run_id, show

    def put(self, events: Sequence[Event]) -> None:
        if not self._store.withholding:
            self._store.streams[self._run_id].extend(events)
            self._show(events)

    async def wait_relieved(self) -> None:
        await trio.lowlevel.checkpoint()

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()

    def give_up(self) -> None:
        pass


class SharedBackend(LocalInterruptBackend):
    """Writes an end and its terminal event as one, as the scripts in Redis do."""

    def __init__(self, store: SharedStore) -> None:
        super().__init__()
        self._store = store

    async def claim(self, lease: Lease) -> Claim:
        known = self._record(lease.run_id)
        answer = await super().claim(lease)
        if isinstance(answer, Ended) and (known is None or not known.lifecycle.state.terminal):
            for raw in lease.fallback_events.get(Cause.STOPPED_BEFORE_START, ()):
                self._store.streams[lease.run_id].append(decode_event(raw))
        return answer

    async def finish(self, lease: Lease, ending: Ending) -> RunRecord:
        before = self._record(lease.run_id)
        record = await super().finish(lease, ending)
        news = record.state.terminal and (before is None or not before.state.terminal)
        if news and ending.terminal_event is not None:
            assert record.ended_at is not None
            self._store.append_last(lease.run_id, ending.terminal_event, record.ended_at)
        return record
