"""Keeps the leases of this node's runs: claims, renews and gives them back, and hears of stops.

A lease is the deadline of its run's scope, counted from when its last confirmed renewal was sent. So an owner that
is paused, starved or cut off is stopped by Trio itself, before another can take its session; this task only moves
the deadline (INTERRUPT-PROTOCOL, section 5).
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import trio

from ..abc import BaseInterruptBackend, Claim, Granted, Lease, Renewal, Resync, StopSignal
from ..errors import AgentAppError, BackendUnavailable
from ..protocol.lifecycle import Cause, Ending, RunRecord, RunState
from .run import Run

__all__ = ["Keeper"]

logger = logging.getLogger("trio_agentapp.runs")

LOOK = 1.0
"""Seconds between two looks at whether the machine was suspended."""

SUSPENDED = 0.5
"""Seconds by which the clock that counts a suspension runs ahead of the one that does not, to be taken for one."""

PATIENCE = 1.25
"""Call time-outs that a call is waited for. More than one: a backend that watches its own calls is first to notice,
and makes a new connection; one that was merely cancelled would never know."""

FINISH_AT_FIRST = 0.05
"""Seconds before an end that could not be written is written again; doubled each time, up to `FINISH_AT_LAST`."""

FINISH_AT_LAST = 1.0


class Keeper:
    """One for each node.

    Args:
        backend: who says which run may have a session.
        live: the node's runs.
    """

    def __init__(self, backend: BaseInterruptBackend, live: Callable[[], Sequence[Run]]) -> None:
        self._backend = backend
        self._timings = backend.timings
        self._live = live
        self._due = trio.Event()
        self._reachable = True
        self._closes_at = math.inf

    async def claim(self, run: Run, lease: Lease) -> Claim:
        """Ask for the session; if it is granted, the run's time begins to count from now, before the question."""
        asked_at = trio.current_time()
        claim = await self._backend.claim(lease)
        if isinstance(claim, Granted):
            run.token = claim.token
            run.state = RunState.RUNNING
            self._renewed(run, asked_at)
            if self._timings is not None and trio.current_time() - asked_at > self._timings.call_timeout:
                # It was asked for several times: what is left may be less than the time to the next heartbeat.
                self._due.set()
        return claim

    async def finish(self, lease: Lease, ending: Ending, *, until: float) -> RunRecord | None:
        """Write the end of a run, again and again while that cannot be done; None: it could not be by `until`."""
        pause = FINISH_AT_FIRST
        while True:
            try:
                with self._patience():
                    return await self._backend.finish(lease, ending)
            except (BackendUnavailable, trio.TooSlowError) as exc:
                if trio.current_time() >= min(until, self._closes_at):
                    logger.warning("run %s: its end could not be written in time: %s", lease.run_id, exc)
                    return None
            except Exception:
                logger.exception("run %s: its end could not be written", lease.run_id)
                return None
            await trio.sleep(pause)
            pause = min(pause * 2, FINISH_AT_LAST)

    def patience_for(self, run: Run, ending: Ending) -> float:
        """Until when this end is written again, on Trio's clock, while no answer comes.

        An error is one in any case once the lease has ended, whoever writes it. Anything else may have been written
        although the answer was lost: what clients are told has to wait for it.
        """
        if self._timings is None:
            return trio.current_time()
        return run.renewed_at + self._timings.lease if ending.state is RunState.ERROR else math.inf

    def close(self) -> None:
        """The node leaves: ends that cannot be written are given up when their leases would have ended."""
        self._closes_at = self.give_up_at()

    def give_up_at(self) -> float:
        """When a claim that is being sent now, and of which nothing more is heard, has certainly ended."""
        return trio.current_time() + (0.0 if self._timings is None else self._timings.lease)

    async def beat(self) -> None:
        """Renew all leases every heartbeat, and at once when something may have been missed."""
        if self._timings is None:
            return  # leases of this backend do not end
        period = self._timings.heartbeat
        while True:
            await self._wait_due(period * random.uniform(0.9, 1.1))  # noqa: S311  jitter
            well = await self._renew_all()
            period = self._timings.heartbeat if well else self._timings.call_retry

    async def _wait_due(self, seconds: float) -> None:
        until = trio.current_time() + seconds
        suspended = _suspended()
        while trio.current_time() < until and not self._due.is_set():
            with trio.move_on_at(min(until, trio.current_time() + LOOK)):
                await self._due.wait()
            if _suspended() - suspended > SUSPENDED:
                break
        if self._due.is_set():
            self._due = trio.Event()

    async def _renew_all(self) -> bool:
        """One round of renewals; False if it failed."""
        assert self._timings is not None  # noqa: S101
        runs = [run for run in self._live() if run.lease is not None]
        if not runs:
            return True
        sent_at = trio.current_time()
        try:
            with self._patience():
                answers = await self._backend.heartbeat([run.lease for run in runs if run.lease is not None])
        except (AgentAppError, trio.TooSlowError, OSError) as exc:
            if self._reachable:
                logger.warning("the leases of %d runs could not be renewed: %s", len(runs), exc)
            self._reachable = False
            return False
        except Exception:
            logger.exception("the leases of %d runs could not be renewed", len(runs))
            return False
        if not self._reachable:
            logger.warning("leases are renewed again")
        self._reachable = True
        for run, answer in zip(runs, answers, strict=True):
            if answer is not Renewal.LOST:
                self._renewed(run, sent_at)
            self.learn(run, answer)
        return True

    def learn(self, run: Run, answer: Renewal) -> None:
        """Do what a renewal, or whoever else asked about the lease, has told."""
        if answer is Renewal.LOST:
            run.stop(Cause.LEASE_LOST)
        elif answer is Renewal.STOP:
            run.stop(Cause.STOPPED)

    def _patience(self) -> AbstractContextManager[object]:
        """For one call, which is repeated if it fails; a backend whose leases do not end may take its time."""
        return nullcontext() if self._timings is None else trio.fail_after(PATIENCE * self._timings.call_timeout)

    def _renewed(self, run: Run, sent_at: float) -> None:
        if self._timings is None:
            return
        body_until = sent_at + self._timings.cutoff
        run.renewed_at = sent_at
        run.renew(body_until=body_until, cleanup_until=body_until + self._timings.offline_cleanup)

    def hear(self, signal: StopSignal | Resync, run: Run | None) -> None:
        """A signal arrived, for `run` if that is one of ours."""
        if isinstance(signal, Resync):
            self._due.set()
        # A signal may overtake the answer to its run's claim: the token is not known then.
        elif run is not None and run.token in (0, signal.token):
            run.stop(Cause.STOPPED)


def _suspended() -> float:
    """Seconds this machine has been suspended since its start; does not move where that is not told."""
    boot_time = getattr(time, "CLOCK_BOOTTIME", None)
    return 0.0 if boot_time is None else time.clock_gettime(boot_time) - time.monotonic()
