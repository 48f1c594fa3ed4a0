"""The task queue of this process. Running tasks, waiting tasks and records are bounded."""

from __future__ import annotations

import contextvars
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

import trio

from ..abc import Instrument, TaskQueue
from ..errors import Draining, QueueFull
from ..nursery import nursery_around
from ..protocol.ids import new_run_id
from ..protocol.lifecycle import Cause
from ..protocol.tasks import TaskCause, TaskError, TaskRecord, TaskState, error_of
from ..protocol.trace_context import trace_headers
from ..runs.failures import ctrl_c_in, is_cancelled
from ..runs.grace import grace_period
from .function import TaskFunction
from .table import TaskTable
from .task import NO_INSTRUMENT, Task, execute

__all__ = ["MAX_RUNNING", "MAX_WAITING", "LocalTaskQueue"]

logger = logging.getLogger("trio_agentapp.tasks")

MAX_RUNNING = 32
"""Limit of tasks that run at once. It is also the limit of threads for synchronous tasks."""

MAX_WAITING = 1000
"""Limit of waiting tasks; more are refused (`queue_full`)."""

OVERRUN = 1.0
"""Seconds beyond the cleanup budget in which tasks may unwind after their cleanup was cancelled."""

RETRY_AFTER = 1.0


class LocalTaskQueue(TaskQueue):
    """Executes tasks in this process, in order of submission. They do not survive the process.

    Args:
        functions: by the name that a task is submitted with. Functions may be added later.
        cleanup_budget: seconds that a stopped task has for its cleanup.
        debug: show the text of an exception to the client.
        instruments: receive reports of each task.
    """

    def __init__(
        self,
        functions: Mapping[str, TaskFunction],
        *,
        cleanup_budget: float = 30.0,
        debug: bool = False,
        instruments: Instrument = NO_INSTRUMENT,
        max_running: int = MAX_RUNNING,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self.cleanup_budget = cleanup_budget
        self._functions = functions
        self._debug = debug
        self._instruments = instruments
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._table = TaskTable()
        self._threads = trio.CapacityLimiter(max_running)
        self._waiting: OrderedDict[str, tuple[Task, TaskFunction, object]] = OrderedDict()
        self._running: dict[str, Task] = {}
        self._nursery: trio.Nursery | None = None
        self._draining = False
        self._changed = trio.Event()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """See the contract. At the end waiting tasks are cancelled; running ones are stopped and joined."""
        self._draining = False
        async with nursery_around() as nursery:
            self._nursery = nursery
            try:
                yield
            finally:
                self._nursery = None
                self.stop_all()
                with trio.CancelScope(shield=True):
                    await self._wait_empty()

    async def submit(self, name: str, body: object, *, user_id: str | None = None) -> TaskRecord:
        function = self._functions[name]
        function.bind(body)
        await trio.lowlevel.checkpoint()
        if self._nursery is None or self._draining:
            raise Draining
        if len(self._running) >= self._max_running and len(self._waiting) >= self._max_waiting:
            raise QueueFull(
                f"The task queue is full ({self._max_waiting} tasks).",
                limit="tasks",
                quota=self._max_waiting,
                retry_after=RETRY_AFTER,
            )
        task = Task(
            new_run_id(),
            name,
            cleanup_budget=self.cleanup_budget,
            timeout=function.timeout,
            trace=trace_headers(),
        )
        record = TaskRecord(task_id=task.task_id, name=name, user_id=user_id, created_at=time.time())
        self._table.put(record)
        self._waiting[task.task_id] = (task, function, body)
        self._start_waiting()
        return record

    async def status(self, task_id: str) -> TaskRecord | None:
        await trio.lowlevel.checkpoint()
        return self._table.get(task_id)

    async def cancel(self, task_id: str) -> TaskRecord | None:
        await trio.lowlevel.checkpoint()
        if self._waiting.pop(task_id, None) is not None:
            return self._end(task_id, TaskState.CANCELLED, error=error_of(TaskCause.STOPPED))
        if (task := self._running.get(task_id)) is not None and task.scope.stop(Cause.STOPPED):
            return self._table.change(task_id, cancel_requested=True)
        return self._table.get(task_id)

    async def drain(self, timeout: float, hurry: trio.Event | None = None) -> None:
        """See the contract: tasks may end within `timeout` seconds or until `hurry`; the rest is stopped."""
        self._draining = True
        if live := len(self._running) + len(self._waiting):
            logger.info("%d tasks may end within %g s; the rest is stopped then", live, timeout)
        await grace_period(self._wait_empty, timeout, hurry)
        self.stop_all()
        with trio.move_on_after(self.cleanup_budget + OVERRUN):
            await self._wait_empty()
        for task in self._running.values():
            logger.error("task %s of %s has not ended within its cleanup budget", task.task_id, task.name)

    def stop_all(self) -> None:
        """Cancel waiting tasks, stop running ones."""
        while self._waiting:
            task_id, _ = self._waiting.popitem(last=False)
            self._end(task_id, TaskState.CANCELLED, error=error_of(TaskCause.SHUTDOWN))
        for task in self._running.values():
            task.scope.stop(Cause.SHUTDOWN)

    async def _wait_empty(self) -> None:
        while self._running or self._waiting:
            await self._changed.wait()

    def _start_waiting(self) -> None:
        while self._waiting and self._nursery is not None and len(self._running) < self._max_running:
            task_id, (task, function, body) = self._waiting.popitem(last=False)
            self._running[task_id] = task
            # In an empty context: this may be the context of another request, whose task has just ended.
            start = partial(self._nursery.start_soon, self._run, task, function, body, name=f"task {task_id}")
            contextvars.Context().run(start)

    async def _run(self, task: Task, function: TaskFunction, body: object) -> None:
        self._table.change(task.task_id, state=TaskState.RUNNING, started_at=time.time())
        try:
            end = await execute(
                task,
                lambda: function(body, threads=self._threads),
                debug=self._debug,
                instruments=self._instruments,
            )
            self._end(task.task_id, end.state, result=end.result, error=end.error)
        except BaseException as exc:
            # An error in the runtime must not end other tasks.
            if is_cancelled(exc) or ctrl_c_in(exc) is not None:
                raise
            logger.critical("task %s of %s: the runtime failed", task.task_id, task.name, exc_info=True)
            self._end(task.task_id, TaskState.FAILED, error=error_of(TaskCause.EXCEPTION))
        finally:
            del self._running[task.task_id]
            self._start_waiting()
            self._note_change()

    def _end(
        self, task_id: str, state: TaskState, *, result: bytes | None = None, error: TaskError | None = None
    ) -> TaskRecord:
        record = self._table.change(task_id, state=state, result=result, error=error, ended_at=time.time())
        self._note_change()
        return record

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
