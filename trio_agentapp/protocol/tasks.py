"""Tasks: calls whose result is read later. Their states, causes of failure and records."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

import attrs

__all__ = ["TASK_ENDS", "TaskCause", "TaskError", "TaskRecord", "TaskState", "error_of"]


class TaskState(StrEnum):
    """State of a task; the last three are final."""

    PENDING = "pending"
    """Accepted, and not started yet."""
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self not in (TaskState.PENDING, TaskState.RUNNING)


class TaskCause(StrEnum):
    """Why a task has no result. The value is the `code` of its error."""

    STOPPED = "stopped"
    SHUTDOWN = "shutdown"
    EXCEPTION = "exception"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    CLEANUP_TIMEOUT = "cleanup_timeout"
    RESULT_INVALID = "result_invalid"
    RESULT_TOO_LARGE = "result_too_large"
    WORKER_LOST = "worker_lost"


TASK_ENDS: Mapping[TaskCause, tuple[TaskState, str]] = MappingProxyType(
    {
        TaskCause.STOPPED: (TaskState.CANCELLED, "The task was stopped."),
        TaskCause.SHUTDOWN: (TaskState.CANCELLED, "The process that executes tasks was shut down."),
        TaskCause.EXCEPTION: (TaskState.FAILED, "The task failed."),
        TaskCause.DEADLINE_EXCEEDED: (TaskState.FAILED, "The task took longer than its time-out."),
        TaskCause.CLEANUP_TIMEOUT: (
            TaskState.FAILED,
            "The task was ended, but its cleanup took longer than its budget.",
        ),
        TaskCause.RESULT_INVALID: (TaskState.FAILED, "The task's result cannot be written as JSON."),
        TaskCause.RESULT_TOO_LARGE: (TaskState.FAILED, "The task's result is larger than the limit for results."),
        TaskCause.WORKER_LOST: (TaskState.FAILED, "The process that executed this task is gone."),
    }
)
"""The state that each cause leads to, and the error message for the client."""


@attrs.frozen
class TaskError:
    """Why there is no result, for the client."""

    code: str
    message: str


def error_of(cause: TaskCause, message: str = "") -> TaskError:
    return TaskError(cause.value, message or TASK_ENDS[cause][1])


@attrs.frozen(kw_only=True)
class TaskRecord:
    """One task. Times are Unix seconds.

    `result` is JSON: the result of a finished task, or the terminal response of a background run, also of one that
    did not complete. `error` is set if the task failed or was cancelled.
    """

    task_id: str
    name: str
    """The path of its endpoint."""
    state: TaskState = TaskState.PENDING
    user_id: str | None = None
    cancel_requested: bool = False
    created_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    result: bytes | None = None
    error: TaskError | None = None
