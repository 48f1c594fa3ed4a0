"""Ending all runs of a node in good order, before it ends itself."""

from __future__ import annotations

import logging

import trio

from ..protocol.lifecycle import Cause, Ending
from .ending import numbered_from, terminal_events
from .grace import wait_within
from .registry import RunRegistry
from .run import Run

__all__ = ["OVERRUN", "drain"]

logger = logging.getLogger("trio_agentapp.runs")

OVERRUN = 1.0
"""Seconds beyond the cleanup budget in which runs whose shields have just ended may unwind."""


async def drain(registry: RunRegistry, timeout: float, hurry: trio.Event | None = None) -> None:
    """Take no new runs; let live ones finish for `timeout` seconds or until `hurry`; stop the rest with cleanup.

    Returns when no run is left, or when what is left has overrun its cleanup budget: the watchers of those get a
    terminal frame, since the process will end before the runs do.
    """
    registry.draining = True
    for run in registry.live():
        if run.waits:
            run.stop(Cause.SHUTDOWN)
    if live := len(registry.live()):
        logger.info("%d live runs may finish within %g s; the rest is stopped then", live, timeout)
    await wait_within(timeout, hurry, registry.wait_empty)
    registry.stop_all(Cause.SHUTDOWN)
    with trio.move_on_after(registry.cleanup_budget + OVERRUN):
        await registry.wait_empty()
    for run in registry.live():
        _abandon(run)


def _abandon(run: Run) -> None:
    logger.error("run %s (handler %r) has not ended within its cleanup budget", run.run_id, run.handler_name)
    if not run.log.closed:
        run.sink.give_up()
        run.log.put(numbered_from(run.log.end, terminal_events(run.builder, Ending(cause=Cause.CLEANUP_TIMEOUT))))
        run.log.close()
