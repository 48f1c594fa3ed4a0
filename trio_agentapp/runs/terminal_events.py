"""The last events of a run, made from its ending or from its record."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import attrs

from ..protocol.builder import MAX_ANSWER_BYTES, ResponseBuilder
from ..protocol.codec import encode_event
from ..protocol.events import Event, Failure, ResponseEvent, Status
from ..protocol.lifecycle import Cause, Ending, RunRecord, RunState
from ..protocol.text import describe_exception
from .failures import printable

__all__ = [
    "adopted",
    "error_message",
    "event_from_record",
    "fallback_terminal_events",
    "numbered_from",
    "restated",
    "terminal_events",
]

MESSAGES = {
    Cause.EXCEPTION: "The agent failed.",
    Cause.REJECTED: "The agent has rejected the request.",
    Cause.DEADLINE_EXCEEDED: "The run took longer than its timeout.",
    Cause.ANSWER_TOO_LARGE: f"The answer is larger than {MAX_ANSWER_BYTES:,} bytes, the limit for one run.",
    Cause.LEASE_LOST: "The node that executed this run lost its lease.",
    Cause.CLEANUP_TIMEOUT: "The run was stopped, and its cleanup exceeded the cleanup budget.",
    Cause.OWNER_LOST: "The node that executed this run is gone.",
    Cause.CLAIM_FAILED: "The session could not be claimed.",
}


def error_message(cause: Cause, error: BaseException | None, *, debug: bool) -> str:
    """Return the error message for the client.

    It has the text of a rejection; that of an exception in debug mode only.
    """
    if cause is Cause.REJECTED and error is not None:
        return str(printable(error)) or MESSAGES[cause]
    if debug and cause is Cause.EXCEPTION and error is not None:
        return describe_exception(printable(error))
    return MESSAGES.get(cause, "")


def adopted(ending: Ending, record: RunRecord) -> Ending:
    """Return the ending that the backend has recorded: another one if another node wrote it before."""
    if record.state is ending.state and record.reason == ending.cause:
        return ending
    if not record.state.terminal or record.reason not in list(Cause):
        return ending
    return attrs.evolve(ending, cause=Cause(record.reason))


def terminal_events(builder: ResponseBuilder, ending: Ending, message: str = "") -> Sequence[Event]:
    """Return the last events of a run: those that close open messages, then the terminal event."""
    now = int(time.time())
    match ending.state:
        case RunState.FINISHED:
            return builder.complete(completed_at=now)
        case RunState.STOPPED:
            return builder.stop(ending.cause.value, completed_at=now)
        case _ if ending.cause is Cause.REJECTED:
            return builder.reject(ending.cause.value, message or MESSAGES[ending.cause], completed_at=now)
        case _:
            return builder.fail(ending.cause.value, message or MESSAGES[ending.cause], completed_at=now)


def numbered_from(number: int, events: Sequence[Event]) -> Sequence[Event]:
    """Return the events with numbers from `number` on. So events that were made and never sent leave no gap."""
    if not events or events[0].sequence_number == number:
        return events
    return [attrs.evolve(event, sequence_number=number + place) for place, event in enumerate(events)]


def _status(ending: Ending) -> tuple[Status, Failure | None]:
    match ending.state:
        case RunState.FINISHED:
            return "completed", None
        case RunState.STOPPED:
            return "canceled", Failure("stopped", ending.cause.value)
        case _ if ending.cause is Cause.REJECTED:
            return "rejected", Failure(ending.cause.value, MESSAGES[ending.cause])
        case _:
            return "failed", Failure(ending.cause.value, MESSAGES[ending.cause])


def restated(event: ResponseEvent, ending: Ending) -> ResponseEvent:
    """Return a terminal event with the status and the error of another ending."""
    status, failure = _status(ending)
    return attrs.evolve(event, status=status, error=failure)


def fallback_terminal_events(builder: ResponseBuilder) -> Mapping[Cause, Sequence[bytes]]:
    """Return the last events of a run, encoded, for the case that another node ends it.

    That node sets number and time.
    """
    lost = _bare(builder.id, builder.session_id, builder.created_at, 0, 0, Ending(cause=Cause.OWNER_LOST))
    fresh = ResponseBuilder(builder.run_id, builder.session_id, created_at=builder.created_at)
    never_started = [*fresh.start(), *fresh.stop(Cause.STOPPED_BEFORE_START.value, completed_at=0)]
    return {
        Cause.OWNER_LOST: [encode_event(lost)],
        Cause.STOPPED_BEFORE_START: [encode_event(event) for event in never_started],
    }


def event_from_record(record: RunRecord, sequence_number: int) -> ResponseEvent:
    """Return the terminal event of a run whose events are lost, made from its record."""
    cause = Cause(record.reason) if record.reason in list(Cause) else Cause.OWNER_LOST
    ended_at = int(record.ended_at or time.time())
    started_at = int(record.started_at or ended_at)
    id = "response_" + record.run_id
    return _bare(id, record.key.session_id, started_at, ended_at, sequence_number, Ending(cause=cause))


def _bare(
    id: str, session_id: str | None, created_at: int, completed_at: int, sequence_number: int, ending: Ending
) -> ResponseEvent:
    status, failure = _status(ending)
    return ResponseEvent(
        sequence_number=sequence_number,
        status=status,
        id=id,
        created_at=created_at,
        completed_at=completed_at,
        session_id=session_id,
        error=failure,
    )
