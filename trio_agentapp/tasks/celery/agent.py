"""Runs of the query handler by Celery workers: given out as tasks, executed as runs like any other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

import attrs
import trio

from ...errors import RequestError
from ...protocol.codec import request_from
from ...protocol.lifecycle import Cause
from ...protocol.request import AgentRequest
from ...protocol.tasks import TaskCause, TaskError, TaskRecord, TaskState, error_of
from ...runs import Run
from ...runs.runner import Runner
from ..background import end_of_run, start_unwatched
from ..task import Task, TaskEnd
from .queue import CeleryTaskQueue

__all__ = ["AgentBody", "CeleryBackground", "ask_agent"]

logger = logging.getLogger("trio_agentapp.tasks")


def ask_agent(request: object) -> None:
    """What the body of a request is bound to. The worker executes `AgentBody` in its place."""


@attrs.frozen
class CeleryBackground:
    """The app's side. A task's id is that of its run."""

    queue: CeleryTaskQueue
    name: str

    async def start(self, request: AgentRequest, body: Mapping[str, Any]) -> TaskRecord:
        """Have a worker start the run. Whether its session is free, it finds out there."""
        ids = {"id": request.id, "session_id": request.session_id, "user_id": request.user_id}
        assert request.id is not None  # noqa: S101  filled in
        return await self.queue.submit_as(request.id, self.name, {**body, **ids}, user_id=request.user_id)

    async def status(self, task_id: str) -> TaskRecord | None:
        return await self.queue.status(task_id)

    async def cancel(self, task_id: str) -> TaskRecord | None:
        return await self.queue.cancel(task_id)


@attrs.frozen
class AgentBody:
    """The worker's side. The app is opened for each run, its lifespan too."""

    open_app: Callable[[], AbstractAsyncContextManager[Runner]]
    timeout: float | None

    async def __call__(self, task: Task, value: object) -> TaskEnd:
        try:
            async with self.open_app() as runner:
                run = await start_unwatched(runner, request_from(cast(Any, value)), self.timeout)
                async with trio.open_nursery() as watchers:
                    watchers.start_soon(_stop_with, task, run)
                    await run.ended.wait()
                    task.scope.body_ended()
                    watchers.cancel_scope.cancel(reason="the run has ended")
                return end_of_run(run)
        except RequestError as exc:
            return TaskEnd(state=TaskState.FAILED, error=TaskError(exc.code, exc.detail))
        except Exception:
            logger.exception("task %s of %s: its run could not be executed", task.task_id, task.name)
            return TaskEnd(state=TaskState.FAILED, error=error_of(TaskCause.EXCEPTION))


async def _stop_with(task: Task, run: Run) -> None:
    """A task that is stopped stops its run."""
    with task.scope.cancel_scope:
        await trio.sleep_forever()
    cause = task.lifecycle.cause
    run.scope.stop(cause if cause in (Cause.STOPPED, Cause.LEASE_LOST) else Cause.SHUTDOWN)
