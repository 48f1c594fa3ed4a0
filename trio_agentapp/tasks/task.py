"""One call of a task function, from its start to its end, in this process or in a Celery worker."""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar

import attrs
import trio

from ..abc import Instrument, TaskFacts
from ..errors import RequestError
from ..protocol.exception_groups import unwrapped
from ..protocol.lifecycle import Cause, RunLifecycle
from ..protocol.serialiser import to_json
from ..protocol.tasks import TASK_ENDS, TaskCause, TaskError, TaskState, error_of
from ..protocol.text import describe_exception
from ..protocol.trace_context import continued_trace
from ..runs.cleanup import Cleanup, CleanupScope
from ..runs.containment import contain
from ..runs.failures import ctrl_c_in
from ..runs.stoppable import StoppableScope
from .function import TooManyItems

__all__ = ["MAX_RESULT_BYTES", "Task", "TaskEnd", "current_task", "execute"]

logger = logging.getLogger("trio_agentapp.tasks")

MAX_RESULT_BYTES = 1024 * 1024
"""Limit of one result, in bytes of JSON. Put a larger result into a store, and return its key."""

_current: ContextVar[Task] = ContextVar("trio_agentapp_current_task")


def current_task() -> Task:
    """Return the task that is being executed. Works in the task, in its child tasks and in its threads.

    Raises:
        RuntimeError: no task is being executed here.
    """
    try:
        return _current.get()
    except LookupError:
        raise RuntimeError("no task is being executed here") from None


@attrs.frozen(kw_only=True)
class TaskEnd:
    """How a call ended: with a result, as JSON, or with an error."""

    state: TaskState
    result: bytes | None = None
    error: TaskError | None = None


NO_INSTRUMENT = Instrument()

CAUSES = {Cause.LEASE_LOST: TaskCause.WORKER_LOST}
"""Causes whose name for tasks differs from the name for runs."""


class Task:
    """What `current_task()` returns: the identity of a task, and what its function needs to end cleanly.

    Attributes:
        task_id, name: which task, and the path that it was sent to.
        stopping: a `threading.Event`, set when the task is being stopped; readable from any thread.

    The other attributes are for the runtime.
    """

    def __init__(
        self,
        task_id: str,
        name: str,
        *,
        cleanup_budget: float,
        timeout: float | None = None,
        trace: Mapping[str, str] | None = None,
    ) -> None:
        self.trace = trace or {}
        self.task_id = task_id
        self.name = name
        self.stopping = threading.Event()
        self.timeout = timeout
        # A task has no session to claim.
        self.lifecycle = RunLifecycle()
        self.lifecycle.claimed()
        self.scope = StoppableScope(self.lifecycle, f"task {task_id}")
        self.scope.on_stop = self.stopping.set
        self.cleanup_state = Cleanup(cleanup_budget, self.scope)

    def cleanup(self) -> CleanupScope:
        """Return a context manager that shields its block from a stop, for the cleanup budget at most.

        Use it as `async with task.cleanup():`.
        """
        return self.cleanup_state.open()


async def execute(
    task: Task,
    call: Callable[[], Awaitable[object]],
    *,
    debug: bool = False,
    instruments: Instrument = NO_INSTRUMENT,
) -> TaskEnd:
    """Await `call()` as `task`, and everything that it started. Its spans continue the trace of its request.

    Only the task's own scope stops it. An error of `call` is put into the returned end, and is not raised. Only
    KeyboardInterrupt is raised, which occurs in a program without a server.
    """
    facts = TaskFacts(task_id=task.task_id, name=task.name)
    with continued_trace(task.trace), instruments.executing(facts):
        end = await _execute(task, call, debug)
        instruments.executed(facts, end.state, None if end.error is None else end.error.code)
    return end


async def _execute(task: Task, call: Callable[[], Awaitable[object]], debug: bool) -> TaskEnd:
    token = _current.set(task)
    try:
        with trio.CancelScope(shield=True):
            value, error = await _run(task, call)
    finally:
        _current.reset(token)
    cause = task.lifecycle.unwound(failed=error is not None, cleanup_timed_out=task.cleanup_state.timed_out)
    if cause not in (Cause.RETURNED, Cause.EXCEPTION):
        if error is not None:
            logger.warning("task %s of %s: raised while it was ended", task.task_id, task.name, exc_info=error)
        return _without_result(CAUSES.get(cause) or TaskCause(cause.value))
    if error is None:
        return _with_result(task, value)
    if isinstance(error, TooManyItems):
        logger.error("task %s of %s: %s", task.task_id, task.name, error)
        return _without_result(TaskCause.RESULT_TOO_LARGE)
    if isinstance(error, RequestError):
        # The text of a RequestError is meant for the client.
        return TaskEnd(state=TaskState.FAILED, error=TaskError(error.code, error.detail))
    logger.error("task %s of %s failed", task.task_id, task.name, exc_info=error)
    return _without_result(TaskCause.EXCEPTION, describe_exception(error) if debug else "")


async def _run(task: Task, call: Callable[[], Awaitable[object]]) -> tuple[object, BaseException | None]:
    """Return the result of the call, and the exception that it raised, if it was not only the cancellation.

    Raises KeyboardInterrupt, because it is meant for the process.
    """
    value: object = None
    error: BaseException | None = None
    if task.timeout is not None:
        task.scope.set_deadline(trio.current_time() + task.timeout)
    try:
        with task.scope.cancel_scope:
            async with trio.open_nursery() as flags:
                # Trio calls no function at a deadline, so this task sets the flag that threads of the task read.
                flags.start_soon(_set_flag_at_deadline, task)
                await trio.lowlevel.checkpoint_if_cancelled()
                value = (await contain(call)).unwrap()
                task.scope.body_ended()
                flags.cancel_scope.cancel(reason="the task has ended")
    except BaseException as exc:
        error = exc
    if task.lifecycle.body_ended_at is None:
        task.scope.body_ended(raised=True)
    if error is None and task.lifecycle.cause is Cause.EXCEPTION:
        error = RuntimeError("the task raised a trio.Cancelled, and nothing had cancelled it")
    if error is not None and (ctrl_c := ctrl_c_in(error)) is not None:
        raise ctrl_c
    return value, None if error is None else unwrapped(error)


async def _set_flag_at_deadline(task: Task) -> None:
    try:
        await trio.sleep_forever()
    finally:
        task.scope.note_deadline()


def _with_result(task: Task, value: object) -> TaskEnd:
    try:
        result = to_json(value)
    except BaseException as exc:
        # `to_json` calls methods of the user's classes, which may raise anything.
        if ctrl_c_in(exc) is not None:
            raise
        logger.exception("task %s of %s: its result cannot be written as JSON", task.task_id, task.name)
        return _without_result(TaskCause.RESULT_INVALID)
    if len(result) > MAX_RESULT_BYTES:
        logger.error("task %s of %s: its result has %d bytes of JSON", task.task_id, task.name, len(result))
        return _without_result(TaskCause.RESULT_TOO_LARGE)
    return TaskEnd(state=TaskState.FINISHED, result=result)


def _without_result(cause: TaskCause, message: str = "") -> TaskEnd:
    return TaskEnd(state=TASK_ENDS[cause][0], error=error_of(cause, message))
