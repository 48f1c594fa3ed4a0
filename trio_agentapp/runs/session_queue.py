"""Waits in the queue of a session that another run owns (`multitask_strategy`).

A run keeps its place by repeating its claim. If its node dies or its client leaves, the claims stop and the place
expires, so no other code has to remove it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from ..abc import BaseInterruptBackend, Claim, Lease, Place, Queued, watching
from ..errors import AgentAppError
from ..protocol.request import MultitaskStrategy
from .run import Run

__all__ = ["CLAIM_AGAIN", "place_of", "wait_in_queue"]

logger = logging.getLogger("trio_agentapp.runs")

CLAIM_AGAIN = 1.0
"""Seconds between two claims of a queued run, unless it is woken before."""


def place_of(strategy: MultitaskStrategy) -> Place | None:
    """Return the place in the queue that a request with this strategy takes; None if it does not wait."""
    return {"reject": None, "enqueue": Place.LAST, "interrupt": Place.FIRST, "rollback": Place.FIRST}[strategy]


async def wait_in_queue(
    backend: BaseInterruptBackend,
    run: Run,
    lease: Lease,
    queued: Queued,
    claim: Callable[[], Awaitable[Claim]],
) -> Claim | None:
    """Repeat `claim` until its answer is not `Queued`, and return it; None if the run was stopped before.

    A run with the strategy `interrupt` or `rollback` stops the run that owns the session, and each other run before
    it.

    Raises:
        BackendUnavailable: the backend did not answer for as long as a claim is tried.
    """
    woken = trio.Event()

    def wake(_run_id: str = "") -> None:
        woken.set()

    async with watching(backend, run.key, wake):
        # The session may have become free before this code watched it, so claim again at once.
        wake()
        while True:
            if lease.place is Place.FIRST and queued.run_id not in run.replaces:
                await _interrupt(backend, run, queued.run_id)
            with trio.move_on_after(CLAIM_AGAIN), trio.CancelScope(deadline=run.deadline):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_wake_when_stopped, run, wake)
                    await woken.wait()
                    nursery.cancel_scope.cancel(reason="woken")
            run.scope.note_deadline()
            if run.lifecycle.cause is not None:
                return None
            woken = trio.Event()
            answer = await claim()
            if not isinstance(answer, Queued):
                return answer
            queued = answer


async def _interrupt(backend: BaseInterruptBackend, run: Run, active: str) -> None:
    try:
        await backend.request_stop(run.key, active)
    except (AgentAppError, OSError) as exc:
        # The stop is repeated before the next claim.
        logger.warning("run %s: the run before it could not be stopped yet: %s", run.run_id, exc)
    else:
        run.replaces.append(active)


async def _wake_when_stopped(run: Run, wake: Callable[[], None]) -> None:
    await run.stopping.wait()
    wake()
