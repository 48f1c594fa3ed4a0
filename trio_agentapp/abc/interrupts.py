"""The contract of interrupt backends, which grant sessions to runs and carry stops to the nodes of the runs.

Three races decide how a backend must work.

Lease against deadline. A lease is a deadline on two clocks. The owner cancels its handler when its own clock says
that the last confirmed renewal is too old; the backend gives the session to another run when its own clock says
that the lease has expired. `Timings` makes the first moment earlier than the second, so two runs of a session never
overlap, although the two clocks are never compared. A paused owner may still write too late. Stores refuse that
write, because its fencing token is smaller than that of the next run.

Stop against claim. A stop may reach the backend before the claim of its run. If the run is known, the stop is kept
with it; otherwise a tombstone is kept, and the claim finds it. Both operations are atomic, so one of the two
happens, and no stop is lost between them.

First writer wins. The owner and the backend may both end a run, when a lease expires during the last write. The
first terminal state stays. `finish` returns it, and the owner shows that one, so no client sees two endings of a
run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import trio

from ..protocol.ids import SessionKey
from ..protocol.lifecycle import Ending, RunRecord, SessionStatus
from ..protocol.timings import Timings
from .interrupt_answers import Claim, Renewal, Signal, StopAnswer
from .lease import Lease

__all__ = ["BaseInterruptBackend"]


class BaseInterruptBackend(ABC):
    """Carries leases and stop requests between the nodes of an app. See `tests/interrupts/toy_backend.py`.

    A backend has seven operations: `claim`, `heartbeat`, `request_stop`, `finish`, `run_status`, `status` and
    `listen`. Everything else is optional: the classes in `capabilities.py`, which a backend names as further bases.

    Each operation is atomic, and a caller may repeat it: it repeats a call whose answer was lost. An operation that
    cannot reach its storage raises `BackendUnavailable`. The caller then assumes nothing, and starts nothing.

    S1 to S5 below are the guarantees of `docs/reference/interrupt-protocol.md`; the questions of
    `trio_agentapp.testing.check_interrupt_backend` follow from them.

    `timings` says how long a lease lasts and how often it is renewed. None: leases do not expire, which is right
    only if an owner cannot die without its backend.
    """

    timings: Timings | None = None

    def offers(self, capability: type[object]) -> bool:
        """Return whether the backend has an optional part.

        A backend that wraps another one returns the answer of that one.
        """
        return isinstance(self, capability)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the backend's own tasks, such as connections, until cancelled. By default there are none.

        It has started before any other operation is called, and is cancelled after all of them. An exception
        before it has started is a failure of the app's start.
        """
        task_status.started()
        await trio.sleep_forever()

    @property
    def trouble(self) -> str | None:
        """Why no run can be started now, for the readiness probe; None if runs can be started."""
        return None

    @abstractmethod
    async def claim(self, lease: Lease) -> Claim:
        """Ask for the session of `lease`.

        The first line that applies is the answer:

        1. The run id belongs to a run of another session, live or ended: `Taken`. Nothing changes.
        2. The run has ended: `Ended`, with the state and the reason of its record.
        3. A tombstone of `request_stop` is for this run: `Ended`, even if the session is busy. The claim writes the
           run's record: `lease.record_of_end(Ending(cause=Cause.STOPPED_BEFORE_START, stop_requested=True))`.
        4. This claim owns the session already (same run, node and nonce; `Lease.is_claim_of`): `Granted`, with the
           same token.
        5. The session has an owner, which may be the same run with another nonce: `Busy`.
        6. `Granted`. The session has this owner until `finish` (S1), and the run's record is
           `lease.record_of_start(token)`. The token is greater than all earlier tokens of the session, also after
           its records have expired (S5).

        A backend with a queue answers a claim with `lease.place` for a busy session with `Queued`, or with
        `QueueIsFull` if `MAX_QUEUED` runs wait. It grants queued runs in the order of their places, and no other
        run before them; `finish` removes a run from the queue. A queued run has a record with the state IDLE. A
        second claim of its id with another nonce gets `Busy`, and does not take its place.
        """

    @abstractmethod
    async def heartbeat(self, leases: Sequence[Lease]) -> Sequence[Renewal]:
        """Renew leases, in one round trip. There is one answer for each lease, in the same order.

        It is LOST unless the lease owns its session (`Lease.is_claim_of`).
        """

    @abstractmethod
    async def request_stop(
        self, key: SessionKey | None, run_id: str | None = None, *, user_id: str | None = None
    ) -> StopAnswer:
        """Request the end of a session's current run, or of the run with an id.

        A stop affects only the run that it was accepted for (S4).

        - Without `run_id` that is the run that owns the session now: ACCEPTED. If there is none, nothing is stored:
          NOT_RUNNING.
        - With `run_id` it is that run: ACCEPTED if it owns its session, ENDED if it has ended. If it is unknown, or
          is queued, a tombstone is kept for 60 s: PENDING.
        - Without `key` the run id alone names the run, of any session. `user_id`, if given, must be its user.
        - A known run of another session or user is not touched, and no tombstone is kept. The answer is PENDING, as
          for an unknown run: it reveals nothing about the run.

        A tombstone consists of the run id and of what the request named with it: the session, the user, or neither.
        `claim` applies it to a run with this id of that session, of a session of that user, or of any session.
        Tombstones that name different sessions or users are kept beside each other. Otherwise the stop of one user
        could replace that of another.

        An accepted stop is part of the run's record (`stop_requested`), which stays RUNNING, and a `StopSignal` is
        sent to the run's node. A repeated stop gets the same answer and changes nothing.

        Raises:
            ValueError: neither `key` nor `run_id` was given.
        """

    @abstractmethod
    async def finish(self, lease: Lease, ending: Ending) -> RunRecord:
        """Write the terminal state of a run, and free its session. Return the run's record.

        The first terminal state stays (S2): the caller must adopt the state of the record that is returned.

        The first line that applies is what happens:

        1. The run id belongs to a run of another session: nothing. Return `lease.record_of_end(ending)`, which is
           not kept.
        2. The run has ended: nothing. Its record is returned.
        3. The run is running, and another claim owns its session (`Lease.is_claim_of`; a lease has no token if the
           answer to its claim was lost): nothing. Its record is returned.
        4. The record becomes `lease.record_of_end(ending, live)`, where `live` is the record so far. The session is
           free, if this claim owns it. A run without a record gets one, so that its claim ends if it arrives later.
        """

    @abstractmethod
    async def run_status(self, run_id: str) -> RunRecord | None:
        """Return the record of a run; None if it is unknown, or was forgotten (10 min after its end)."""

    @abstractmethod
    async def status(self, key: SessionKey) -> SessionStatus:
        """Return state, run id and node of the run that owns the session, or was the last one to own it.

        The state is RUNNING if and only if that run has no terminal state yet (S3), also while it is being stopped.
        A session that no run has owned has `SessionStatus()`.
        """

    @abstractmethod
    async def listen(
        self,
        node_id: str,
        deliver: Callable[[Signal], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Deliver the signals for runs of `node_id` until cancelled. It has started once signals arrive.

        `deliver` is synchronous and does not raise. Signals only shorten the time until the next heartbeat, so they
        may be lost. A backend that knows of lost signals delivers a `Resync`.
        """

    async def aclose(self) -> None:
        """Release resources. It is called once, after all other operations."""
        await trio.lowlevel.checkpoint()
