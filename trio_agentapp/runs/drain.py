"""Drains a node: refuses new runs, lets live ones finish, stops the rest."""

from __future__ import annotations

import logging

import trio

from ..protocol.lifecycle import Cause, Ending, Phase
from .grace import grace_period
from .registry import RunRegistry
from .run import Run
from .terminal_events import numbered_from, terminal_events

__all__ = ["OVERRUN", "drain"]

logger = logging.getLogger("trio_agentapp.runs")

OVERRUN = 1.0
"""Seconds beyond the cleanup budget: runs whose cleanup was cancelled at its deadline unwind in this time."""


async def drain(registry: RunRegistry, timeout: float, hurry: trio.Event | None = None) -> None:
    """Refuse new runs, let live ones finish for `timeout` seconds or until `hurry` is set, then stop the rest.

    Returns when no run is left, or when the remaining runs have exceeded their cleanup budget. Readers of the
    remaining runs get a terminal event now, since the process will end before these runs do.
    """
    registry.draining = True
    for run in registry.live():
        if run.lifecycle.phase is Phase.QUEUED:
            run.scope.stop(Cause.SHUTDOWN)
    if live := len(registry.live()):
        logger.info("%d live runs may finish within %g s; the rest is stopped then", live, timeout)
    await grace_period(registry.wait_empty, timeout, hurry)
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
