"""Executes one message in a worker: claims the record, runs the task, renews the claim, and writes the end."""

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

from ...abc import Instrument
from ...protocol.ids import new_run_id
from ...protocol.lifecycle import Cause
from ...protocol.tasks import TaskState
from ...protocol.trace_context import continued_trace
from ...redis import LinkError, RedisClient
from ...redis.serving import serving_in_background
from ..function import NO_BODY, TaskFunction
from ..task import Task, TaskEnd, execute
from .application import TaskFailed
from .lifeline import Lifeline
from .publisher import TRACE_HEADER
from .records import TaskRecords

__all__ = ["Body", "Work"]

logger = logging.getLogger("trio_agentapp.tasks")

BEAT = 0.25
"""Seconds between two renewals of a claim. A cancel is noticed after at most this time."""

CLAIM_TIMEOUT = 10.0
"""Seconds for which a worker tries to claim a task; then the message goes back to the broker."""

RETRY = 0.5

Body = Callable[[Task, object], Awaitable[TaskEnd]]
"""A function that executes a task whose record is claimed. It must end when the task's scope is cancelled."""


@attrs.frozen(kw_only=True)
class Work:
    """Executes messages in a process of a worker.

    A claim expires `lease` seconds after its last renewal. A worker that could not renew it for `cutoff` seconds
    stops the task. `cutoff` is shorter than `lease`, so no task is still running when its claim expires.
    """

    redis_url: str
    prefix: str
    lease: float
    cutoff: float
    call_timeout: float
    cleanup_budget: float
    lifeline: Lifeline
    instruments: Instrument
    debug: bool = False

    def body_of(self, function: TaskFunction) -> Body:
        """Return the body that calls a function once."""

        async def body(task: Task, value: object) -> TaskEnd:
            threads = trio.CapacityLimiter(1)
            return await execute(
                task,
                lambda: function(value, threads=threads),
                debug=self.debug,
                instruments=self.instruments,
            )

        return body

    def perform(self, request: Any, function: TaskFunction, body: Body, *args: object) -> None:
        """Execute one message, in a Trio loop of its own.

        Raises:
            Reject: Redis did not answer; the message goes back to the broker.
            Ignore, TaskFailed: the task has been cancelled or has failed.
        """
        task = Task(
            request.id,
            function.name,
            cleanup_budget=self.cleanup_budget,
            timeout=function.timeout,
            trace=request.get(TRACE_HEADER),
        )
        value = args[0] if args else NO_BODY
        terminated: list[int] = []
        end = trio.run(self._perform, task, body, value, terminated)
        if terminated:
            # The signal was meant for this process. It was held back until the task had ended.
            signal.raise_signal(signal.SIGTERM)
        if end is None or end.state is TaskState.CANCELLED:
            raise Ignore
        if end.state is TaskState.FAILED:
            raise TaskFailed("unknown" if end.error is None else f"{end.error.code}: {end.error.message}")

    async def _perform(self, task: Task, body: Body, value: object, terminated: list[int]) -> TaskEnd | None:
        """Execute the task and return its end; None if it could not be claimed."""
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
                    if _is_pool_child():
                        await watchers.start(_watch_signals, task, terminated)
                    with trio.CancelScope(shield=True):
                        with continued_trace(task.trace):
                            end = await body(task, value)
                        await self._finish(records, task, worker, end)
                    watchers.cancel_scope.cancel(reason="the task has ended")
        return end

    async def _claim(self, records: TaskRecords, task: Task, worker: str) -> float | None:
        """Claim the record. Return the time at which the claim was sent, on Trio's clock; None if it was refused.

        Raises Reject if Redis does not answer for `CLAIM_TIMEOUT` seconds.
        """
        give_up_at = trio.current_time() + CLAIM_TIMEOUT
        while True:
            sent_at = trio.current_time()
            try:
                answer = await records.claim(task.task_id, worker)
            except (LinkError, RedisError) as exc:
                if trio.current_time() > give_up_at:
                    logger.warning("task %s goes back to the broker: Redis does not answer", task.task_id)
                    raise Reject(str(exc), requeue=True) from exc
                await trio.sleep(RETRY)
                continue
            if answer.word == "claimed":
                return sent_at
            logger.info("task %s of %s is not executed: it is %s", task.task_id, task.name, answer.word)
            return None

    async def _beat(self, records: TaskRecords, task: Task, worker: str, renewed_at: float) -> None:
        """Renew the claim until cancelled. Stop the task if it was cancelled, or before the claim expires."""
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
        """Write the end. Retry as long as the claim may still be valid."""
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


def _is_pool_child() -> bool:
    """Return whether this is the main thread of a worker's child. Then signals to the process are for its task.

    Celery's own handlers for the soft time limit and the cold shutdown raise an exception in the running code,
    which may be Trio's. So the task handles these signals instead.
    """
    return threading.current_thread() is threading.main_thread() and current_process().name != "MainProcess"


async def _watch_signals(task: Task, terminated: list[int], *, task_status: trio.TaskStatus[None]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGUSR1) as received:
        task_status.started()
        async for number in received:
            if number == signal.SIGTERM:
                terminated.append(number)
                task.scope.stop(Cause.SHUTDOWN)
            else:
                task.scope.stop(Cause.DEADLINE_EXCEEDED)
