"""The registry's clock: what must happen to runs when time has passed and nothing else did.

One task for all runs and their readers, in place of a timer for each (HOT-PATH, section 3.7).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from ..protocol.lifecycle import Cause
from ..protocol.request import CancelAfter
from .run import Run

if TYPE_CHECKING:
    from .registry import RunRegistry

__all__ = ["KEEP_ALIVE", "tick"]

logger = logging.getLogger("trio_agentapp.runs")

PERIOD = 1.0

KEEP_ALIVE = 15.0
"""Seconds of silence after which a stream shows a sign of life (WIRE, section 1)."""


async def tick(registry: RunRegistry) -> None:
    before = trio.current_time()
    while True:
        await trio.sleep(PERIOD)
        now = trio.current_time()
        # After a pause of the process the runs that it ended have not had their turn yet.
        paused = now - before > 2 * PERIOD
        before = now
        for run in registry.live():
            _tick_run(run, now, paused=paused)


def _tick_run(run: Run, now: float, *, paused: bool) -> None:
    for subscriber in run.log.subscribers:
        if now - subscriber.quiet_since >= KEEP_ALIVE - PERIOD / 2:
            subscriber.nudge()
    policy, since = run.on_disconnect, run.unwatched_since
    if isinstance(policy, CancelAfter) and since is not None and now - since >= policy.seconds:
        run.stop(Cause.DISCONNECTED)
    if not run.stuck and not paused and run.overdue(now):
        run.stuck = True
        logger.error(
            "run %s (handler %r) is stuck: it was ended (%s), and has not unwound within its cleanup budget; "
            "its session stays blocked until it does",
            run.run_id,
            run.handler_name,
            run.cause.value if run.cause else "?",
        )
