"""What is shown of a run's end."""

from __future__ import annotations

import time
from collections.abc import Sequence

import attrs

from ..protocol.builder import ResponseBuilder
from ..protocol.events import Event
from ..protocol.lifecycle import Cause, Ending, RunRecord, RunState

__all__ = ["adopted", "error_message", "terminal_events"]

MESSAGES = {
    Cause.EXCEPTION: "The agent failed.",
    Cause.DEADLINE_EXCEEDED: "The run took longer than its time-out.",
    Cause.LEASE_LOST: "The node that executed this run lost its right to.",
    Cause.CLEANUP_TIMEOUT: "The run was ended, but its cleanup took longer than its budget.",
    Cause.OWNER_LOST: "The node that executed this run is gone.",
    Cause.CLAIM_FAILED: "The session could not be claimed.",
}


def error_message(cause: Cause, error: BaseException | None, *, debug: bool) -> str:
    """What a client is told of an ERROR: never the words of the exception, unless in debug mode."""
    message = MESSAGES.get(cause, "")
    if debug and cause is Cause.EXCEPTION and error is not None:
        try:
            return f"{type(error).__name__}: {error}"
        except Exception:  # the exception is a user's, and so is its __str__
            return type(error).__name__
    return message


def adopted(ending: Ending, record: RunRecord) -> Ending:
    """The ending that the backend holds for true: the first one written."""
    if record.state is ending.state and record.reason == ending.cause:
        return ending
    if not record.state.terminal or record.reason not in list(Cause):
        return ending
    return attrs.evolve(ending, cause=Cause(record.reason))


def terminal_events(builder: ResponseBuilder, ending: Ending, message: str = "") -> Sequence[Event]:
    """The last events of a run, ending with its one terminal event."""
    now = int(time.time())
    match ending.state:
        case RunState.FINISHED:
            return builder.complete(completed_at=now)
        case RunState.STOPPED:
            return builder.stop(ending.cause.value, completed_at=now)
        case _:
            return builder.fail(ending.cause.value, message or MESSAGES[ending.cause], completed_at=now)
