"""The life of a run: its states, what moves it from one to the next, and the receipts that tell of it.

INTERRUPT-PROTOCOL, section 10, as a table. A run is RUNNING from its claim to its terminal state, whatever it is
doing meanwhile (`Phase`); terminal states have no way out.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

import attrs

from .ids import SessionKey

__all__ = [
    "TRANSITIONS",
    "Cause",
    "CleanupResult",
    "Ending",
    "IllegalTransition",
    "Phase",
    "RunRecord",
    "RunState",
    "SessionStatus",
    "StopReceipt",
    "next_state",
]


class RunState(StrEnum):
    """State of a run, and of the session whose current run it is."""

    IDLE = "IDLE"
    """No run yet."""
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    FINISHED = "FINISHED"
    ERROR = "ERROR"

    @property
    def terminal(self) -> bool:
        return self in (RunState.STOPPED, RunState.FINISHED, RunState.ERROR)


class Phase(StrEnum):
    """What the owner of a run is doing with it; in all but ENDED the session is RUNNING."""

    RUNNING = "running"
    STOPPING = "stopping"
    FINISHING = "finishing"
    ENDED = "ended"


class Cause(StrEnum):
    """Why a run changed its state. The value is the `reason` of the run record."""

    CLAIMED = "claimed"
    RETURNED = "returned"
    STOPPED = "stopped"
    DISCONNECTED = "disconnected"
    SHUTDOWN = "shutdown"
    STOPPED_BEFORE_START = "stopped_before_start"
    EXCEPTION = "exception"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    ANSWER_TOO_LARGE = "answer_too_large"
    LEASE_LOST = "lease_lost"
    CLEANUP_TIMEOUT = "cleanup_timeout"
    OWNER_LOST = "owner_lost"
    CLAIM_FAILED = "claim_failed"


TRANSITIONS: Mapping[tuple[RunState, Cause], RunState] = MappingProxyType(
    {
        (RunState.IDLE, Cause.CLAIMED): RunState.RUNNING,
        (RunState.IDLE, Cause.STOPPED_BEFORE_START): RunState.STOPPED,
        (RunState.IDLE, Cause.CLAIM_FAILED): RunState.ERROR,
        (RunState.RUNNING, Cause.RETURNED): RunState.FINISHED,
        (RunState.RUNNING, Cause.STOPPED): RunState.STOPPED,
        (RunState.RUNNING, Cause.DISCONNECTED): RunState.STOPPED,
        (RunState.RUNNING, Cause.SHUTDOWN): RunState.STOPPED,
        (RunState.RUNNING, Cause.EXCEPTION): RunState.ERROR,
        (RunState.RUNNING, Cause.DEADLINE_EXCEEDED): RunState.ERROR,
        (RunState.RUNNING, Cause.ANSWER_TOO_LARGE): RunState.ERROR,
        (RunState.RUNNING, Cause.LEASE_LOST): RunState.ERROR,
        (RunState.RUNNING, Cause.CLEANUP_TIMEOUT): RunState.ERROR,
        (RunState.RUNNING, Cause.OWNER_LOST): RunState.ERROR,
    }
)


class IllegalTransition(Exception):
    """A bug of the runtime: a state was to be left in a way that does not exist."""


def next_state(state: RunState, cause: Cause) -> RunState:
    """The state that `cause` leads to from `state`.

    Raises:
        IllegalTransition: there is no such way; terminal states have none.
    """
    try:
        return TRANSITIONS[state, cause]
    except KeyError:
        raise IllegalTransition(f"{cause.value} cannot happen to a run that is {state.value}") from None


class CleanupResult(StrEnum):
    """What became of a run's cleanup: `run.cleanup()`, exit callbacks and shielded writes."""

    NONE = "none"
    DONE = "done"
    TIMED_OUT = "timed_out"


@attrs.frozen(kw_only=True)
class Ending:
    """How a run ended: its terminal state and the facts that go into its record."""

    cause: Cause
    cleanup: CleanupResult = CleanupResult.NONE
    cleanup_interrupted: bool = False
    """An unshielded await of the handler's cleanup was cut by the stop (a hint, not a proof)."""
    stop_requested: bool = False
    terminal_event: bytes | None = None
    """Its JSON, where the server that keeps the state keeps the events too: both are written as one."""

    @property
    def state(self) -> RunState:
        before = RunState.IDLE if (RunState.IDLE, self.cause) in TRANSITIONS else RunState.RUNNING
        return next_state(before, self.cause)


@attrs.frozen(kw_only=True)
class RunRecord:
    """What is kept of a run; times are Unix seconds."""

    run_id: str
    key: SessionKey
    state: RunState
    reason: str | None = None
    token: int = 0
    node_id: str = ""
    started_at: float | None = None
    ended_at: float | None = None
    stop_requested: bool = False
    cleanup: CleanupResult = CleanupResult.NONE
    cleanup_interrupted: bool = False


@attrs.frozen(kw_only=True)
class SessionStatus:
    """State of a session: that of its current or last run."""

    state: RunState = RunState.IDLE
    run_id: str | None = None
    node_id: str | None = None
    last_activity: float | None = None
    """Unix seconds; None: never seen, or forgotten."""


@attrs.frozen(kw_only=True)
class StopReceipt:
    """What a stop did.

    `accepted`: there was a run to stop (or one to come, by its run id), and it will be.
    `stopped`: the run has ended, and because of a stop; without `wait` this is known only if it had ended before.
    `latency_ms`: from the call to its answer.
    """

    accepted: bool
    stopped: bool
    run_id: str | None
    state: RunState
    node: str | None = None
    latency_ms: float = 0.0
    cleanup: CleanupResult = CleanupResult.NONE
