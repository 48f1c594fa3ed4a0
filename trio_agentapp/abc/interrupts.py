"""The contract of interrupt backends: who may run for a session, and how a stop reaches its run.

Three races decide how a backend must work.

Lease against deadline. A lease is a deadline on two clocks. The owner cancels its handler when its own clock says
that the last confirmed renewal is too old; the backend gives the session to another run when its own clock says
that the lease has expired. `Timings` keeps the first moment before the second, so two runs of a session never
overlap, although no clock is compared with another one. A paused owner may still write late: its fencing token is
then too small.

Stop against claim. A stop may reach the backend before the claim of its run. If the run is known, the stop is kept
with it; otherwise a tombstone is kept, and the claim finds it. Both operations are atomic, so one of the two
happens, and no stop is lost between them.

First writer wins. The owner and the backend may both end a run, when a lease expires during the last write. The
first terminal state stays. `finish` returns it, and the owner shows that one, so no client sees two endings of a
run.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType

import attrs
import trio

from ..protocol.ids import SessionKey
from ..protocol.lifecycle import Cause, Ending, RunRecord, RunState, SessionStatus
from ..protocol.timings import Timings

__all__ = [
    "MAX_INPUT",
    "MAX_QUEUED",
    "BaseInterruptBackend",
    "Busy",
    "Claim",
    "Ended",
    "Granted",
    "InputAnswer",
    "InputSignal",
    "Lease",
    "Place",
    "QueueIsFull",
    "Queued",
    "Renewal",
    "Resync",
    "Signal",
    "StopAnswer",
    "StopOutcome",
    "StopSignal",
    "Taken",
]

MAX_QUEUED = 16
"""Runs that may wait for one session. Further ones are refused (`queue_full`)."""

MAX_INPUT = 64
"""Messages that may wait for one run. Further ones are refused (`queue_full`)."""


class Place(StrEnum):
    """Where a run waits if its session is busy."""

    LAST = "last"
    """At the end of the queue."""
    FIRST = "first"
    """Before all runs with the place LAST, after earlier runs with the place FIRST."""


@attrs.frozen(kw_only=True)
class Lease:
    """The right of one node to run one run of a session, from its claim to its finish.

    Attributes:
        nonce: identifies one claim. It is the same when a claim is repeated because its answer was lost.
        token: the fencing token; 0 until the claim was answered.
        place: where the run waits if the session is busy; None: it does not wait. Each further claim keeps the
            place.
        fallback_events: the last events of the run (JSON) by cause, with the terminal event at the end. A backend
            that ends the run without its owner appends them to the run's events, and sets the number and the time
            (`completed_at`, which is 0) of the terminal event. Empty if the backend's server keeps no events.
    """

    key: SessionKey
    run_id: str
    node_id: str
    nonce: str
    token: int = 0
    place: Place | None = None
    fallback_events: Mapping[Cause, Sequence[bytes]] = attrs.field(default=MappingProxyType({}), hash=False)

    @property
    def opening(self) -> Sequence[bytes]:
        """The first events of a run that ends in the queue. Without the session it could not write them itself."""
        return self.fallback_events.get(Cause.STOPPED_BEFORE_START, [])[:-1]

    def is_claim_of(self, owner: Lease) -> bool:
        """Whether the claim of this lease is the one that owns the session as `owner`.

        Without a token the answer to the claim was lost; then node and nonce identify it.
        """
        if self.token:
            return (self.run_id, self.token) == (owner.run_id, owner.token)
        return (self.run_id, self.node_id, self.nonce) == (owner.run_id, owner.node_id, owner.nonce)

    def with_token(self, token: int) -> Lease:
        """Return this lease as it was granted. Ten times as fast as `attrs.evolve`, once or twice for each run."""
        return Lease(
            key=self.key,
            run_id=self.run_id,
            node_id=self.node_id,
            nonce=self.nonce,
            token=token,
            place=self.place,
            fallback_events=self.fallback_events,
        )

    def record_of_start(self, token: int) -> RunRecord:
        """Return the record of the run when it is granted its session."""
        return RunRecord(
            run_id=self.run_id,
            key=self.key,
            state=RunState.RUNNING,
            token=token,
            node_id=self.node_id,
            started_at=time.time(),
        )

    def record_of_end(self, ending: Ending, live: RunRecord | None = None) -> RunRecord:
        """Return the record of the run when it has ended. `live` is its record before; None: it never started."""
        return RunRecord(
            run_id=self.run_id,
            key=self.key,
            state=ending.state,
            reason=ending.cause.value,
            token=live.token if live is not None else self.token,
            node_id=self.node_id,
            started_at=live.started_at if live is not None else None,
            ended_at=time.time(),
            stop_requested=ending.stop_requested or (live is not None and live.stop_requested),
            cleanup=ending.cleanup,
            cleanup_interrupted=ending.cleanup_interrupted,
        )


@attrs.frozen
class Granted:
    """The run owns the session. `token` is greater than all earlier tokens of this session."""

    token: int


@attrs.frozen
class Busy:
    """Run `run_id` owns the session. Another claim makes sense after `retry_after` seconds."""

    run_id: str
    retry_after: float


@attrs.frozen
class Queued:
    """The run has a place in the queue of the session; run `run_id` is before it.

    A place that is not claimed again for the length of a lease is lost. `ahead`: queued runs before this one.
    """

    run_id: str
    ahead: int


@attrs.frozen
class QueueIsFull:
    """`MAX_QUEUED` runs wait for the session. Run `run_id` owns it, or is the next one."""

    run_id: str


@attrs.frozen
class Ended:
    """The run has a terminal state already: it was stopped before its start, or is over."""

    state: RunState
    reason: str | None


@attrs.frozen
class Taken:
    """The run id belongs to a run of another session."""


Claim = Granted | Busy | Queued | QueueIsFull | Ended | Taken
"""The answers to a claim."""


class Renewal(StrEnum):
    """The answer to the renewal of one lease."""

    OK = "ok"
    STOP = "stop"
    """Renewed; a stop was requested."""
    LOST = "lost"
    """Another run owns the session, the run has ended, or it is unknown. Its handler must be cancelled."""


class StopOutcome(StrEnum):
    """What a stop request did."""

    ACCEPTED = "accepted"
    """The session's current run is being stopped, by this request or an earlier one."""
    PENDING = "pending"
    """The named run is unknown, or waits in the queue. If it claims its session, it ends then."""
    ENDED = "ended"
    """The named run is over."""
    NOT_RUNNING = "not_running"
    """The session has no run now. Nothing was stored."""


@attrs.frozen(kw_only=True)
class StopAnswer:
    """The answer to a stop request.

    ACCEPTED and ENDED have the run id, the state and the node of the run's record. PENDING has the run id of the
    request and no node. NOT_RUNNING has only the state of the session's last run; IDLE if it never had one.
    """

    outcome: StopOutcome
    run_id: str | None = None
    state: RunState = RunState.IDLE
    node_id: str | None = None


@attrs.frozen
class StopSignal:
    """A stop was requested for the run that owns its session under `token`."""

    run_id: str
    token: int


@attrs.frozen
class InputSignal:
    """A message for a run can be fetched with `RunInbox.take_input`."""

    run_id: str


@attrs.frozen
class Resync:
    """Signals may have been lost. The node reads again everything that a signal could have reported."""


Signal = StopSignal | InputSignal | Resync


class InputAnswer(StrEnum):
    """What became of a message for a run."""

    OK = "ok"
    FULL = "full"
    """`MAX_INPUT` messages wait for the run."""
    GONE = "gone"
    """The run is not running."""


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
        """Whether the backend has an optional part. A backend that wraps another one answers for that one."""
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
        """Ask for the end of a session's current run, or of one run.

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
