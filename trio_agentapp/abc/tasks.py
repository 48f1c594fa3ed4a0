"""What executes tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager

import trio

from ..protocol.tasks import TaskRecord

__all__ = ["TaskQueue"]


class TaskQueue(ABC):
    """Takes calls of task functions now, and tells of them later.

    A task begins at most once, and ends in exactly one of the terminal states. Where what it executes on is lost,
    it ends as failed: it is never shown as running for ever. Ended tasks are forgotten some time after their end.
    """

    @abstractmethod
    def open(self) -> AbstractAsyncContextManager[None]:
        """Take tasks inside this block. What it executes in this process is stopped with cleanup at its end."""

    @abstractmethod
    async def submit(self, name: str, body: object, *, user_id: str | None = None) -> TaskRecord:
        """Have the function of this name called with a JSON value. Returns once the task is sure to be known.

        Raises:
            ValidationError: the body does not fit the function.
            QueueFull, Draining, BackendUnavailable: the task will not be executed.
        """

    @abstractmethod
    async def status(self, task_id: str) -> TaskRecord | None:
        """What is known of a task; None: never given, or forgotten. Raises BackendUnavailable."""

    @abstractmethod
    async def cancel(self, task_id: str) -> TaskRecord | None:
        """Stop a task: one that waits never begins, one that runs is cancelled, with its cleanup.

        Does not wait for its end; repeating it changes nothing, and neither does cancelling a task that has ended.
        Raises BackendUnavailable.
        """

    @abstractmethod
    async def drain(self, timeout: float, hurry: trio.Event | None = None) -> None:
        """Take no new tasks; let this process's end for `timeout` seconds or until `hurry`; stop the rest."""
