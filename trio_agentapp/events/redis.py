"""The event store in Redis: readers on any node see events while the run is live, and after its node has died.

The events of all runs of a node are written together, in pipelines. A script writes those of one run, and only if
that run owns its session. Readers see an event once it is written, on the run's node as on every other node.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files

import trio
from redis.exceptions import RedisError

from ..abc import EventStore, Extent, Lease, Renewal
from ..protocol.events import Event, ResponseEvent
from ..protocol.ids import SessionKey
from ..protocol.keys import Layout
from ..protocol.stored_events import decode_event
from ..protocol.timings import Timings
from ..redis import LinkError, RedisLink, Script, ScriptCall, unavailable_on_error
from .sink import RedisSink

__all__ = ["RedisEventStore"]

logger = logging.getLogger("trio_agentapp.events")

WINDOW = 0.005
"""Seconds between two writes of a node.

Events within this time are written together. The first is written at once.
"""

SINKS_AT_ONCE = 200
"""Runs in one pipeline. A longer one would delay heartbeats and stops on the same connection."""

RETRY = 0.2
"""Seconds before the next attempt while Redis does not answer."""

READ_EVENTS, READ_BYTES = 64, 64 * 1024
"""Events and bytes that a reader gets at once."""

ATTENDANCE = 1.0
"""Seconds between two reports that a node has readers."""

ATTENDANCE_COUNTS = 3.0
"""Seconds for which such a report holds. Readers of a node that died count for so long."""

UNREADABLE = "The events of this run cannot be read now."


class RedisEventStore(EventStore):
    """Keeps events on the server of the interrupt backend: one script writes a run's end and terminal event."""

    shared = True

    def __init__(self, link: RedisLink, layout: Layout, timings: Timings, *, node_id: str) -> None:
        self._link = link
        self._layout = layout
        self._timings = timings
        self._node_id = node_id
        folder = files(__package__) / "lua"
        self._emit, self._read, self._viewers = (
            Script((folder / f"{name}.lua").read_text()) for name in ("emit", "read", "viewers")
        )
        self._dirty: dict[RedisSink, None] = {}
        self._due = trio.Event()
        self._reachable = True
        self._attended: dict[tuple[str, str], int] = {}

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_forever, name="event writer")
            nursery.start_soon(self._attend_forever, name="attendance of readers")
            task_status.started()

    # Writing.

    def sink(
        self, lease: Lease, show: Callable[[Sequence[Event]], None], report: Callable[[Renewal], None]
    ) -> RedisSink:
        return RedisSink(lease, show, report, self._mark)

    def keep(self, key: SessionKey, run_id: str, events: Sequence[Event]) -> None:
        """Do nothing. The events are in Redis, and the script that ended the run has set their expiry."""

    def _mark(self, sink: RedisSink) -> None:
        self._dirty[sink] = None
        self._due.set()

    async def _write_forever(self) -> None:
        written_at = -math.inf
        while True:
            await self._due.wait()
            await trio.sleep_until(written_at + WINDOW)
            self._due = trio.Event()
            written_at = trio.current_time()
            dirty, self._dirty = list(self._dirty), {}
            ready = [sink for sink in dirty if sink.retry_at <= written_at]
            later = [sink for sink in dirty if sink.retry_at > written_at]
            for start in range(0, len(ready), SINKS_AT_ONCE):
                if not await self._write(ready[start : start + SINKS_AT_ONCE]):
                    for sink in ready[start:]:
                        self._mark(sink)
                    written_at = trio.current_time() + RETRY
                    break
            if later:
                for sink in later:
                    self._dirty[sink] = None
                if not self._due.is_set():
                    with trio.move_on_at(min(sink.retry_at for sink in later)):
                        await self._due.wait()
                    self._due.set()

    async def _write(self, sinks: Sequence[RedisSink]) -> bool:
        """Write a batch of each run. Return False if the server does not answer."""
        written = [(sink, batch) for sink in sinks if (batch := sink.take_batch())]
        if not written:
            return True
        try:
            replies = await self._link.client.pipeline([self._emission(sink, batch) for sink, batch in written])
        except LinkError as exc:
            if self._reachable:
                logger.warning("the events of %d runs cannot be written: %s", len(written), exc)
            self._reachable = False
            return False
        if not self._reachable:
            logger.warning("events are written again")
        self._reachable = True
        for (sink, _), reply in zip(written, replies, strict=True):
            if isinstance(reply, RedisError) and sink.trouble is None:
                logger.warning("run %s: its events cannot be written: %s", sink.lease.run_id, reply)
            try:
                sink.settle(reply)
            except Exception:
                # Other runs must continue. This run ends when its lease expires.
                logger.critical("run %s: its events could not be shown", sink.lease.run_id, exc_info=True)
                sink.give_up()
        return True

    def _emission(self, sink: RedisSink, batch: Sequence[bytes]) -> ScriptCall:
        lease = sink.lease
        digest = lease.key.digest
        return self._emit.bind(
            [self._layout.session(digest), self._layout.events(digest, lease.run_id)],
            [
                lease.run_id,
                lease.token,
                sink.first,
                int(self._timings.session_ttl * 1000),
                sink.least,
                int(sink.after_a_gap),
                self._layout.session_channel(digest),
                *batch,
            ],
        )

    # Reading.

    async def extent(self, key: SessionKey, run_id: str) -> Extent | None:
        with unavailable_on_error(UNREADABLE):
            [found] = await self._link.ask(self._bound_read(key, run_id, "extent"))
        if not found:
            return None
        first, last, event = found
        terminal = decode_event(event)
        ended = isinstance(terminal, ResponseEvent) and terminal.terminal
        return Extent(first=int(first), end=int(last) + 1, ended=ended)

    async def read(self, key: SessionKey, run_id: str, start: int) -> Sequence[Event]:
        with unavailable_on_error(UNREADABLE):
            [found] = await self._link.ask(self._bound_read(key, run_id, "from", start, READ_EVENTS, READ_BYTES))
        events = [decode_event(event) for event in found]
        # A fail-over may have left a gap. Events after the gap are returned as the next batch.
        first = events[0].sequence_number if events else 0
        return [event for number, event in enumerate(events, first) if event.sequence_number == number]

    def _bound_read(self, key: SessionKey, run_id: str, *args: str | int) -> ScriptCall:
        return self._read.bind([self._layout.events(key.digest, run_id)], args)

    # Readers on other nodes.

    @asynccontextmanager
    async def attending(self, key: SessionKey, run_id: str) -> AsyncIterator[None]:
        place = (key.digest, run_id)
        self._attended[place] = self._attended.get(place, 0) + 1
        try:
            await self._report([self._attendance(*place, "here", self._node_id, _ms(ATTENDANCE_COUNTS))])
            yield
        finally:
            self._attended[place] -= 1
            if not self._attended[place]:
                del self._attended[place]
                with trio.CancelScope(shield=True):
                    await self._report([self._attendance(*place, "gone", self._node_id)])

    async def _attend_forever(self) -> None:
        while True:
            await trio.sleep(ATTENDANCE)
            places = list(self._attended)
            for start in range(0, len(places), SINKS_AT_ONCE):
                await self._report(
                    [
                        self._attendance(*place, "here", self._node_id, _ms(ATTENDANCE_COUNTS))
                        for place in places[start : start + SINKS_AT_ONCE]
                    ]
                )

    async def _report(self, calls: Sequence[ScriptCall]) -> None:
        try:
            await self._link.ask(*calls)
        except (LinkError, RedisError) as exc:
            logger.warning("it could not be reported that this node has readers: %s", exc)

    def _attendance(self, digest: str, run_id: str, *args: str | int) -> ScriptCall:
        keys = [self._layout.viewers(digest, run_id), self._layout.viewed(digest, run_id)]
        return self._viewers.bind(keys, [*args, _ms(self._timings.session_ttl)])

    async def unwatched(self, runs: Sequence[tuple[SessionKey, str]]) -> Sequence[float]:
        with unavailable_on_error(UNREADABLE):
            answers = await self._link.ask(*[self._attendance(key.digest, run_id, "ask") for key, run_id in runs])
        return [math.inf if ms < 0 else ms / 1000 for ms in answers]


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
