"""The contract of interrupt backends: leases, stops, and what else passes between nodes about runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from types import MappingProxyType

import attrs
import trio

from ..errors import NotOffered
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
"""Runs that may wait for one session; more are refused (`queue_full`)."""

MAX_INPUT = 64
"""Messages that may wait for one run to receive them; more are refused (`queue_full`)."""


class Place(StrEnum):
    """Where a run wants to wait if its session is busy."""

    LAST = "last"
    """In line."""
    FIRST = "first"
    """Before all that wait in line, after those that asked for this before."""


@attrs.frozen(kw_only=True)
class Lease:
    """The right of one node to run one run of a session, from its claim to its finish.

    `nonce` is fresh for each claim that is meant as a new one, and repeated when its answer was lost.
    `token` is 0 as long as no answer is known. `place`: wait for the session, if need be; each further claim keeps
    the place. `farewells`: last events (JSON) by cause, the terminal one at the end; whoever ends this run without
    its owner appends them to its events, and numbers the terminal one. Empty where the backend's server keeps no
    events.
    """

    key: SessionKey
    run_id: str
    node_id: str
    nonce: str
    token: int = 0
    place: Place | None = None
    farewells: Mapping[Cause, Sequence[bytes]] = attrs.field(default=MappingProxyType({}), hash=False)

    @property
    def opening(self) -> Sequence[bytes]:
        """The first events of a run that ends in line: it has shown them, without leave to write them."""
        return self.farewells.get(Cause.STOPPED_BEFORE_START, [])[:-1]


@attrs.frozen
class Granted:
    """The session is owned; `token` is greater than every earlier one of this session."""

    token: int


@attrs.frozen
class Busy:
    """Another run owns the session; `retry_after` seconds is when it makes sense to ask again."""

    run_id: str
    retry_after: float


@attrs.frozen
class Queued:
    """Another run owns the session, or is before this one; this one has a place while it goes on claiming.

    A place that is not claimed for one lease is lost. `ahead`: runs that wait before this one.
    """

    run_id: str
    ahead: int


@attrs.frozen
class QueueIsFull:
    """As many runs wait for the session as may."""

    run_id: str


@attrs.frozen
class Ended:
    """This run has its terminal state already: it was stopped before its start, or is over."""

    state: RunState
    reason: str | None


@attrs.frozen
class Taken:
    """The run id is that of another session's run: it cannot be this one's too."""


Claim = Granted | Busy | Queued | QueueIsFull | Ended | Taken


class Renewal(StrEnum):
    """Answer to the renewal of one lease."""

    OK = "ok"
    STOP = "stop"
    """Renewed; a stop was requested."""
    LOST = "lost"
    """Owned by another run, ended, or unknown: the body must end."""


class StopOutcome(StrEnum):
    ACCEPTED = "accepted"
    """The session's current run is being stopped (also when it was already)."""
    PENDING = "pending"
    """The named run has not claimed its session yet; it will end when it does."""
    ENDED = "ended"
    """The named run is over."""
    NOT_RUNNING = "not_running"
    """No run of the session runs; nothing was stored."""


@attrs.frozen(kw_only=True)
class StopAnswer:
    outcome: StopOutcome
    run_id: str | None = None
    state: RunState = RunState.IDLE
    """The run's state as the backend knows it; for NOT_RUNNING the session's last one."""
    node_id: str | None = None


@attrs.frozen
class StopSignal:
    """A stop was requested for the run that owns its session under `token`."""

    run_id: str
    token: int


@attrs.frozen
class InputSignal:
    """There is a message for a run, to be had by `take_input`."""

    run_id: str


@attrs.frozen
class Resync:
    """Signals may have been missed: everything that can be re-read must be."""


Signal = StopSignal | InputSignal | Resync


class InputAnswer(StrEnum):
    OK = "ok"
    FULL = "full"
    """As many messages wait for the run as may."""
    GONE = "gone"
    """The run does not run, or not any more."""


