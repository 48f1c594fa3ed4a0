"""The registry's clock: what must happen to runs when time has passed and nothing else did.

One task for all runs and their readers, in place of a timer for each (HOT-PATH, section 3.7).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

import trio

from ..abc import EventStore
from ..errors import AgentAppError
from ..protocol.lifecycle import Cause, Phase
from ..protocol.request import CancelAfter
from .log import EventLog
from .run import Run

if TYPE_CHECKING:
    from .registry import RunRegistry

__all__ = ["KEEP_ALIVE", "STALLED", "Ticker"]

logger = logging.getLogger("trio_agentapp.runs")

PERIOD = 1.0

KEEP_ALIVE = 15.0
"""Seconds of silence after which a stream shows a sign of life (WIRE, section 1)."""

STALLED = 60.0
"""Seconds that a reader may take for one batch; then it is cut, to come back (INTERRUPT-PROTOCOL, section 7)."""


class Ticker:
    """Ticks once a second, and sooner when a run has lost its last reader here."""

    def __init__(self, registry: RunRegistry, store: EventStore | None) -> None:
        self.logs: set[EventLog] = set()
        """Logs of runs on other nodes, which are read here."""
        self._registry = registry
        self._store = store
        self._due = trio.Event()

    def hurry(self) -> None:
        self._due.set()

    async def tick(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_at_time, name="clock of runs and readers")
            # On its own, since it may have to wait for a store.
            nursery.start_soon(self._look_for_watchers, name="watchers of runs")

    async def _look_at_time(self) -> None:
        before = trio.current_time()
        while True:
            await trio.sleep_until(before + PERIOD)
            now = trio.current_time()
            # After a pause of the process the runs that it ended have not had their turn yet.
            paused = now - before > 2 * PERIOD
            before = now
            runs = self._registry.live()
            for log in [*(run.log for run in runs), *self.logs]:
                _tick_readers(log, now)
            for run in runs:
                if not paused:
                    _note_stuck(run, now)

    async def _look_for_watchers(self) -> None:
        while True:
            with trio.move_on_after(PERIOD):
                await self._due.wait()
            self._due = trio.Event()
            await self._stop_unwatched(self._registry.live(), trio.current_time())

    async def _stop_unwatched(self, runs: Iterable[Run], now: float) -> None:
        # Those first whose time is over by what is known here; then those of them that nobody else watches.
        due = [(run, limit) for run in runs if (limit := _patience_of(run, now)) is not None]
        if not due:
            return
        if self._store is not None and self._store.shared:
            try:
                elsewhere = await self._store.unwatched([(run.key, run.run_id) for run, _ in due])
            except (AgentAppError, OSError) as exc:
                logger.warning("whether runs are watched from other nodes cannot be told: %s", exc)
                return
            # 0: somebody reads it there now; then it lives on, also where nobody is waited for.
            due = [entry for entry, since in zip(due, elsewhere, strict=True) if 0 < since >= entry[1]]
        for run, _ in due:
            # Somebody may have looked in meanwhile.
            if _patience_of(run, now) is not None:
                run.stop(Cause.DISCONNECTED)


def _patience_of(run: Run, now: float) -> float | None:
    """For how long nobody may watch a run, if that long has passed here; None: it is watched, or need not be."""
    since = run.unwatched_since
    if since is None or run.on_disconnect == "continue" or run.phase is not Phase.RUNNING:
        return None
    limit = run.on_disconnect.seconds if isinstance(run.on_disconnect, CancelAfter) else 0.0
    return limit if now - since >= limit else None


def _tick_readers(log: EventLog, now: float) -> None:
    for subscriber in log.subscribers:
        quiet = now - subscriber.quiet_since
        if subscriber.waiting:
            if quiet >= KEEP_ALIVE - PERIOD / 2:
                subscriber.nudge()
        elif quiet >= STALLED and subscriber.on_stalled is not None:
            subscriber.on_stalled()


def _note_stuck(run: Run, now: float) -> None:
    if not run.stuck and run.overdue(now):
        run.stuck = True
        logger.error(
            "run %s (handler %r) is stuck: it was ended (%s), and has not unwound within its cleanup budget; "
            "its session stays blocked until it does",
            run.run_id,
            run.handler_name,
            run.cause.value if run.cause else "?",
        )
