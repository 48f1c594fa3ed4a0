"""Executes runs of the query handler in Celery workers. A run is sent to a worker as a task."""

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

__all__ = ["AgentBody", "ask_agent", "submit_run"]

logger = logging.getLogger("trio_agentapp.tasks")


def ask_agent(request: object) -> None:
    """Define the parameters of the task, to which a request is bound. The worker executes `AgentBody` instead."""


async def submit_run(
    queue: CeleryTaskQueue, name: str, request: AgentRequest, body: Mapping[str, Any]
) -> TaskRecord:
    """Submit a run to a worker, which decides whether its session is free. The task has the id of its run."""
    ids = {"id": request.id, "session_id": request.session_id, "user_id": request.user_id}
    assert request.id is not None  # noqa: S101  filled in
    return await queue.submit_as(request.id, name, {**body, **ids}, user_id=request.user_id)


@attrs.frozen
class AgentBody:
    """The worker's side. It opens the app, with its lifespan, for each run."""

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
    """Stop the run when the task is stopped."""
    with task.scope.cancel_scope:
        await trio.sleep_forever()
    cause = task.lifecycle.cause
    run.scope.stop(cause if cause in (Cause.STOPPED, Cause.LEASE_LOST) else Cause.SHUTDOWN)
