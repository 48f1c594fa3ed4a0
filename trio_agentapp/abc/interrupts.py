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
    """The named run has not claimed its session yet. It ends when it does."""
    ENDED = "ended"
    """The named run is over."""
    NOT_RUNNING = "not_running"
    """The session has no run now. Nothing was stored."""


@attrs.frozen(kw_only=True)
class StopAnswer:
    """The answer to a stop request. `state` is that of the run; for NOT_RUNNING that of the session's last run."""

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

        - At most one run owns a session at a time (S1).
        - A repeated claim of the owner (same run, node and nonce) gets the same token again.
        - A claim of another run, or of the same run with another nonce, gets `Busy`.
        - A run that has ended gets `Ended`. So does a run that was stopped before this claim: the claim writes its
          record, with the state STOPPED and the reason `stopped_before_start`.
        - A run id of another session's run gets `Taken`.
        - Each token is greater than all earlier tokens of the session, also after its records have expired (S5).

        A backend with a queue answers a claim with `lease.place` for a busy session with `Queued`, or with
        `QueueIsFull` if `MAX_QUEUED` runs wait. It grants queued runs in the order of their places, and no other
        run before them; `finish` removes a run from the queue. A backend without a queue answers `Busy`.
        """

    @abstractmethod
    async def heartbeat(self, leases: Sequence[Lease]) -> Sequence[Renewal]:
        """Renew leases, in one round trip. There is one answer for each lease, in the same order."""

    @abstractmethod
    async def request_stop(
        self, key: SessionKey | None, run_id: str | None = None, *, user_id: str | None = None
    ) -> StopAnswer:
        """Ask for the end of a session's current run, or of one run.

        A stop affects only the run that it was accepted for (S4).

        - Without `run_id` that is the run that owns the session now. If there is none, nothing is stored.
        - With `run_id` it is that run. If the run has not claimed its session yet, the answer is PENDING, and the
          stop is kept for 60 s (a tombstone), so that the run ends when it claims.
        - Without `key` the run id alone names the run, of any session. `user_id`, if given, must be its user.
        - A run of another session or user is not touched, and the answer is that for an unknown run.

        A repeated stop changes nothing.

        Raises:
            ValueError: neither `key` nor `run_id` was given.
        """

    @abstractmethod
    async def finish(self, lease: Lease, ending: Ending) -> RunRecord:
        """Write the terminal state of a run, and free its session. Return the run's record.

        The first terminal state stays (S2): the caller must adopt the state of the record that is returned.

        A lease has no token if the answer to its claim was lost. Then node and nonce tell whether this claim owns
        the session, and the record makes the claim end if it arrives only now. A session that another run owns is
        never freed.
        """

    @abstractmethod
    async def run_status(self, run_id: str) -> RunRecord | None:
        """Return the record of a run; None if it is unknown, or was forgotten (10 min after its end)."""

    @abstractmethod
    async def status(self, key: SessionKey) -> SessionStatus:
        """Return the state of a session. It is RUNNING if and only if its run has no terminal state yet (S3)."""

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