class BaseInterruptBackend(ABC):
    """Carries leases and stop signals between processes.

    Every operation is atomic and safe to repeat. What cannot be asked raises `BackendUnavailable`; nothing is
    assumed then. INTERRUPT-PROTOCOL states what must hold; the names S1 to L2 below are its guarantees.

    `timings` says how long leases last and when they are renewed; None: they do not end by themselves.
    """

    timings: Timings | None = None

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own what the backend needs running (connections, a reaper) until cancelled.

        Ready before any other operation is called, cancelled after all. What it raises before it is ready is a
        failure of the start. The default needs nothing.
        """
        task_status.started()
        await trio.sleep_forever()

    @property
    def trouble(self) -> str | None:
        """Why no runs can be started at present, for the readiness probe; None: they can."""
        return None

    @abstractmethod
    async def claim(self, lease: Lease) -> Claim:
        """Ask for the session of `lease`.

        At most one run of a session holds it (S1). A repeated claim with the same run, node and nonce gets the
        same token. A run that was stopped before (its tombstone) ends as STOPPED/stopped_before_start and gets
        `Ended`. A run id that names another session's run gets `Taken`. Tokens of a session only grow, also when
        its records have expired (S5).

        With `lease.place` a busy session gives `Queued`, or `QueueIsFull`; runs that wait are granted in the order
        of their places, and no other run before them. A backend without queues answers Busy all the same. `finish`
        gives a place up.
        """

    @abstractmethod
    async def heartbeat(self, leases: Sequence[Lease]) -> Sequence[Renewal]:
        """Renew leases, in one round trip; one answer each, in order."""

    @abstractmethod
    async def request_stop(
        self, key: SessionKey | None, run_id: str | None = None, *, user_id: str | None = None
    ) -> StopAnswer:
        """Ask for the end of a session's current run, or of one named run.

        A stop affects only the run it was accepted for (S4): without `run_id` the run that owns the session now,
        and nothing is stored where none does; with it that run, also one still to claim (PENDING: a tombstone of
        60 s). With `key` None the run id alone names the run; one not seen yet is stopped when it claims, if its
        user is `user_id` or `user_id` is None. A run of another session or user is never touched: the
        answer is that for an unknown one. Repeating a stop changes nothing.

        Raises:
            ValueError: neither `key` nor `run_id` was given.
        """

    @abstractmethod
    async def finish(self, lease: Lease, ending: Ending) -> RunRecord:
        """Write the terminal state of a run and free its session.

        The first terminal state stays (S2): what is returned is the record that holds, which the caller adopts.
        A lease without a token (its claim's answer was lost) frees the session by node and nonce, and makes a
        claim still on its way end. Never touches a session that another run owns.
        """

    @abstractmethod
    async def run_status(self, run_id: str) -> RunRecord | None:
        """The record of a run, None if unknown or forgotten (10 min after its end)."""

    @abstractmethod
    async def status(self, key: SessionKey) -> SessionStatus:
        """State of a session: RUNNING if and only if its current run has no terminal state (S3)."""

    @abstractmethod
    async def listen(
        self,
        node_id: str,
        deliver: Callable[[Signal], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Deliver the signals for runs of `node_id` until cancelled; started once they would arrive.

        `deliver` is synchronous and does not raise. Signals only shorten waiting: they may be lost, and then a
        `Resync` follows as soon as that is known.
        """

    # What follows is not needed for one run a session and for stops. A backend that leaves it out is whole; what
    # needs it answers `not_offered`, or looks again and again.

    @asynccontextmanager
    async def watching(self, key: SessionKey, wake: Callable[[str], object]) -> AsyncIterator[None]:
        """Call `wake(run_id)` when something has become of a run of this session: it ended, or said something.

        Wake-ups only shorten waiting: they may be lost, also without a word. The default never calls.
        """
        yield

    async def list_runs(
        self, user_id: str, *, before: str | None = None, limit: int = 100
    ) -> tuple[Sequence[RunRecord], str | None]:
        """Runs of a user, the youngest first, and where to go on (`before`); None: there are no more.

        Runs that are forgotten, and runs that never started, are left out.
        """
        raise NotOffered("The interrupt backend of this app does not list runs.")

    async def send_input(self, key: SessionKey, run_id: str, message: bytes) -> InputAnswer:
        """Put a message into the inbox of a run that runs on another node; its owner is told by an InputSignal."""
        raise NotOffered("The interrupt backend of this app does not carry input to other nodes.")

    async def take_input(self, lease: Lease, received: int) -> Sequence[bytes]:
        """The messages that came for a run after its first `received`, in order; to its owner only."""
        await trio.lowlevel.checkpoint()
        return ()

    async def pin(self, name: str, value: str) -> str:
        """Remember `value` under `name`, unless there is one; what is remembered, for an hour at least."""
        raise NotOffered("The interrupt backend of this app does not keep idempotency keys.")

    async def unpin(self, name: str, value: str) -> None:
        """Forget what is remembered under `name`, if it is `value`."""
        raise NotOffered("The interrupt backend of this app does not keep idempotency keys.")

    async def aclose(self) -> None:
        """Release what the backend holds; called once, after everything else."""
        await trio.lowlevel.checkpoint()
