"""Opens readers on any run: live on this node, live on another node, or ended.

A run that is not live here is followed: one task reads its events from the store for all readers on this node, and
puts them into a log like that of a live run. So readers need not know where a run is.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack

import trio

from ..abc import BaseInterruptBackend, EventStore, Extent, watching
from ..errors import BackendUnavailable, Elsewhere, RunNotFound, StreamExpired, TooManyRuns
from ..protocol.events import MessageEvent, ResponseEvent
from ..protocol.ids import SessionKey
from ..protocol.lifecycle import Cause, Phase, RunRecord, RunState
from .log import RECENT_EVENTS, RECENT_WEIGHT, EventLog
from .registry import RunRegistry
from .run import Run
from .stream import Subscriber
from .terminal_events import event_from_record

__all__ = ["LOOK", "MAX_FOLLOWED", "MAX_READERS", "Viewing"]

logger = logging.getLogger("trio_agentapp.runs")

LOOK = 1.0
"""Seconds without an event after which a followed run is looked up. Wake-ups may be lost, and nodes may die."""

MAX_READERS = 1000
"""Readers of one run on one node."""

MAX_FOLLOWED = 10_000
"""Runs followed by one node."""


class Viewing:
    """Opens readers on the runs of this node, and of others where the store is shared."""

    def __init__(self, registry: RunRegistry, backend: BaseInterruptBackend, store: EventStore) -> None:
        self._registry = registry
        self._backend = backend
        self._store = store
        self._followed: dict[str, _Follower] = {}

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
            if len([*run.log.subscribers]) >= MAX_READERS:
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
        """Return the number of the next event of a run, as far as it is known here; 0 if its events are not."""
        run = self._live(record)
        if run is not None:
            await trio.lowlevel.checkpoint()
            return run.log.end
        extent = await self._store.extent(record.key, record.run_id) if self._is_kept(record) else None
        # An ended run without events has one that is made from its record.
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
        # Events that only a dead node had, or that a store has lost, are gone. Their number is unknown: count one.
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
            # Not beyond the last event, even if this reader claims to have seen more: others read this log, too.
            start = 0 if extent is None else min(max(after + 1, extent.first), extent.end)
            follower = _Follower(self, self._backend, self._store, record, start)
            self._followed[record.run_id] = follower
            self._registry.ticker.logs.add(follower.log)
            services.start_soon(follower.run, name=f"follower of run {record.run_id}")
        elif len([*follower.log.subscribers]) >= MAX_READERS:
            raise _too_many_readers()
        subscriber = follower.log.subscribe(after)
        subscriber.on_close(follower.reader_left)
        try:
            # Wait until the owner has counted this reader; otherwise it may stop the run as unwatched.
            await follower.counted.wait()
        except BaseException:
            subscriber.close()
            raise
        return subscriber

    def forget(self, follower: _Follower, *, unread: bool = False) -> None:
        """Drop a follower that has ended. Existing readers can still read what it has read."""
        if unread:
            self._registry.ticker.logs.discard(follower.log)
        if self._followed.get(follower.run_id) is follower:
            del self._followed[follower.run_id]


def _too_many_readers() -> TooManyRuns:
    return TooManyRuns(
        f"The limit of readers of this run is reached ({MAX_READERS}).", limit="streams_per_run", quota=MAX_READERS
    )


_WITHOUT_EVENTS = (Cause.STOPPED_BEFORE_START, Cause.CLAIM_FAILED)
"""Causes with which a run ends that never sent an event."""


class _Follower:
    """Reads one run from the store for all of its readers on this node."""

    def __init__(
        self, viewing: Viewing, backend: BaseInterruptBackend, store: EventStore, record: RunRecord, start: int
    ) -> None:
        self.run_id = record.run_id
        self._key: SessionKey = record.key
        self._viewing = viewing
        self._backend = backend
        self._store = store
        self._live = record.state is RunState.RUNNING or record.state is RunState.IDLE
        self.counted = trio.Event()
        """Set when the owner has counted the readers here, or does not have to."""
        self._woken = trio.Event()
        self._scope = trio.CancelScope()
        self.log = EventLog(
            first=start,
            archive=lambda number: store.read(record.key, record.run_id, number),
            max_events=RECENT_EVENTS,
            max_weight=RECENT_WEIGHT,
        )

    def reader_left(self) -> None:
        if not self.log.has_readers:
            self._viewing.forget(self, unread=True)
            self._scope.cancel(reason="the last reader has left")

    def _wake(self, run_id: str) -> None:
        if run_id == self.run_id:
            self._woken.set()

    async def run(self) -> None:
        try:
            with self._scope:
                async with AsyncExitStack() as stack:
                    if self._live:
                        await stack.enter_async_context(self._store.attending(self._key, self.run_id))
                        self.counted.set()
                        await stack.enter_async_context(watching(self._backend, self._key, self._wake))
                    self.counted.set()
                    await self._follow()
        except Exception:
            logger.exception("run %s: it cannot be followed any more", self.run_id)
        finally:
            # Readers that got no terminal event know that they were cut, and resume.
            self.counted.set()
            self._viewing.forget(self)
            self.log.close()

    async def _follow(self) -> None:
        over = None
        while True:
            self._woken = trio.Event()
            try:
                if await self._read():
                    return
                if over is not None:
                    # Its terminal event is lost, as in a fail-over. The record says how it ended.
                    self.log.put([event_from_record(over, self.log.end)])
                    return
                with trio.move_on_after(LOOK) as quiet:
                    await self._woken.wait()
                if quiet.cancelled_caught:
                    record = await self._backend.run_status(self.run_id)
                    if record is None:
                        return
                    # The lookup itself ends a run whose node has died.
                    over = record if record.state.terminal else None
            except BackendUnavailable as exc:
                logger.warning("run %s: its events cannot be read: %s", self.run_id, exc)
                await trio.sleep(LOOK)

    async def _read(self) -> bool:
        """Read all events that there are. Returns True after the terminal event."""
        while events := await self._store.read(self._key, self.run_id, self.log.end):
            if events[0].sequence_number > self.log.end:
                # The events in between are gone. Readers see that by the numbers of those that they get.
                self.log.skip_to(events[0].sequence_number)
            self.log.put(events)
            last = events[-1]
            if isinstance(last, ResponseEvent) and last.terminal:
                return True
        return False
