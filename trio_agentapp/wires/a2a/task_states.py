"""The states of a task, by the states of its run.

state               run
SUBMITTED           no event yet: it waits in the queue of its session
WORKING             it is running, and no question is open
INPUT_REQUIRED      a question of `run.ask` is open (AUTH_REQUIRED: one with `auth=True`)
COMPLETED, FAILED,  its terminal event: completed, failed,
CANCELED, REJECTED  canceled, rejected
"""

from __future__ import annotations

import time

from ...protocol.lifecycle import Cause, RunRecord, RunState

__all__ = [
    "AUTH_REQUIRED",
    "CANCELED",
    "COMPLETED",
    "ENDS",
    "FAILED",
    "INPUT_REQUIRED",
    "INTERRUPTED",
    "REJECTED",
    "SUBMITTED",
    "TERMINAL",
    "WORKING",
    "changed_at",
    "state_of_record",
]

SUBMITTED, WORKING = "TASK_STATE_SUBMITTED", "TASK_STATE_WORKING"
COMPLETED, FAILED = "TASK_STATE_COMPLETED", "TASK_STATE_FAILED"
CANCELED, REJECTED = "TASK_STATE_CANCELED", "TASK_STATE_REJECTED"
INPUT_REQUIRED, AUTH_REQUIRED = "TASK_STATE_INPUT_REQUIRED", "TASK_STATE_AUTH_REQUIRED"

TERMINAL = frozenset({COMPLETED, FAILED, CANCELED, REJECTED})
INTERRUPTED = frozenset({INPUT_REQUIRED, AUTH_REQUIRED})

ENDS = {"completed": COMPLETED, "failed": FAILED, "canceled": CANCELED, "rejected": REJECTED}


def state_of_record(record: RunRecord) -> str:
    """The state of the task of a run, as far as its record shows it."""
    match record.state:
        case RunState.IDLE:
            return SUBMITTED
        case RunState.RUNNING:
            return WORKING
        case RunState.FINISHED:
            return COMPLETED
        case RunState.STOPPED:
            return CANCELED
    return REJECTED if record.reason == Cause.REJECTED else FAILED


def changed_at(record: RunRecord) -> float:
    """When the state of a run last changed, as far as its record shows it; in Unix seconds."""
    return record.ended_at or record.started_at or time.time()
