"""Looks at all runs and readers of a node once a second.

It sends keep-alives, disconnects stalled readers, stops unwatched runs, reports stuck ones, and bounds the memory
of all logs. One task does that, in place of a timer for each. See `docs/discussion/hot-path.md`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import trio

from ..abc import EventStore
from ..errors import AgentAppError
from ..protocol.lifecycle import Cause
from ..protocol.request import CancelAfter
from .event_log import EventLog
from .run import Run

__all__ = ["KEEP_ALIVE", "STALLED", "Ticker"]

logger = logging.getLogger("trio_agentapp.runs")

PERIOD = 1.0

KEEP_ALIVE = 15.0
"""Seconds without an event after which a stream sends a keep-alive."""

STALLED = 60.0
"""Seconds that a reader may take for one batch. Then it is disconnected, and may resume."""


MAX_NODE_WEIGHT = 512 * 1024 * 1024
"""Estimated bytes of the events of all live runs; Python needs up to three times as much.

Beyond this limit no run starts, and each log is limited to an equal share.
"""


class Ticker:
    """Checks runs and readers once a second, and at once when a run loses its last reader here.

    `runs`: the live runs by id.
    """

    def __init__(self, runs: Mapping[str, Run], store: EventStore | None) -> None:
        self.logs: set[EventLog] = set()
        """Logs of runs on other nodes that have readers here."""
        self.weight = 0
        """Estimated bytes of all events in the logs of this node, counted once a second."""
        self._runs = runs
        self._store = store
        self._due = trio.Event()

    def hurry(self) -> None:
        """Look for unwatched runs now."""
        self._due.set()

    async def tick(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._check_time, name="clock of runs and readers")
            # It gets its own task, since it may have to wait for a store.
            nursery.start_soon(self._check_watchers, name="watchers of runs")

    async def _check_time(self) -> None:
        before = trio.current_time()
        while True:
            await trio.sleep_until(before + PERIOD)
            now = trio.current_time()
            # After a pause of the process, runs whose deadline passed in the pause have not had a turn to unwind
            # yet.
            paused = now - before > 2 * PERIOD
            before = now
            runs = [*self._runs.values()]
            logs = [*(run.log for run in runs), *self.logs]
            for log in logs:
                _tick_readers(log, now)
            self.weight = _bounded_weight(logs)
            if not paused:
                for run in runs:
                    _note_stuck(run, now)

    async def _check_watchers(self) -> None:
        while True:
            with trio.move_on_after(PERIOD):
                await self._due.wait()
            self._due = trio.Event()
            await self._stop_unwatched(trio.current_time())

    async def _stop_unwatched(self, now: float) -> None:
        # Find the runs that had no reader on this node for too long. Then leave out those with readers on other
        # nodes.
        due = [(run, limit) for run in self._runs.values() if (limit := _exceeded_limit(run, now)) is not None]
        if not due:
            return
        if self._store is not None and self._store.shared:
            try:
                elsewhere = await self._store.unwatched([(run.key, run.run_id) for run, _ in due])
            except (AgentAppError, OSError) as exc:
                logger.warning("whether runs are watched from other nodes is unknown: %s", exc)
                return
            # The store returns 0 if another node has a reader now. Then the run continues, also if its limit is 0.
            due = [entry for entry, since in zip(due, elsewhere, strict=True) if 0 < since >= entry[1]]
        for run, _ in due:
            # A reader may have attached in the meantime.
            if _exceeded_limit(run, now) is not None:
                run.scope.stop(Cause.DISCONNECTED)


def _exceeded_limit(run: Run, now: float) -> float | None:
    """Return the limit in seconds that a run without readers here has exceeded; None if it may continue."""
    since = run.unwatched_since
    policy = run.when_unwatched
    if since is None or policy == "continue" or run.lifecycle.cause is not None:
        return None
    limit = policy.seconds if isinstance(policy, CancelAfter) else 0.0
    return limit if now - since >= limit else None


def _bounded_weight(logs: Sequence[EventLog]) -> int:
    """Return the bytes in all logs, and shrink the logs if there are too many."""
    weight = sum(log.kept_weight for log in logs)
    if weight > MAX_NODE_WEIGHT:
        share = MAX_NODE_WEIGHT // len(logs)
        logger.warning(
            "the events of %d live runs take %d MiB: no run starts until they take less than %d, and slow readers "
            "get gaps",
            len(logs),
            weight // 2**20,
            MAX_NODE_WEIGHT // 2**20,
        )
        for log in logs:
            log.shrink(share)
    return weight


def _tick_readers(log: EventLog, now: float) -> None:
    for subscriber in log.subscribers:
        quiet = now - subscriber.quiet_since
        if subscriber.waiting:
            if quiet >= KEEP_ALIVE - PERIOD / 2:
                subscriber.nudge()
        elif quiet >= STALLED and subscriber.on_stalled is not None:
            subscriber.on_stalled()


def _note_stuck(run: Run, now: float) -> None:
    if run.is_overdue(now) and run.lifecycle.found_stuck():
        logger.error(
            "run %s (handler %r) is stuck: it was ended (%s), and has not unwound within its cleanup budget; "
            "its session stays blocked until it does",
            run.run_id,
            run.handler_name,
            run.lifecycle.cause.value if run.lifecycle.cause else "?",
        )
