"""Opens readers on any run: live on this node, live on another node, or ended.

A run that is not live here is followed: one task reads its events from the store for all readers on this node, and
puts them into a log like that of a live run. So readers need not know where a run is.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import trio

from ..abc import BaseInterruptBackend, EventStore, Extent
from ..errors import Elsewhere, RunNotFound, StreamExpired, TooManyRuns
from ..protocol.events import MessageEvent
from ..protocol.lifecycle import Cause, Phase, RunRecord
from .event_log import EventLog
from .follower import Follower
from .registry import RunRegistry
from .run import Run
from .stream import Subscriber
from .terminal_events import event_from_record

__all__ = ["MAX_FOLLOWED", "MAX_READERS", "Viewing"]

MAX_READERS = 1000
"""Readers of one run on one node."""

MAX_FOLLOWED = 10_000
"""Runs followed by one node."""


class Viewing:
    """Opens readers on the runs of this node, and on those of other nodes if they share the store."""

    def __init__(self, registry: RunRegistry, backend: BaseInterruptBackend, store: EventStore) -> None:
        self._registry = registry
        self._backend = backend
        self._store = store
        self._followed: dict[str, Follower] = {}

    async def attach(self, record: RunRecord, after: int = -1) -> Subscriber | None:
        """Return a reader of all events of a run with a number greater than `after`. It counts as a watcher.

        `record` is what is known of the run. Returns None if `after` is the number of its terminal event.

        Raises:
            Elsewhere: its events are on another node.
            StreamExpired: its events are not kept any more.
            RunNotFound: there is no such run.
            TooManyRuns: the limit of readers is reached.
            BackendUnavailable: the store does not answer.
        """
        run = self._live(record)
        if run is not None:
            if run.log.reader_count >= MAX_READERS:
                raise _too_many_readers()
            await trio.lowlevel.checkpoint()
            return run.watch(after)
        if record.state.terminal or self._store.shared:
            extent = await self._store.extent(record.key, record.run_id)
            if extent is not None and extent.ended and after + 1 >= extent.end:
                return None
            if record.state.terminal and extent is None:
                return self._from_record(record, after)
            return await self._follow(record, after, extent)
        if record.node_id == self._registry.node_id:
            # It ended after the record was read.
            fresh = await self._backend.run_status(record.run_id)
            if fresh is None or not fresh.state.terminal:
                raise RunNotFound
            return await self.attach(fresh, after)
        raise Elsewhere(record.node_id)

    async def end(self, record: RunRecord) -> int:
        """Return the number of the next event of a run; 0 if this node cannot read its events."""
        run = self._live(record)
        if run is not None:
            await trio.lowlevel.checkpoint()
            return run.log.end
        extent = await self._store.extent(record.key, record.run_id) if self._is_kept(record) else None
        # A run that has ended and has no events gets one event, which is made from its record.
        return int(record.state.terminal) if extent is None else extent.end

    async def attach_end(self, record: RunRecord) -> Subscriber | None:
        """Return a reader of the last event only."""
        run = self._live(record)
        if run is not None:
            return await self.attach(record, run.log.end - 1)
        extent = await self._store.extent(record.key, record.run_id) if self._is_kept(record) else None
        if extent is None:
            return await self.attach(record)
        return await self.attach(record, extent.end - 2 if extent.ended else extent.end - 1)

    async def messages_so_far(self, record: RunRecord) -> Sequence[MessageEvent]:
        """Return the messages that a live run, on whichever node, has completed until now.

        They are in the order in which they were completed. Raises as `attach` does.
        """
        run = self._live(record)
        if run is not None:
            await trio.lowlevel.checkpoint()
            return run.builder.finished
        if not self._is_kept(record):
            raise Elsewhere(record.node_id)
        messages: list[MessageEvent] = []
        position = 0
        while batch := await self._store.read(record.key, record.run_id, position):
            position = batch[-1].sequence_number + 1
            messages += [event for event in batch if isinstance(event, MessageEvent) and event.content is not None]
        return messages

    def _live(self, record: RunRecord) -> Run | None:
        """The run, if it is live here. A run that is still claiming does not count: it may be refused."""
        run = self._registry.find(record.run_id)
        if run is None or run.lifecycle.phase is not Phase.CLAIMING:
            return run
        if not record.node_id:
            raise RunNotFound
        return None

    def _is_kept(self, record: RunRecord) -> bool:
        return record.state.terminal or self._store.shared

    def _from_record(self, record: RunRecord, after: int) -> Subscriber:
        """A reader of a run that has ended and whose events are not kept here."""
        if not self._store.shared and record.reason not in _WITHOUT_EVENTS:
            if record.node_id == self._registry.node_id:
                raise StreamExpired
            if record.reason != Cause.OWNER_LOST:
                raise Elsewhere(record.node_id)
        # The events of the run are lost, and their number is unknown. Count one, so that the reader gets a gap.
        lost = int(record.reason not in _WITHOUT_EVENTS)
        log = EventLog(first=after + 1 + lost)
        log.put([event_from_record(record, after + 1 + lost)])
        log.close()
        return log.subscribe(after)

    async def _follow(self, record: RunRecord, after: int, extent: Extent | None) -> Subscriber:
        follower = self._followed.get(record.run_id)
        if follower is None:
            if len(self._followed) >= MAX_FOLLOWED:
                raise TooManyRuns(
                    f"The limit of followed runs is reached ({MAX_FOLLOWED}).",
                    limit="followed_runs",
                    quota=MAX_FOLLOWED,
                )
            services = self._registry.services
            # Other readers use this log, too. So it starts at the last event at the latest, whatever `after` this
            # reader sends.
            start = 0 if extent is None else min(max(after + 1, extent.first), extent.end)
            follower = Follower(self._backend, self._store, record, start)
            self._followed[record.run_id] = follower
            self._registry.ticker.logs.add(follower.log)
            services.start_soon(self._run, follower, name=f"follower of run {record.run_id}")
        elif follower.log.reader_count >= MAX_READERS:
            raise _too_many_readers()
        subscriber = follower.log.subscribe(after)
        subscriber.on_close = partial(self._reader_left, follower)
        try:
            # Wait until the owner has counted this reader; otherwise it may stop the run as unwatched.
            await follower.counted.wait()
        except BaseException:
            subscriber.close()
            raise
        return subscriber

    async def _run(self, follower: Follower) -> None:
        try:
            await follower.run()
        finally:
            # Its readers can still read the events that it has put into the log.
            self._forget(follower)

    def _reader_left(self, follower: Follower) -> None:
        if not follower.log.reader_count:
            self._registry.ticker.logs.discard(follower.log)
            self._forget(follower)
            follower.stop()

    def _forget(self, follower: Follower) -> None:
        if self._followed.get(follower.run_id) is follower:
            del self._followed[follower.run_id]


def _too_many_readers() -> TooManyRuns:
    return TooManyRuns(
        f"The limit of readers of this run is reached ({MAX_READERS}).", limit="streams_per_run", quota=MAX_READERS
    )


_WITHOUT_EVENTS = (Cause.STOPPED_BEFORE_START, Cause.CLAIM_FAILED)
"""Causes of runs that have ended without sending an event."""
