"""Waiting in line for a session that another run has (`multitask_strategy`).

A place is kept by claiming again and again, so that of a dead node, or of a client that left, is lost by itself
(INTERRUPT-PROTOCOL, section 4).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from ..abc import BaseInterruptBackend, Claim, Lease, Place, Queued, watching
from ..errors import AgentAppError
from ..protocol.lifecycle import Cause
from ..protocol.request import MultitaskStrategy
from .keeper import Keeper
from .run import Run

__all__ = ["CLAIM_AGAIN", "place_of", "wait_in_line"]

logger = logging.getLogger("trio_agentapp.runs")

CLAIM_AGAIN = 1.0
"""Seconds between two claims of a run that waits, unless it is woken (INTERRUPT-PROTOCOL, section 4)."""


def place_of(strategy: MultitaskStrategy) -> Place | None:
    """Where a request of this strategy waits; None: it does not."""
    return {"reject": None, "enqueue": Place.LAST, "interrupt": Place.FIRST, "rollback": Place.FIRST}[strategy]


async def wait_in_line(
    backend: BaseInterruptBackend, keeper: Keeper, run: Run, lease: Lease, queued: Queued
) -> Claim | None:
    """Claim until something else than a place comes of it. None: the run was stopped meanwhile.

    One that interrupts first stops the run that has the session; each one, should several be before it.

    Raises:
        BackendUnavailable: the backend could not be asked for as long as a claim is tried.
    """
    turn = trio.Event()

    def wake(_run_id: str = "") -> None:
        turn.set()

    async with watching(backend, run.key, wake):
        # What ended before this was watched woke nobody: claim again at once.
        wake()
        while True:
            if lease.place is Place.FIRST and queued.run_id not in run.replaces:
                await _interrupt(backend, run, queued.run_id)
            with trio.move_on_after(CLAIM_AGAIN), trio.CancelScope(deadline=run.deadline):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_when_stopped, run, wake)
                    await turn.wait()
                    nursery.cancel_scope.cancel(reason="woken")
            if trio.current_time() >= run.deadline:
                run.stop(Cause.DEADLINE_EXCEEDED)
            if run.stopping.is_set():
                return None
            turn = trio.Event()
            claim = await keeper.claim(run, lease)
            if not isinstance(claim, Queued):
                return claim
            queued = claim


async def _interrupt(backend: BaseInterruptBackend, run: Run, active: str) -> None:
    try:
        await backend.request_stop(run.key, active)
    except (AgentAppError, OSError) as exc:
        # It is tried again before the next claim.
        logger.warning("run %s: the run before it could not be stopped yet: %s", run.run_id, exc)
    else:
        run.replaces.append(active)


async def _when_stopped(run: Run, wake: Callable[[], None]) -> None:
    await run.stopping.wait()
    wake()
