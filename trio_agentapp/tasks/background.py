"""Background runs of the query handler: started by one request, their result read by another."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from ..abc import BaseInterruptBackend
from ..errors import ValidationError
from ..protocol.codec import encode_event
from ..protocol.events import ResponseEvent
from ..protocol.lifecycle import RunState
from ..protocol.request import AgentRequest
from ..protocol.tasks import TaskCause, TaskError, TaskRecord, TaskState, error_of
from ..runs import Run, RunRegistry, stop_run
from ..runs.nursery import nursery_around
from ..runs.runner import Runner
from .table import TaskTable
from .task import TaskEnd

__all__ = ["BackgroundRuns", "end_of_run", "start_unwatched", "timeout_of"]

STATES = {
    RunState.FINISHED: TaskState.FINISHED,
    RunState.STOPPED: TaskState.CANCELLED,
    RunState.ERROR: TaskState.FAILED,
}


class BackgroundRuns:
    """Background runs as tasks. The id of a task is that of its run.

    They are runs like any other: one for each session, stopped by run id or session. They continue without a
    watcher, and their terminal response is kept for a day.
    """

    def __init__(
        self,
        runner: Runner,
        registry: RunRegistry,
        backend: BaseInterruptBackend,
        *,
        name: str,
        timeout: float | None = None,
        table: TaskTable | None = None,
    ) -> None:
        self._runner = runner
        self._registry = registry
        self._backend = backend
        self._name = name
        self._timeout = timeout
        self._table = table or TaskTable()
        self._runs: dict[str, Run] = {}
        self._nursery: trio.Nursery | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Accept runs inside this block. The registry owns and ends them."""
        async with nursery_around() as nursery:
            self._nursery = nursery
            try:
                yield
            finally:
                self._nursery = None
                nursery.cancel_scope.cancel(reason="the app is closed")

    async def start(self, request: AgentRequest, body: Mapping[str, Any]) -> TaskRecord:  # noqa: ARG002
        """Start a run, or join the live one of its id. Raises what `Runner.start` does."""
        run = await start_unwatched(self._runner, request, self._timeout)
        known = await self.status(run.run_id)
        if known is not None and not known.state.terminal:
            return known
        record = TaskRecord(task_id=run.run_id, name=self._name, user_id=run.user_id, created_at=run.created_at)
        self._table.put(record)
        self._runs[run.run_id] = run
        assert self._nursery is not None  # noqa: S101  routes are served while it is open
        self._nursery.start_soon(self._follow, run, name=f"task record of run {run.run_id}")
        return self._updated(record)

    async def status(self, task_id: str) -> TaskRecord | None:
        await trio.lowlevel.checkpoint()
        record = self._table.get(task_id)
        return None if record is None else self._updated(record)

    def _updated(self, record: TaskRecord) -> TaskRecord:
        """The record, changed to RUNNING if its run has left the queue of its session."""
        run = self._runs.get(record.task_id)
        if run is None or record.state is not TaskState.PENDING or run.lifecycle.state is RunState.IDLE:
            return record
        return self._table.change(record.task_id, state=TaskState.RUNNING, started_at=time.time())

    async def cancel(self, task_id: str) -> TaskRecord | None:
        record = await self.status(task_id)
        if record is None or record.state.terminal:
            return record
        await stop_run(self._registry, self._backend, None, task_id)
        record = self._table.get(task_id)
        if record is None or record.state.terminal:
            return record
        return self._table.change(task_id, cancel_requested=True)

    async def _follow(self, run: Run) -> None:
        await run.ended.wait()
        del self._runs[run.run_id]
        end = end_of_run(run)
        self._table.change(run.run_id, state=end.state, result=end.result, error=end.error, ended_at=time.time())


async def start_unwatched(runner: Runner, request: AgentRequest, timeout: float | None) -> Run:
    """Start a run without a watcher, with a time limit of `timeout` seconds. Raises what `Runner.start` does.

    A field `timeout` of the request replaces `timeout`. If its session is busy, the run is queued, unless the
    request or the app has another strategy: the sender does not watch the run and would not try again.
    """
    own = timeout_of(request)
    limits = [seconds for seconds in (request.timeout_s, timeout if own is None else own) if seconds is not None]
    asked = attrs.evolve(
        request,
        on_disconnect="continue",
        background=True,
        timeout_s=min(limits, default=None),
        multitask_strategy=request.multitask_strategy or runner.strategy_unwatched,
        extra={name: value for name, value in request.extra.items() if name != "timeout"},
    )
    watched = await runner.start(asked)
    # A reader that does not read would hold the run back. The log keeps the terminal event without readers.
    watched.subscriber.close()
    assert watched.run is not None  # noqa: S101  it was started, or joined, on this node
    return watched.run


def timeout_of(request: AgentRequest) -> float | None:
    """The time limit in the field `timeout` of a request for a task, in seconds. Raises ValidationError."""
    timeout = request.extra.get("timeout")
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
        raise ValidationError([("$.timeout", "must be a number of seconds greater than 0")])
    return float(timeout)


def end_of_run(run: Run) -> TaskEnd:
    """The end of a run as that of a task. Its result is the terminal response."""
    last = run.log.kept[-1] if run.log.kept else None
    if run.lifecycle.ending is None or not isinstance(last, ResponseEvent) or not last.terminal:
        # The runtime failed to end it, and has logged why.
        return TaskEnd(state=TaskState.FAILED, error=error_of(TaskCause.EXCEPTION))
    error = None if last.error is None else TaskError(last.error.code, last.error.message)
    return TaskEnd(state=STATES[run.lifecycle.ending.state], result=encode_event(last), error=error)
