"""Writes the ends of runs into the backend, and repeats a failed write until it succeeds or is not needed any more.

A session stays blocked until the end of its run is written, or its lease has expired. So a failed write is repeated
with back-off. When the lease has expired, other nodes have seen the run end as an error, so an error need not be
written any more. Other endings are still written (see `until`).
"""

from __future__ import annotations

import logging
import math

import trio

from ..abc import BaseInterruptBackend, Lease
from ..errors import BackendUnavailable
from ..protocol.lifecycle import Cause, Ending, RunRecord, RunState
from .keeper import call_limit
from .run import Run

__all__ = ["EndWriter"]

logger = logging.getLogger("trio_agentapp.runs")

RETRY_FIRST, RETRY_LAST = 0.05, 1.0
"""Seconds before a write that failed is repeated: doubled each time, up to the larger one."""


class EndWriter:
    """Writes the ends of all runs of this node."""

    def __init__(self, backend: BaseInterruptBackend) -> None:
        self._backend = backend
        self._timings = backend.timings
        self._closes_at = math.inf

    def close(self) -> None:
        """Give up each write when the lease of its run has certainly expired, because the node ends."""
        self._closes_at = self.lease_end()

    def lease_end(self) -> float:
        """When a lease that is claimed or renewed right now expires, on Trio's clock."""
        return trio.current_time() + (0.0 if self._timings is None else self._timings.lease)

    def until(self, run: Run, ending: Ending) -> float:
        """Return until when to repeat the write of this ending, on Trio's clock.

        When the lease has expired, other nodes have ended the run as an error. An error need not be written then.
        Any other ending may have been written although its answer was lost. Clients get it when the backend has
        answered.
        """
        if self._timings is None:
            return trio.current_time()
        return run.renewed_at + self._timings.lease if ending.state is RunState.ERROR else math.inf

    async def write(self, lease: Lease, ending: Ending, *, until: float) -> RunRecord | None:
        """Write the end of a run. Returns the record in the backend; None if it could not be written by `until`."""
        pause = RETRY_FIRST
        while True:
            try:
                with call_limit(self._timings):
                    return await self._backend.finish(lease, ending)
            except (BackendUnavailable, trio.TooSlowError) as exc:
                if trio.current_time() >= min(until, self._closes_at):
                    logger.warning("run %s: its end could not be written in time: %s", lease.run_id, exc)
                    return None
            except Exception:
                logger.exception("run %s: its end could not be written", lease.run_id)
                return None
            await trio.sleep(pause)
            pause = min(pause * 2, RETRY_LAST)

    async def take_back(self, lease: Lease, nursery: trio.Nursery | None) -> None:
        """End the run of a claim whose answer is unknown: the backend may have granted it, or may still receive it.

        The write is tried once while the caller waits, and then in `nursery` until the lease would have expired.
        """
        ending = Ending(cause=Cause.CLAIM_FAILED)
        with trio.CancelScope(shield=True):
            if await self.write(lease, ending, until=-math.inf) is not None:
                return
        logger.warning("run %s: its claim failed, and the session could not be freed yet", lease.run_id)
        if nursery is not None and self._timings is not None:
            nursery.start_soon(self._keep_taking_back, lease, ending, name=f"freeing the session of {lease.run_id}")

    async def _keep_taking_back(self, lease: Lease, ending: Ending) -> None:
        with trio.CancelScope(shield=True):
            await self.write(lease, ending, until=self.lease_end())
