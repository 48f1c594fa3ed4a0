"""The answers of an interrupt backend, and the signals that it delivers."""

from __future__ import annotations

from enum import StrEnum

import attrs

from ..protocol.lifecycle import RunState

__all__ = [
    "MAX_INPUT",
    "MAX_QUEUED",
    "Busy",
    "Claim",
    "Ended",
    "Granted",
    "InputAnswer",
    "InputSignal",
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
    """The answer to a message for a run."""

    OK = "ok"
    FULL = "full"
    """`MAX_INPUT` messages wait for the run."""
    GONE = "gone"
    """The run is not running."""
