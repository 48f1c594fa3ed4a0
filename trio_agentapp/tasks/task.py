"""One call of a task function, from its start to the record of its end, wherever it is executed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

import attrs
import trio

from ..errors import RequestError
from ..protocol.lifecycle import CleanupResult
from ..protocol.serialiser import to_json
from ..protocol.tasks import TASK_ENDS, TaskCause, TaskError, TaskState, error_of
from ..protocol.text import describe_exception
from ..runs.cleanup import Cleanup, CleanupScope
from ..runs.containment import contain
from ..runs.failures import ctrl_c_in
from .function import TooManyItems

__all__ = ["MAX_RESULT_BYTES", "Task", "TaskEnd", "current_task", "execute"]

logger = logging.getLogger("trio_agentapp.tasks")

MAX_RESULT_BYTES = 1024 * 1024
"""JSON of one result; what is larger belongs into a store, and its key into the result."""

_current: ContextVar[Task] = ContextVar("trio_agentapp_current_task")


def current_task() -> Task:
    """The task that is being executed, also in its threads.

    Raises:
        RuntimeError: none is.
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


class Task:
    """What a task function can learn of itself, by `current_task()`.

    Attributes:
        task_id, name: which task, and the path it was sent to.
        stopping: a `threading.Event`, set when the task is being stopped; readable from any thread.
    """

    def __init__(self, task_id: str, name: str, *, cleanup_budget: float, timeout: float | None = None) -> None:
        self.task_id = task_id
        self.name = name
        self.stopping = threading.Event()
        # From here on: what the runtime works with.
        self.timeout = timeout
        self.scope = trio.CancelScope()
        self.cleanup_state = Cleanup(cleanup_budget, self.first_stop)
        self.cause: TaskCause | None = None
        self.through = False
        """The function has returned or raised: a stop comes too late."""
        self._stopped_at: float | None = None

    def cleanup(self) -> CleanupScope:
        """`async with task.cleanup():` - awaits that a stop does not cut, for the cleanup budget at most."""
        return self.cleanup_state.open()

    def stop(self, cause: TaskCause = TaskCause.STOPPED) -> bool:
        """End the task. True if that is what will have ended it."""
        if self.through:
            return False
        if self.cause is None:
            self.note_deadline()
        if self.cause is None:
            self.cause = cause
            self._stopped_at = trio.current_time()
        self.stopping.set()
        self.scope.cancel(reason=f"task {self.task_id}: {self.cause.value}")
        return True

    def first_stop(self) -> float | None:
        if self._stopped_at is None and self.scope.cancel_called:
            self._stopped_at = min(trio.current_time(), self.scope.deadline)
        return self._stopped_at

    def note_deadline(self) -> None:
        if self.cause is None and self.scope.cancel_called:
            self.cause = TaskCause.DEADLINE_EXCEEDED
            self.first_stop()
            self.stopping.set()


async def execute(task: Task, call: Callable[[], Awaitable[object]], *, debug: bool = False) -> TaskEnd:
    """Await `call()` as `task`, until nothing of it runs any more.

    Only the task's own scope stops it. What the call raises is in the end that is returned. Only Ctrl-C, in a
    program without a server, is raised.
    """
    token = _current.set(task)
    try:
        with trio.CancelScope(shield=True):
            value, error = await _run(task, call)
    finally:
        _current.reset(token)
    if task.cleanup_state.result is CleanupResult.TIMED_OUT:
        task.cause = TaskCause.CLEANUP_TIMEOUT
    if task.cause is not None:
        if error is not None:
            logger.warning("task %s of %s: raised while it was ended", task.task_id, task.name, exc_info=error)
        return _without_result(task.cause)
    if error is None:
        return _with_result(task, value)
    if isinstance(error, TooManyItems):
        logger.error("task %s of %s: %s", task.task_id, task.name, error)
        return _without_result(TaskCause.RESULT_TOO_LARGE)
    if isinstance(error, RequestError):
        # Written for whoever sent the request.
        return TaskEnd(state=TaskState.FAILED, error=TaskError(error.code, error.detail))
    logger.error("task %s of %s failed", task.task_id, task.name, exc_info=error)
    return _without_result(TaskCause.EXCEPTION, describe_exception(error) if debug else "")


async def _run(task: Task, call: Callable[[], Awaitable[object]]) -> tuple[object, BaseException | None]:
    """What the call returned, and what it raised besides the cancellation that ended it."""
    value: object = None
    error: BaseException | None = None
    if task.timeout is not None:
        task.scope.deadline = trio.current_time() + task.timeout
    try:
        with task.scope:
            async with trio.open_nursery() as flags:
                # A deadline sets nothing by itself, and a thread can only look at a flag.
                flags.start_soon(_raise_flag, task)
                await trio.lowlevel.checkpoint_if_cancelled()
                value = (await contain(call)).unwrap()
                task.note_deadline()
                task.through = True
                flags.cancel_scope.cancel(reason="the task is through")
    except BaseException as exc:
        error = exc
    task.note_deadline()
    if not task.through and task.cause is None and error is None:
        error = RuntimeError("the task raised a trio.Cancelled, and nothing had cancelled it")
    task.through = True
    task.cleanup_state.body_through_at = trio.current_time()
    return value, _ours(error)


async def _raise_flag(task: Task) -> None:
    try:
        await trio.sleep_forever()
    finally:
        if task.scope.cancel_called:
            task.stopping.set()


def _ours(error: BaseException | None) -> BaseException | None:
    """The one exception in a group of one. Raises what concerns the process."""
    if error is not None and (ctrl_c := ctrl_c_in(error)) is not None:
        raise ctrl_c
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _with_result(task: Task, value: object) -> TaskEnd:
    try:
        result = to_json(value)
    except BaseException as exc:
        # It calls methods of the user's own classes, which may raise anything.
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
