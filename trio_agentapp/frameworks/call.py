"""A call from Trio to the asyncio loop: one asyncio task, and all tasks and processes that it starts."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import types
import weakref
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import outcome
import trio

from ..abc.frameworks import TaskStop
from ..runs import current_run
from ..runs.log_fields import add_log_fields, log_fields
from .processes import ProcessGroup

__all__ = ["AtStop", "Call", "Sides", "current_call", "name_of", "wait_saved"]

logger = logging.getLogger("trio_agentapp.frameworks")

T = TypeVar("T")

AtStop = Callable[["asyncio.Task[Any]"], TaskStop]


class Sides(Protocol):
    """The part of the bridge that a call uses: scheduling in either thread."""

    loop: asyncio.AbstractEventLoop

    def call_asyncio(self, fn: Callable[..., object], *args: Any) -> None: ...

    def call_trio(self, fn: Callable[..., object], *args: Any) -> None: ...


class Call:
    """One asyncio task that a Trio task waits for."""

    def __init__(self, bridge: Sides, name: str, *, tasks_first: AtStop | None = None) -> None:
        """`tasks_first`: a cancellation first ends the tasks that this one has started; see `Bridge.items`."""
        self.name = name
        self.done = trio.Event()
        self.cancelled = False
        self.on_done: Callable[[], None] = lambda: None
        self._tasks_first = tasks_first
        self._children: weakref.WeakKeyDictionary[asyncio.Task[Any], asyncio.Task[Any] | None]
        """The tasks that were started within this call, in this order, each with the task that started it."""
        self._children = weakref.WeakKeyDictionary()
        self._cleanups: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        """Tasks that a cancelled task started to clean up. They are not cancelled."""
        self._on_stop: list[Callable[[], object]] = []
        self.processes: list[ProcessGroup] = []
        self.fields = log_fields()
        self.bridge = bridge
        self._result: outcome.Outcome[Any] | None = None
        self._task: asyncio.Task[None] | None = None
        self._turn_of_tasks = False
        self._cancellations = 0
        self._context = contextvars.copy_context()
        self._context.run(current_call.set, self)

    def begin(self, fn: Callable[[], Awaitable[Any]]) -> None:
        """Schedule `fn()` on the loop as a task, with the context variables of this Trio task."""
        self.bridge.call_asyncio(self._begin, fn)

    def cancel(self) -> None:
        """Raise one `asyncio.CancelledError` in the task, at its next await."""
        self.cancelled = True
        self.bridge.call_asyncio(self._cancel)

    async def end(self) -> None:
        """Cancel the task and wait for its end.

        A task of a run has the run's cleanup budget. If it still runs afterwards, it is cancelled once more, and
        this method waits for it without a limit. A run whose handler ignores both cancellations becomes stuck here.
        """
        if not self.done.is_set():
            self.cancel()
            if (run := current_run.get(None)) is not None:
                async with run.cleanup():
                    await self.done.wait()
                if not self.done.is_set():
                    self.cancel()
            with trio.CancelScope(shield=True):
                await self.done.wait()

    def unwrap(self) -> Any:
        """Return the result of the ended task, or raise its exception.

        Raises RuntimeError if the task has ended with CancelledError. Call it only if `cancel` was not the cause.
        """
        assert self._result is not None  # noqa: S101
        if self.was_cancelled:
            raise RuntimeError(f"{self.name} raised asyncio.CancelledError, and nothing had cancelled it")
        return self._result.unwrap()

    @property
    def was_cancelled(self) -> bool:
        """Whether the task has ended with CancelledError."""
        return isinstance(self._result, outcome.Error) and isinstance(self._result.error, asyncio.CancelledError)

    # In the thread of the loop.

    def _begin(self, fn: Callable[[], Awaitable[Any]]) -> None:
        task = asyncio.Task(self._carry_out(fn), loop=self.bridge.loop, name=self.name, context=self._context)
        # A callback, because a coroutine that is cancelled before its first step never runs, nor its `finally`.
        task.add_done_callback(self._ended)
        self._task = task

    def on_stop(self, fn: Callable[[], object]) -> None:
        """Call `fn` when this call is cancelled, before its tasks are; at once if it is cancelled already."""
        if self.cancelled:
            fn()
        else:
            self._on_stop.append(fn)

    def _cancel(self) -> None:
        if self._task is None or self._task.done():
            return
        self._cancellations += 1
        first_tasks = not self._turn_of_tasks and bool(self._awaited())
        self._turn_of_tasks = first_tasks
        if first_tasks:
            self._cancel_tasks()
        while self._on_stop:
            try:
                self._on_stop.pop(0)()
            except Exception as exc:
                self.note_error("a function given to run.on_stop failed", exc)
        if not first_tasks:
            self._task.cancel()

    def _cancel_tasks(self) -> None:
        """Schedule one cancellation for each task. A second CancelledError would interrupt the cleanup of the task.

        asyncio merges cancellations of a task in one iteration of the loop. So these run in the same iteration as
        the functions given to `on_stop`, which may cancel the same tasks.
        """
        for task in self._unfinished():
            if task not in self._cleanups and self._is_due(task):
                # Later, because a task that is cancelled before its first step never runs, nor does its cleanup.
                self.bridge.loop.call_soon(self._cancel_once, task)

    def _is_due(self, task: asyncio.Task[Any]) -> bool:
        match self._at_stop(task):
            case "cancel":
                return True
            case "cancel_last":
                parent = self._children.get(task)
                return parent is None or parent not in self._children or parent.done()
        return False

    def _cancel_once(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelling():
            task.cancel()

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Record a task that was started within this call."""
        starter = self._children[task] = asyncio.current_task(self.bridge.loop)
        if self._tasks_first is None:
            return
        # Scheduled after the task's other callbacks, which may start tasks that clean up after it.
        task.add_done_callback(lambda _: self.bridge.loop.call_soon(self._note_end))
        if self._turn_of_tasks:
            if starter is None or starter.cancelling():
                self._cleanups.add(task)
            else:
                self._cancel_tasks()

    def _note_end(self) -> None:
        if self._turn_of_tasks and self._awaited():
            self._cancel_tasks()
        elif self._turn_of_tasks:
            self._cancel()

    def _awaited(self) -> list[asyncio.Task[Any]]:
        """Return the tasks that must end before the main task is cancelled."""
        return [task for task in self._unfinished() if self._at_stop(task) != "ignore"]

    def _at_stop(self, task: asyncio.Task[Any]) -> TaskStop:
        return "ignore" if self._tasks_first is None else self._tasks_first(task)

    def _unfinished(self) -> list[asyncio.Task[Any]]:
        return [task for task in self._children if not task.done()]

    async def _carry_out(self, fn: Callable[[], Awaitable[Any]]) -> None:
        try:
            coro = fn()
            self._result = outcome.Value(await (self._held(coro.__await__()) if self._tasks_first else coro))
        except BaseException as exc:
            # SystemExit is included. It would end the loop, and with it all other calls.
            self._result = outcome.Error(exc)
        await self._end_children()
        await self._end_processes()

    async def _end_processes(self) -> None:
        left = [process for process in self.processes if process.is_alive]
        if not left:
            return
        if not self.cancelled:
            pids = ", ".join(str(process.pid) for process in left)
            self._log(logging.WARNING, f"{self.name} left processes running, which are ended: {pids}")
        ending = asyncio.gather(*(process.end() for process in left))
        while not ending.done():
            try:
                await asyncio.shield(ending)
            except asyncio.CancelledError:
                # The first cancellation is the stop. The second means that the cleanup budget is spent.
                if self._cancellations > 1:
                    for process in left:
                        process.kill()

    async def wait_saved(self) -> None:
        """Wait for the tasks in which a framework saves a stopped run. They are not cancelled."""
        while left := [task for task in self._unfinished() if self._at_stop(task) == "wait"]:
            await asyncio.wait(left)

    @types.coroutine
    def _held(self, steps: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        """Drive a coroutine step by step. After a stop, suspend it until the framework's tasks have ended.

        A stop cancels those tasks first. The framework may then end its stream as if the answer were complete. If
        the handler continued at once, it would take the partial answer for the whole one.
        """
        error: BaseException | None = None
        while True:
            try:
                awaited = steps.send(None) if error is None else steps.throw(error)
            except StopIteration as end:
                result: T = end.value
                return result
            error = None
            try:
                yield awaited
                if self._turn_of_tasks:
                    yield from self.bridge.loop.create_future()  # never resolved: `_cancel` ends the wait
            except BaseException as exc:
                error = exc

    async def _end_children(self) -> None:
        self._turn_of_tasks = False
        # A cancellation here means that the cleanup budget is spent. Then the loop below cancels these tasks, too.
        with suppress(asyncio.CancelledError):
            await self.wait_saved()
        while left := self._unfinished():
            for task in left:
                text = f"{self.name} left the asyncio task {task.get_name()!r} running; it is cancelled"
                self._log(logging.WARNING, text)
                task.cancel()
            try:
                await asyncio.wait(left)
            except asyncio.CancelledError:
                continue  # the cleanup budget is spent: cancel the tasks once more, and wait for them again

    def _ended(self, _task: asyncio.Task[None]) -> None:
        if self._result is None:
            self._result = outcome.Error(asyncio.CancelledError())
        self.bridge.call_trio(self._finish)

    def _log(self, level: int, message: str, error: BaseException | None = None) -> None:
        """Log with the fields of the run that the call belongs to."""

        def log() -> None:
            add_log_fields(**self.fields)
            logger.log(level, message, exc_info=error)

        contextvars.copy_context().run(log)

    def note_error(self, message: str, error: BaseException | None) -> None:
        self._log(logging.ERROR, f"in {self.name}: {message}", error)

    # In Trio's thread.

    def _finish(self) -> None:
        self.done.set()
        self.on_done()


current_call: contextvars.ContextVar[Call | None] = contextvars.ContextVar(
    "trio_agentapp_bridge_call", default=None
)


async def wait_saved() -> None:
    """Wait until the framework of the running handler has saved the run that was stopped."""
    call = current_call.get()
    if call is not None:
        await call.wait_saved()


def name_of(fn: object) -> str:
    return getattr(fn, "__qualname__", None) or repr(fn)
