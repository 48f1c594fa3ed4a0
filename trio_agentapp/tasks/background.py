"""Background runs of the query handler: one request starts a run, and later requests read its result."""

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
from ..nursery import nursery_around
from ..protocol.codec import encode_event
from ..protocol.events import ResponseEvent
from ..protocol.lifecycle import RunState
from ..protocol.request import AgentRequest
from ..protocol.tasks import TaskCause, TaskError, TaskRecord, TaskState, error_of
from ..runs import Run, RunRegistry, stop_run
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
    """Starts runs in the background, and lists them as tasks. A task has the id of its run.

    The runs continue without a reader. Their terminal responses are kept for a day.
    """

    def __init__(self, *, name: str, timeout: float | None = None) -> None:
        self._name = name
        self._timeout = timeout
        self._opened: _Opened | None = None

    @asynccontextmanager
    async def open(
        self, runner: Runner, registry: RunRegistry, backend: BaseInterruptBackend
    ) -> AsyncIterator[None]:
        """Accept runs inside this block. The registry owns the runs and ends them."""
        async with nursery_around() as nursery:
            self._opened = _Opened(runner, registry, backend, nursery)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel(reason="the app is closed")

    async def start(self, request: AgentRequest, body: Mapping[str, Any]) -> TaskRecord:  # noqa: ARG002
        """Start a run, or join the live run with its id. Raises what `Runner.start` does."""
        opened = self._here
        run = await start_unwatched(opened.runner, request, self._timeout)
        known = await self.status(run.run_id)
        if known is not None and not known.state.terminal:
            return known
        record = TaskRecord(task_id=run.run_id, name=self._name, user_id=run.user_id, created_at=run.created_at)
        opened.table.put(record)
        opened.runs[run.run_id] = run
        opened.nursery.start_soon(self._follow, run, name=f"record of run {run.run_id}")
        return self._with_state(record)

    async def status(self, task_id: str) -> TaskRecord | None:
        await trio.lowlevel.checkpoint()
        record = self._here.table.get(task_id)
        return None if record is None else self._with_state(record)

    async def cancel(self, task_id: str) -> TaskRecord | None:
        record = await self.status(task_id)
        if record is None or record.state.terminal:
            return record
        await stop_run(self._here.registry, self._here.backend, None, task_id)
        record = self._here.table.get(task_id)
        if record is None or record.state.terminal:
            return record
        return self._here.table.change(task_id, cancel_requested=True)

    @property
    def _here(self) -> _Opened:
        assert self._opened is not None  # noqa: S101  routes are served while it is open
        return self._opened

    def _with_state(self, record: TaskRecord) -> TaskRecord:
        """Return the record, marked as running if its run has begun. Until then the run waits for its session."""
        run = self._here.runs.get(record.task_id)
        if run is None or record.state is not TaskState.PENDING or run.lifecycle.state is RunState.IDLE:
            return record
        return self._here.table.change(record.task_id, state=TaskState.RUNNING, started_at=time.time())

    async def _follow(self, run: Run) -> None:
        await run.ended.wait()
        del self._here.runs[run.run_id]
        end = end_of_run(run)
        self._here.table.change(
            run.run_id, state=end.state, result=end.result, error=end.error, ended_at=time.time()
        )


@attrs.frozen
class _Opened:
    """What exists only while the app is open."""

    runner: Runner
    registry: RunRegistry
    backend: BaseInterruptBackend
    nursery: trio.Nursery
    table: TaskTable = attrs.field(factory=TaskTable)
    runs: dict[str, Run] = attrs.field(factory=dict)


async def start_unwatched(runner: Runner, request: AgentRequest, timeout: float | None) -> Run:
    """Start a run that continues when its client disconnects, for `timeout` seconds at most.

    The request's field `timeout` replaces `timeout`. If the session is busy, the run is queued, unless the request
    or the app sets another strategy: no client is connected that could repeat a refused request.

    Raises what `Runner.start` raises, and ValidationError for a wrong `timeout` in the request.
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
    watched = await runner.start(asked, entry="task")
    # A reader that does not read would slow down the run. The log keeps the terminal event without a reader.
    watched.subscriber.close()
    assert watched.run is not None  # noqa: S101  it was started, or joined, on this node
    return watched.run


def timeout_of(request: AgentRequest) -> float | None:
    """Return the seconds in the request's field `timeout`, None without it. Raises ValidationError."""
    timeout = request.extra.get("timeout")
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
        raise ValidationError([("$.timeout", "must be a number of seconds greater than 0")])
    return float(timeout)


def end_of_run(run: Run) -> TaskEnd:
    """Return the end of a run as the end of a task. The result is the terminal response."""
    last = run.log.kept[-1] if run.log.kept else None
    if run.lifecycle.ending is None or not isinstance(last, ResponseEvent) or not last.terminal:
        # The runtime failed to end the run, and has logged the reason.
        return TaskEnd(state=TaskState.FAILED, error=error_of(TaskCause.EXCEPTION))
    error = None if last.error is None else TaskError(last.error.code, last.error.message)
    return TaskEnd(state=STATES[run.lifecycle.ending.state], result=encode_event(last), error=error)
