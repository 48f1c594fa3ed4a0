"""Renews the leases of all runs of this node, and applies stop signals.

A lease is a deadline of its run's cancel scope, counted from the moment at which the last confirmed renewal was
sent. If this node is paused, starved or cut off, Trio itself stops the run before another node can own its session.
This task only moves the deadline. See `docs/reference/interrupt-protocol.md`.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import trio

from ..abc import BaseInterruptBackend, Renewal, Resync, StopSignal
from ..errors import AgentAppError
from ..protocol.timings import Timings
from .run import Run

__all__ = ["Keeper", "call_limit"]

logger = logging.getLogger("trio_agentapp.runs")

SUSPENSION_POLL = 1.0
"""Seconds between two checks whether the machine was suspended."""

SUSPENDED = 0.5
"""Seconds by which CLOCK_BOOTTIME has to gain on the monotonic clock to mean that the machine was suspended."""

CALL_TIMEOUTS = 1.25
"""Time limit of one call, in call timeouts of the backend.

It is above 1, so that a backend that limits its own calls times out first and opens a new connection. If its call
were cancelled from here, it would not notice that the connection is dead.
"""


class Keeper:
    """Renews the leases of `runs`, the live runs of this node by run id."""

    def __init__(self, backend: BaseInterruptBackend, runs: Mapping[str, Run]) -> None:
        self._backend = backend
        self._timings = backend.timings
        self._runs = runs
        self._due = trio.Event()
        self._reachable = True

    def granted(self, run: Run, asked_at: float) -> None:
        """Begin to renew the lease of `run`, whose claim was sent at `asked_at` and granted.

        The lease counts from `asked_at`.
        """
        self._confirm(run, asked_at)
        if self._timings is not None and trio.current_time() - asked_at > self._timings.call_timeout:
            # The claim took long, because it was repeated. Its lease may expire before the next heartbeat: renew it
            # now.
            self._due.set()

    async def beat(self) -> None:
        """Renew all leases every heartbeat, and at once when a signal may have been missed."""
        if self._timings is None:
            return  # leases of this backend do not expire
        period = self._timings.heartbeat
        while True:
            await self._wait_due(period * random.uniform(0.9, 1.1))  # noqa: S311  jitter
            renewed = await self._renew_all()
            period = self._timings.heartbeat if renewed else self._timings.call_retry

    async def _wait_due(self, seconds: float) -> None:
        until = trio.current_time() + seconds
        suspended = _suspended()
        while trio.current_time() < until and not self._due.is_set():
            with trio.move_on_at(min(until, trio.current_time() + SUSPENSION_POLL)):
                await self._due.wait()
            if _suspended() - suspended > SUSPENDED:
                break
        if self._due.is_set():
            self._due = trio.Event()

    async def _renew_all(self) -> bool:
        """Renew all leases once. Returns False if that failed."""
        held = [(run, run.lease) for run in self._runs.values() if run.lease is not None]
        if not held:
            return True
        sent_at = trio.current_time()
        try:
            with call_limit(self._timings):
                answers = await self._backend.heartbeat([lease for _, lease in held])
        except (AgentAppError, trio.TooSlowError, OSError) as exc:
            if self._reachable:
                logger.warning("the leases of %d runs could not be renewed: %s", len(held), exc)
            self._reachable = False
            return False
        except Exception:
            logger.exception("the leases of %d runs could not be renewed", len(held))
            return False
        if not self._reachable:
            logger.warning("leases are renewed again")
        self._reachable = True
        for (run, _), answer in zip(held, answers, strict=True):
            if answer is not Renewal.LOST:
                self._confirm(run, sent_at)
            run.apply_renewal(answer)
        return True

    def receive(self, signal: StopSignal | Resync) -> None:
        """Apply a signal of the backend. It may be for a run that is not on this node any more."""
        if isinstance(signal, Resync):
            self._due.set()
            return
        run = self._runs.get(signal.run_id)
        # A signal may arrive before the answer to the claim of its run. Until then the token of the run is 0.
        if run is not None and run.token in (0, signal.token):
            run.stop_remotely()

    def _confirm(self, run: Run, sent_at: float) -> None:
        if self._timings is not None:
            body_until = sent_at + self._timings.cutoff
            run.renewed_at = sent_at
            run.renew(body_until=body_until, cleanup_until=body_until + self._timings.offline_cleanup)


def call_limit(timings: Timings | None) -> AbstractContextManager[object]:
    """Return the time limit of one call that is repeated if it fails; none for a backend without leases."""
    return nullcontext() if timings is None else trio.fail_after(CALL_TIMEOUTS * timings.call_timeout)


def _suspended() -> float:
    """Return the seconds for which this machine was suspended since it booted; 0 if they are not counted."""
    boot_time = getattr(time, "CLOCK_BOOTTIME", None)
    return 0.0 if boot_time is None else time.clock_gettime(boot_time) - time.monotonic()
