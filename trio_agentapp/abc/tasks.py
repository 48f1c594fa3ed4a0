"""The contract of task queues."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager

import trio

from ..protocol.tasks import TaskRecord

__all__ = ["TaskQueue"]


class TaskQueue(ABC):
    """Accepts calls of task functions, and reports their results later.

    A task begins at most once, and ends in exactly one terminal state. If the process that executes it is lost, the
    task ends as failed. Tasks are forgotten some time after their end.
    """

    @abstractmethod
    def open(self) -> AbstractAsyncContextManager[None]:
        """Accept tasks inside this block. At its end, tasks of this process are stopped, with their cleanup."""

    @abstractmethod
    async def submit(self, name: str, body: object, *, user_id: str | None = None) -> TaskRecord:
        """Have the function of this name called with a JSON value. Return once the task is recorded.

        Raises:
            ValidationError: the body does not fit the function.
            QueueFull, Draining, BackendUnavailable: the task will not be executed.
        """

    @abstractmethod
    async def status(self, task_id: str) -> TaskRecord | None:
        """Return the record of a task; None: unknown, or forgotten. Raises BackendUnavailable."""

    @abstractmethod
    async def cancel(self, task_id: str) -> TaskRecord | None:
        """Stop a task. A waiting task never begins; a running task is cancelled, with its cleanup.

        It does not wait for the end of the task. A repeated call, or a call for an ended task, changes nothing.
        Raises BackendUnavailable.
        """

    @abstractmethod
    async def drain(self, timeout: float, hurry: trio.Event | None = None) -> None:
        """Refuse new tasks; let those of this process end for `timeout` seconds or until `hurry`; stop the rest."""
