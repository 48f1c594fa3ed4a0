"""The life of a run: what can happen to it, in which order, and what is recorded of its end.

`RunLifecycle` is a state machine without I/O and without a clock. Each thing that happens to a run is one call of
a method: the events `queued`, `claimed`, `refused`, `stop_requested`, `deadline`, `lease_lost`, `returned`,
`raised`, `unwound` and `ended`. Nothing else changes the state of a run. The rest of the runtime reads the
attributes.

Two facts about a run are easily confused. Its *phase* is what the node that executes it is doing with it. Its
*state* is what every node sees in the backend: IDLE until the run owns its session, RUNNING from then on, then one
terminal state for ever. Five rules decide everything below.

**The first cause wins.** Several things may end a run at almost the same time: a stop, its own deadline, a lost
lease, the return of its handler. The one that is reported first is the cause; later ones change nothing. So a
handler that raises while it is being stopped is a stopped run, and a stop that arrives after the handler has
returned does not turn a finished answer into a canceled one. Such a late stop is still noted in `asked_to_stop`,
because a stop receipt has to say that the stop was accepted and came too late.

**A stop may arrive before the claim is answered.** A run is registered before it asks for its session, so that a
stop never misses it. While the answer is outstanding, it is not known whether there will be a run at all. The stop
is therefore kept, and takes effect as soon as the claim is granted: the run goes to STOPPING, and its handler
never starts. If the claim is refused, there was no run, and nothing is recorded.

**A lease is a deadline.** The right to a session ends by the server's clock, also for a node that is paused or cut
off and gets no message about it. The node therefore sets a deadline on the run's cancel scope, counted from the
moment at which it *sent* its last confirmed renewal. The run's own time limit is a deadline on the same scope.
When the scope is cancelled by time, the earlier of the two was the reason: `deadline` or `lease_lost`. Trio
cancels without a call to this class. Therefore an expired deadline must be reported before any other event
(`StoppableScope`).

**Cleanup is bounded.** After a stop, the handler's cleanup code may await for the cleanup budget. The budget
counts from the first stop (`stopped_at`), or from the end of the handler (`body_ended_at`) if it was not stopped.
A second stop does not extend it. Cleanup that exceeds the budget is cut, and the run ends as
ERROR/cleanup_timeout, whatever the cause was. A run that has still not unwound a second later is *stuck*: it is
reported, and keeps its session, because its code is still running.

**The first record wins.** The terminal state is written by the owner, unless another node has written it before
because the lease had expired. `ended` takes the ending that the backend kept, which may differ from `cause`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum, auto
from types import MappingProxyType

import attrs

from .ids import SessionKey

__all__ = [
    "ENDS",
    "TRANSITIONS",
    "Cause",
    "CleanupResult",
    "Ending",
    "Event",
    "IllegalTransition",
    "Phase",
    "RunLifecycle",
    "RunRecord",
    "RunState",
    "SessionStatus",
    "StopReceipt",
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
    """What the node that executes a run is doing with it."""

    CLAIMING = "claiming"
    """It has asked for the session and has no answer. Other nodes and clients do not see the run yet."""
    QUEUED = "queued"
    """Another run owns the session; this one has a place in its queue."""
    RUNNING = "running"
    """The run owns its session, and its handler runs or is about to start."""
    STOPPING = "stopping"
    """The handler has been cancelled and is unwinding."""
    FINISHING = "finishing"
    """The handler has ended; child tasks, exit callbacks and the record of the end are left."""
    ENDED = "ended"


class Cause(StrEnum):
    """Why a run ended. The value is the `reason` of the run record."""

    RETURNED = "returned"
    STOPPED = "stopped"
    DISCONNECTED = "disconnected"
    SHUTDOWN = "shutdown"
    STOPPED_BEFORE_START = "stopped_before_start"
    EXCEPTION = "exception"
    REJECTED = "rejected"
    """The handler has refused the request."""
    DEADLINE_EXCEEDED = "deadline_exceeded"
    ANSWER_TOO_LARGE = "answer_too_large"
    LEASE_LOST = "lease_lost"
    CLEANUP_TIMEOUT = "cleanup_timeout"
    OWNER_LOST = "owner_lost"
    CLAIM_FAILED = "claim_failed"


ENDS: Mapping[Cause, RunState] = MappingProxyType(
    {
        Cause.RETURNED: RunState.FINISHED,
        Cause.STOPPED: RunState.STOPPED,
        Cause.DISCONNECTED: RunState.STOPPED,
        Cause.SHUTDOWN: RunState.STOPPED,
        Cause.STOPPED_BEFORE_START: RunState.STOPPED,
        Cause.EXCEPTION: RunState.ERROR,
        Cause.REJECTED: RunState.ERROR,
        Cause.DEADLINE_EXCEEDED: RunState.ERROR,
        Cause.ANSWER_TOO_LARGE: RunState.ERROR,
        Cause.LEASE_LOST: RunState.ERROR,
        Cause.CLEANUP_TIMEOUT: RunState.ERROR,
        Cause.OWNER_LOST: RunState.ERROR,
        Cause.CLAIM_FAILED: RunState.ERROR,
    }
)
"""The terminal state that each cause leads to."""


class Event(Enum):
    """The events of the table of transitions."""

    QUEUED = auto()
    CLAIMED = auto()
    REFUSED = auto()
    STOP = auto()
    """`stop_requested`, `deadline` and `lease_lost`: they differ only in their cause."""
    RETURNED = auto()
    RAISED = auto()
    UNWOUND = auto()
    ENDED = auto()


TRANSITIONS: Mapping[Phase, Mapping[Event, Phase]] = MappingProxyType(
    {
        Phase.CLAIMING: {
            Event.QUEUED: Phase.QUEUED,
            Event.CLAIMED: Phase.RUNNING,
            Event.REFUSED: Phase.ENDED,
            Event.STOP: Phase.CLAIMING,  # kept until the claim is answered
            Event.ENDED: Phase.ENDED,  # stopped before its start
        },
        Phase.QUEUED: {
            Event.CLAIMED: Phase.RUNNING,
            Event.STOP: Phase.QUEUED,  # kept until the run has left the queue
            Event.ENDED: Phase.ENDED,  # stopped in the queue, or its claim failed
        },
        Phase.RUNNING: {
            Event.STOP: Phase.STOPPING,
            Event.RETURNED: Phase.FINISHING,
            Event.RAISED: Phase.FINISHING,
        },
        Phase.STOPPING: {
            Event.STOP: Phase.STOPPING,  # not the first: ignored
            Event.RETURNED: Phase.FINISHING,
            Event.RAISED: Phase.FINISHING,
        },
        Phase.FINISHING: {
            Event.STOP: Phase.FINISHING,  # too late: ignored
            Event.UNWOUND: Phase.FINISHING,
            Event.ENDED: Phase.ENDED,
        },
        Phase.ENDED: {
            Event.STOP: Phase.ENDED,  # too late: ignored
        },
    }
)
"""For each phase the events that may happen in it, and the phase they lead to. Any other event is a bug."""


class IllegalTransition(Exception):
    """A bug of the runtime: an event was reported in a phase in which it cannot happen. Nothing was changed."""


class RunLifecycle:
    """The state of one run. Read the attributes; change them only by reporting events.

    An event that `TRANSITIONS` does not allow raises `IllegalTransition` and changes nothing. Stops are allowed in
    every phase, since they come from outside at any time: one that is not the first, or that comes too late, is
    ignored. Moments (`at`) are seconds on any one monotonic clock.

    Attributes:
        phase: what this node is doing with the run.
        cause: the first thing that ended the run, or its handler; never replaced.
        stopped_at: when the first stop took place; None if the handler ended by itself, or still runs.
        body_ended_at: when the handler returned or raised.
        asked_to_stop: a client has asked for a stop, at whatever time.
        has_unwound: nothing of the handler runs any more.
        is_stuck: the run has not unwound within its cleanup budget.
        ending: how the run ended, as it was recorded.
    """

    __slots__ = (
        "asked_to_stop",
        "body_ended_at",
        "cause",
        "ending",
        "has_unwound",
        "is_stuck",
        "phase",
        "stopped_at",
    )

    def __init__(self) -> None:
        self.phase = Phase.CLAIMING
        self.cause: Cause | None = None
        self.stopped_at: float | None = None
        self.body_ended_at: float | None = None
        self.asked_to_stop = False
        self.has_unwound = False
        self.is_stuck = False
        self.ending: Ending | None = None

    @property
    def state(self) -> RunState:
        """The state of the run as the backend has it."""
        if self.phase is Phase.ENDED:
            # Without an ending the claim was refused.
            return RunState.IDLE if self.ending is None else self.ending.state
        return RunState.IDLE if self.phase in (Phase.CLAIMING, Phase.QUEUED) else RunState.RUNNING

    def queued(self) -> None:
        """The session is busy, and the run has a place in its queue."""
        self._advance(Event.QUEUED)

    def claimed(self) -> None:
        """The run owns its session. A stop that came before takes effect now."""
        self._advance(Event.CLAIMED)
        if self.cause is not None:
            self._advance(Event.STOP)

    def refused(self) -> None:
        """The session was not given to the run: there was no run, and nothing is recorded."""
        self._advance(Event.REFUSED)

    def stop_requested(self, cause: Cause, *, at: float) -> bool:
        """Stop the run, because of a client, a disconnect, a shutdown, or a limit of the runtime.

        Returns True if the handler will be, or has been, ended by a stop; False if it ended by itself before.
        """
        in_time = self._stop(cause, at)
        if cause in (Cause.STOPPED, Cause.STOPPED_BEFORE_START):
            self.asked_to_stop = True
        return in_time

    def deadline(self, *, at: float) -> bool:
        """The run's own time limit has passed. Returns what `stop_requested` does."""
        return self._stop(Cause.DEADLINE_EXCEEDED, at)

    def lease_lost(self, *, at: float) -> bool:
        """The right to the session has expired, or belongs to another run. Returns what `stop_requested` does."""
        return self._stop(Cause.LEASE_LOST, at)

    def returned(self, *, at: float) -> None:
        """The handler has returned."""
        self._end_body(Event.RETURNED, Cause.RETURNED, at)

    def raised(self, *, at: float, rejected: bool = False) -> None:
        """The handler has ended with an exception, `Cancelled` included. `rejected`: it refuses the request."""
        self._end_body(Event.RAISED, Cause.REJECTED if rejected else Cause.EXCEPTION, at)

    def unwound(self, *, failed: bool, cleanup_timed_out: bool, interrupted: bool = False) -> Cause:
        """Nothing of the handler runs any more, its child tasks and exit callbacks included.

        Args:
            failed: one of them raised.
            cleanup_timed_out: the cleanup budget was exceeded.
            interrupted: it was Ctrl-C, in a program without a server.

        Returns:
            The cause to record. It differs from `cause` if something went wrong after the handler had ended.
        """
        self._advance(Event.UNWOUND)
        self.has_unwound = True
        self.is_stuck = False
        assert self.cause is not None  # noqa: S101  the handler has ended
        if cleanup_timed_out:
            return Cause.CLEANUP_TIMEOUT
        if interrupted:
            return Cause.SHUTDOWN
        if failed and self.cause is Cause.RETURNED:
            return Cause.EXCEPTION
        return self.cause

    def ended(self, ending: Ending) -> None:
        """The end of the run is recorded. Happens once."""
        self._advance(Event.ENDED)
        self.ending = ending

    def found_stuck(self) -> bool:
        """The cleanup budget has passed. Returns True if the run has not unwound, and this was not known yet."""
        if self.is_stuck or self.has_unwound or self.phase is Phase.ENDED:
            return False
        self.is_stuck = True
        return True

    def _advance(self, event: Event) -> None:
        following = TRANSITIONS[self.phase].get(event)
        if following is None:
            raise IllegalTransition(f"{event.name} cannot happen to a run that is {self.phase.value}")
        self.phase = following

    def _stop(self, cause: Cause, at: float) -> bool:
        self._advance(Event.STOP)
        if self.phase in (Phase.FINISHING, Phase.ENDED):
            return False
        if self.cause is None:
            self.cause = cause
            self.stopped_at = at
        return True

    def _end_body(self, event: Event, cause: Cause, at: float) -> None:
        self._advance(event)
        self.body_ended_at = at
        if self.cause is None:
            self.cause = cause


