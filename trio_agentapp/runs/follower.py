"""Reads the events of a run that is not live on this node into a log like that of a live run."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack

import trio

from ..abc import BaseInterruptBackend, EventStore, watching
from ..errors import BackendUnavailable
from ..protocol.events import ResponseEvent
from ..protocol.ids import SessionKey
from ..protocol.lifecycle import RunRecord
from .event_log import RECENT_EVENTS, RECENT_WEIGHT, EventLog
from .terminal_events import event_from_record

__all__ = ["Follower"]

logger = logging.getLogger("trio_agentapp.runs")

LOOK = 1.0
"""Seconds without an event after which a followed run is looked up. Wake-ups may be lost, and nodes may die."""


class Follower:
    """Reads one run from the store for all of its readers on this node."""

    def __init__(self, backend: BaseInterruptBackend, store: EventStore, record: RunRecord, start: int) -> None:
        self.run_id = record.run_id
        self._key: SessionKey = record.key
        self._backend = backend
        self._store = store
        self._live = not record.state.terminal
        self.counted = trio.Event()
        """Set when the owner of the run has counted the readers of this node, or when the run has ended."""
        self._woken = trio.Event()
        self._scope = trio.CancelScope()
        self.log = EventLog(
            first=start,
            archive=lambda number: store.read(record.key, record.run_id, number),
            max_events=RECENT_EVENTS,
            max_weight=RECENT_WEIGHT,
        )

    def stop(self) -> None:
        self._scope.cancel(reason="the last reader has left")

    def _wake(self, run_id: str) -> None:
        if run_id == self.run_id:
            self._woken.set()

    async def run(self) -> None:
        """Read the events of the run into `log` until its end, or until `stop` is called. Then close the log."""
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
            # A reader that got no terminal event knows that it was disconnected, and resumes.
            self.counted.set()
            self.log.close()

    async def _follow(self) -> None:
        over = None
        while True:
            self._woken = trio.Event()
            try:
                if await self._read():
                    return
                if over is not None:
                    # The terminal event is lost, as in a fail-over of Redis. The record has the state and the
                    # reason.
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
        """Read the store's events that follow those in `log`. Returns True if the last was the terminal event."""
        while events := await self._store.read(self._key, self.run_id, self.log.end):
            if events[0].sequence_number > self.log.end:
                # The events in between are not in the store any more. Readers get a gap.
                self.log.skip_to(events[0].sequence_number)
            self.log.put(events)
            last = events[-1]
            if isinstance(last, ResponseEvent) and last.terminal:
                return True
        return False
