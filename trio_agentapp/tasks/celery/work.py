"""What a worker does with one message: claim the record, execute, renew the claim, write the end."""

from __future__ import annotations

import logging
import math
import signal
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio
from billiard.process import current_process
from celery.exceptions import Ignore, Reject
from redis.exceptions import RedisError

from ...protocol.ids import new_run_id
from ...protocol.lifecycle import Cause
from ...protocol.tasks import TaskState
from ...redis import LinkError, RedisClient
from ...redis.serving import serving_in_background
from ..function import NO_BODY, TaskFunction
from ..task import Task, TaskEnd, execute
from .failure import TaskFailed
from .lifeline import Lifeline
from .records import TaskRecords

__all__ = ["Body", "Work"]

logger = logging.getLogger("trio_agentapp.tasks")

BEAT = 0.25
"""Seconds between two renewals of a claim; a stop is found so late at most."""

CLAIM_PATIENCE = 10.0
"""Seconds for which a worker tries to claim a task; then the message goes back to the broker."""

RETRY = 0.5

Body = Callable[[Task, object], Awaitable[TaskEnd]]
"""Executes a task whose record is claimed. The task's scope is what stops it."""


@attrs.frozen(kw_only=True)
class Work:
    """What it takes to execute messages, in a process of a worker.

    `lease` is what the record says; a worker that could not renew its claim for `cutoff` seconds stops the task, so
    that it does not run on when others are told that it is lost.
    """

    redis_url: str
    prefix: str
    lease: float
    cutoff: float
    call_timeout: float
    cleanup_budget: float
    lifeline: Lifeline
    debug: bool = False

    def body_of(self, function: TaskFunction) -> Body:
        """A task that is one call of a function."""

        async def body(task: Task, value: object) -> TaskEnd:
            threads = trio.CapacityLimiter(1)
            return await execute(task, lambda: function(value, threads=threads), debug=self.debug)

        return body

    def perform(self, request: Any, function: TaskFunction, body: Body, *args: object) -> None:
        """Execute one message, in a Trio loop of its own.

        Raises:
            Reject: Redis did not answer, so it goes back to the broker.
            Ignore, TaskFailed: it is over, and Celery is told how.
        """
        task = Task(request.id, function.name, cleanup_budget=self.cleanup_budget, timeout=function.timeout)
        value = args[0] if args else NO_BODY
        told: list[int] = []
        end = trio.run(self._perform, task, body, value, told)
        if told:
            # It was meant for the process, which has waited for its task until now.
            signal.raise_signal(signal.SIGTERM)
        if end is None or end.state is TaskState.CANCELLED:
            raise Ignore
        if end.state is TaskState.FAILED:
            raise TaskFailed("unknown" if end.error is None else f"{end.error.code}: {end.error.message}")

    async def _perform(self, task: Task, body: Body, value: object, told: list[int]) -> TaskEnd | None:
        """The end of the task; None: it is not for us to execute."""
        client = RedisClient(self.redis_url, call_timeout=self.call_timeout, start_timeout=None)
        worker = new_run_id()
        end = None
        async with serving_in_background(client.serve):
            records = TaskRecords(client, prefix=self.prefix, lease=self.lease)
            sent_at = await self._claim(records, task, worker)
            if sent_at is not None:
                async with trio.open_nursery() as watchers:
                    watchers.start_soon(self._beat, records, task, worker, sent_at)
                    watchers.start_soon(self._watch_lifeline, task)
                    if _signals_are_ours():
                        await watchers.start(_watch_signals, task, told)
                    with trio.CancelScope(shield=True):
                        end = await body(task, value)
                        await self._finish(records, task, worker, end)
                    watchers.cancel_scope.cancel(reason="the task has ended")
        return end

    async def _claim(self, records: TaskRecords, task: Task, worker: str) -> float | None:
        """When the claim was sent, on Trio's clock; None: there is nothing to execute."""
        give_up_at = trio.current_time() + CLAIM_PATIENCE
        while True:
            sent_at = trio.current_time()
            try:
                answer = await records.claim(task.task_id, worker)
            except (LinkError, RedisError) as exc:
                if trio.current_time() > give_up_at:
                    logger.warning("task %s goes back to the broker: its record cannot be reached", task.task_id)
                    raise Reject(str(exc), requeue=True) from exc
                await trio.sleep(RETRY)
                continue
            if answer.word == "claimed":
                return sent_at
            logger.info("task %s of %s is not executed: it is %s", task.task_id, task.name, answer.word)
            return None

    async def _beat(self, records: TaskRecords, task: Task, worker: str, renewed_at: float) -> None:
        """Renew the claim until cancelled; stop the task when told to, or when the claim may be over."""
        while True:
            left = renewed_at + self.cutoff - trio.current_time()
            if left <= 0 and task.lifecycle.cause is None:
                logger.error("task %s of %s is stopped: its record cannot be reached", task.task_id, task.name)
                task.scope.stop(Cause.LEASE_LOST)
            if task.lifecycle.cause is not None:
                left = math.inf
            sent_at = trio.current_time()
            try:
                with trio.move_on_after(left):
                    answer = await records.beat(task.task_id, worker)
                    renewed_at = sent_at
                    if answer == "stop":
                        task.scope.stop(Cause.STOPPED)
                    elif answer == "lost":
                        task.scope.stop(Cause.LEASE_LOST)
            except (LinkError, RedisError) as exc:
                logger.warning("the claim of task %s could not be renewed: %s", task.task_id, exc)
            await trio.sleep(BEAT)

    async def _watch_lifeline(self, task: Task) -> None:
        await self.lifeline.wait_shutdown()
        task.scope.stop(Cause.SHUTDOWN)

    async def _finish(self, records: TaskRecords, task: Task, worker: str, end: TaskEnd) -> None:
        """Write the end; tried for as long as the claim may hold."""
        give_up_at = trio.current_time() + self.lease
        while True:
            try:
                answer = await records.finish(task.task_id, worker, end)
            except (LinkError, RedisError):
                if trio.current_time() > give_up_at:
                    logger.exception("the end of task %s (%s) could not be written", task.task_id, end.state)
                    return
                await trio.sleep(RETRY)
                continue
            if answer.word != end.state:
                logger.warning("task %s ended as %s; its record says %s", task.task_id, end.state, answer.word)
            return


def _signals_are_ours() -> bool:
    """Whether signals of this process are about its task: in a child of a worker, whose main thread this is.

    A soft time limit and a cold shutdown raise exceptions wherever the process happens to be, which may be in the
    midst of Trio.
    """
    return threading.current_thread() is threading.main_thread() and current_process().name != "MainProcess"


async def _watch_signals(task: Task, told: list[int], *, task_status: trio.TaskStatus[None]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGUSR1) as received:
        task_status.started()
        async for number in received:
            if number == signal.SIGTERM:
                told.append(number)
                task.scope.stop(Cause.SHUTDOWN)
            else:
                task.scope.stop(Cause.DEADLINE_EXCEEDED)