class CleanupResult(StrEnum):
    """The result of a run's cleanup: `run.cleanup()`, exit callbacks and shielded writes."""

    NONE = "none"
    DONE = "done"
    TIMED_OUT = "timed_out"


@attrs.frozen(kw_only=True)
class Ending:
    """How a run ended: its terminal state and the facts that go into its record."""

    cause: Cause
    cleanup: CleanupResult = CleanupResult.NONE
    cleanup_interrupted: bool = False
    """The stop cancelled an unshielded await in the handler's cleanup. Not all such awaits are found."""
    stop_requested: bool = False
    terminal_event: bytes | None = None
    """The JSON of the terminal event, if one server keeps both the state and the events.

    Then both are written in one step. Its `completed_at` is 0, and the server sets it to the time of the record.
    """

    @property
    def state(self) -> RunState:
        return ENDS[self.cause]


@attrs.frozen(kw_only=True)
class RunRecord:
    """What a backend keeps of a run. Times are Unix seconds."""

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
    questions: bytes = b""
    """The open questions of the run, as its node has written them: a JSON array. Empty if none is open."""


@attrs.frozen(kw_only=True)
class SessionStatus:
    """State of a session: that of its current or last run."""

    state: RunState = RunState.IDLE
    run_id: str | None = None
    node_id: str | None = None
    last_activity: float | None = None
    """Unix seconds; None if the session is unknown."""


@attrs.frozen(kw_only=True)
class StopReceipt:
    """What a stop did.

    `accepted`: there is a run to stop, or the named run may still start; it will be stopped.
    `stopped`: the run has ended because of a stop. Without `wait` this is known only if it had ended before.
    `latency_ms`: from the call to its answer.
    """

    accepted: bool
    stopped: bool
    run_id: str | None
    state: RunState
    node: str | None = None
    latency_ms: float = 0.0
    cleanup: CleanupResult = CleanupResult.NONE
