"""One asyncio loop in a thread of its own, and the ways between it and Trio.

Why a thread: a handler that blocks its loop then stalls other asyncio handlers and nothing else; Trio handlers,
`/health` and stops go on. One wake-up of Trio serves all items that arrived meanwhile, so an item is cheap.

Who owns what: each call from Trio is one asyncio task, which the Trio side waits for, also after it has cancelled
it. asyncio tasks that this one started and did not await are cancelled and awaited when it ends, and processes of a
run are ended. So when a call returns, nothing of it runs, as with a nursery. A client that is to outlive a run
belongs into the app's lifespan, made by `Bridge.run` or `Bridge.open`.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
import types
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import outcome
import trio

from ..abc.frameworks import TaskStop
from ..errors import AgentAppError
from ..nursery import nursery_around
from ..runs import current_run
from ..runs.generators import drive_generator
from ..runs.log_fields import add_log_fields, log_fields
from .processes import ProcessGroup, ProcessLoop

__all__ = ["Bridge", "BridgeClosed", "Items", "bridge_here", "open_bridge", "wait_saved"]

logger = logging.getLogger("trio_agentapp.frameworks")

T = TypeVar("T")

AtStop = Callable[["asyncio.Task[Any]"], TaskStop]

HIGH_WATER = 256
"""Items on their way to Trio at which the asyncio side waits."""

LOW_WATER = 64
"""Items on their way at which it continues."""

TURN = 0.01
"""Seconds for which a generator that never awaits may keep the loop from other tasks."""

YIELDS_AFTER_STOP = 20_000
"""Items that a generator may yield without an await until a stop is raised at its yield after all."""

CLOSE_TIMEOUT = 5.0
"""Seconds that tasks which are left when the app ends have, and then the thread."""


class BridgeClosed(AgentAppError):
    """The asyncio loop of the app does not run: the app has not started, or has ended."""


class _Call:
    """One asyncio task that a Trio task waits for."""

    def __init__(self, bridge: Bridge, name: str, *, tasks_first: AtStop | None = None) -> None:
        """`tasks_first`: a cancellation reaches the tasks that this one has started, and then this one."""
        self.name = name
        self.done = trio.Event()
        self.cancelled = False
        self.on_done: Callable[[], None] = lambda: None
        self._tasks_first = tasks_first
        self._children: weakref.WeakKeyDictionary[asyncio.Task[Any], asyncio.Task[Any] | None]
        """Tasks that were started within this one, in this order, and by which task."""
        self._children = weakref.WeakKeyDictionary()
        self._cleanups: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        """Tasks that were started because a stop has ended others."""
        self._on_stop: list[Callable[[], object]] = []
        self.processes: list[ProcessGroup] = []
        self.fields = log_fields()
        self.bridge = bridge
        self._result: outcome.Outcome[Any] | None = None
        self._task: asyncio.Task[None] | None = None
        self._turn_of_tasks = False
        self._cancellations = 0
        self._context = contextvars.copy_context()
        self._context.run(_call.set, self)

    def begin(self, fn: Callable[[], Awaitable[Any]]) -> None:
        """Await `fn()` on the loop, with the context variables of this Trio task."""
        self.bridge.call_asyncio(self._begin, fn)

    def cancel(self) -> None:
        """Raise one `asyncio.CancelledError` in the task, at its next await."""
        self.cancelled = True
        self.bridge.call_asyncio(self._cancel)

    async def end(self) -> None:
        """Cancel the task and wait for its end, whatever it does.

        A task of a run has the run's cleanup budget. If it still runs then, it is cancelled once more and waited
        for without a limit, which is how a run becomes stuck.
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
        """The result of a task that has ended, or its exception.

        Raises RuntimeError for a CancelledError that is not an answer to `cancel`.
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
        # Not at the end of the coroutine: one that is cancelled before its first step never runs.
        task.add_done_callback(self._ended)
        self._task = task

    def on_stop(self, fn: Callable[[], object]) -> None:
        """Call `fn` when this call is cancelled, before any task is; at once if it has been."""
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
        """Cancel each task once, soon; in its cleanup a second CancelledError would break it.

        asyncio joins cancellations of one turn of the loop. So all of these take place in one turn, together with
        those of the functions given to `on_stop`.
        """
        for task in self._unfinished():
            if task not in self._cleanups and self._is_due(task):
                # Not at once: a task that is cancelled before its first step never runs, and its cleanup neither.
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
        """A task was started by this one, or by another that it has started."""
        starter = self._children[task] = asyncio.current_task(self.bridge.loop)
        if self._tasks_first is None:
            return
        # Other callbacks of the task come first: they may start tasks that clean up after it.
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
        """The tasks that have to end before this one is cancelled."""
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
            # Also SystemExit, which would end the loop and with it all other calls.
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
                # The first one is the stop, the second one says that the cleanup budget is spent.
                if self._cancellations > 1:
                    for process in left:
                        process.kill()

    async def wait_saved(self) -> None:
        """Wait for the tasks that end by themselves, in which a framework saves."""
        while left := [task for task in self._unfinished() if self._at_stop(task) == "wait"]:
            await asyncio.wait(left)

    @types.coroutine
    def _held(self, steps: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        """Await what has these steps. From a stop until the tasks have ended nothing wakes it up.

        Frameworks end the stream of a task that is cancelled, which a handler would take for the end of the answer.
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
                    yield from self.bridge.loop.create_future()  # it ends by `_cancel`
            except BaseException as exc:
                error = exc

    async def _end_children(self) -> None:
        self._turn_of_tasks = False
        # If it is cancelled because the cleanup budget is spent, these tasks are cancelled as all others are.
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
                continue  # the cleanup budget is spent: they are cancelled once more, and waited for all the same

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


_call: contextvars.ContextVar[_Call | None] = contextvars.ContextVar("trio_agentapp_bridge_call", default=None)


def bridge_here() -> Bridge | None:
    """The bridge on whose loop this code runs; None in Trio tasks and in threads."""
    call = _call.get()
    return call.bridge if call is not None and asyncio._get_running_loop() is call.bridge.loop else None


async def wait_saved() -> None:
    """Wait until the framework of the running handler has saved what it saves because of a stop."""
    call = _call.get()
    if call is not None:
        await call.wait_saved()


class Bridge:
    """Awaits asyncio code from Trio. The app has one as `app.bridge`; its thread starts with the first use."""

    def __init__(self, nursery: trio.Nursery) -> None:
        """`nursery`: where Trio functions run that asyncio code awaits."""
        self.loop: asyncio.AbstractEventLoop
        """Made with its thread, by the first call."""
        self._nursery = nursery
        self._awaited: set[trio.CancelScope] = set()
        self._trio = trio.lowlevel.current_trio_token()
        self._thread = threading.Thread(target=self._serve, name="asyncio loop of trio-agentapp", daemon=True)
        self._started = False
        self._closed = False
        self._owners: weakref.WeakKeyDictionary[asyncio.Task[Any], _Call] = weakref.WeakKeyDictionary()

    async def run(self, fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Await `fn(*args)` on the asyncio loop. Returns what it returns, and raises what it raises.

        A cancellation of the Trio task becomes one `asyncio.CancelledError` in `fn`, which may await as it likes
        and is waited for. `fn` can read the context variables of the Trio task.

        Raises:
            BridgeClosed: the app has not started yet, or has ended.
        """
        call = _Call(self, _name_of(fn))
        call.begin(lambda: fn(*args))
        try:
            await call.done.wait()
        except trio.Cancelled:
            await call.end()
            if call.was_cancelled:
                raise
        result: T = call.unwrap()
        return result

    @asynccontextmanager
    async def open(self, manager: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
        """Enter an asyncio context manager on the loop, and leave it there: a client, or a pool of connections.

        One asyncio task enters and leaves it, as managers that hold task groups or timeouts need.
        """
        opened: list[T] = []
        changed = trio.Event()
        leave = asyncio.Event()

        async def hold() -> None:
            async with manager as value:
                opened.append(value)
                self.call_trio(changed.set)
                await leave.wait()

        call = _Call(self, type(manager).__qualname__)
        call.on_done = changed.set
        call.begin(hold)
        try:
            await changed.wait()
            if not opened:
                call.unwrap()
            yield opened[0]
        finally:
            with trio.CancelScope(shield=True):
                if opened:
                    self.call_asyncio(leave.set)
                    await call.done.wait()
                else:
                    await call.end()
        call.unwrap()

    @asynccontextmanager
    async def items(
        self,
        fn: Callable[[], Any],
        name: str,
        *,
        tasks_first: AtStop | None = None,
        in_stream: bool = False,
    ) -> AsyncIterator[Items]:
        """Call `fn` on the loop, and iterate over what it yields.

        `fn` is an asynchronous generator function, or a coroutine function, whose result is the one item. If the
        block is left before the last item, `fn` gets one `asyncio.CancelledError` at its await or yield, and is
        waited for. `tasks_first`: the asyncio tasks that it has started get theirs before, and have ended when `fn`
        gets its own; it is called with each of them, and may exempt some. `in_stream`: never at a yield, if an
        await follows.
        """
        items = Items(self, fn, name, tasks_first=tasks_first, in_stream=in_stream)
        try:
            yield items
        finally:
            await items.call.end()
            if items.call.cancelled and not items.call.was_cancelled:
                # What it raised while it was stopped.
                items.call.unwrap()

    async def await_trio(self, fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Await the Trio function `fn(*args)` from a task of the loop. Returns or raises what it does.

        It sees the context variables of the asyncio task. Only a cancellation of that task cancels it, so an
        asyncio handler can also await in `finally`.
        """
        future: asyncio.Future[T] = self.loop.create_future()
        scope = trio.CancelScope(shield=True)
        self.call_trio(contextvars.copy_context().run, self._start_awaited, fn, args, scope, future)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if future.done():
                raise
            self.call_trio(lambda: scope.cancel(reason="the asyncio task was cancelled"))
            # It may be in a write, which is completed.
            await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # asyncio logs those that nobody reads
            raise

    # Between the threads.

    def call_asyncio(self, fn: Callable[..., object], *args: Any) -> None:
        """Call `fn` in the thread of the loop soon. Raises BridgeClosed."""
        if self._closed:
            raise BridgeClosed("The asyncio loop does not run: it lives from the start of the app to its end.")
        if not self._started:
            self._started = True
            self.loop = ProcessLoop(self._note_process)
            self.loop.set_task_factory(self._make_task)  # type: ignore[arg-type]  # options differ by Python version
            self.loop.set_exception_handler(self._on_error)
            self._thread.start()
        self.loop.call_soon_threadsafe(fn, *args)

    def call_trio(self, fn: Callable[..., object], *args: Any) -> None:
        """Call `fn` in Trio's thread soon."""
        self._trio.run_sync_soon(fn, *args)

    # In Trio's thread.

    def _start_awaited(
        self, fn: Callable[..., Awaitable[T]], args: Any, scope: trio.CancelScope, future: asyncio.Future[T]
    ) -> None:
        async def call() -> None:
            change: Callable[[], object] = future.cancel
            with scope:
                try:
                    change = partial(future.set_result, await fn(*args))
                except Exception as exc:
                    change = partial(future.set_exception, exc)
            self._awaited.discard(scope)
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                self.loop.call_soon_threadsafe(lambda: None if future.done() else change())

        if self._closed:
            scope.cancel(reason="the app ends")
        self._awaited.add(scope)
        self._nursery.start_soon(call, name=_name_of(fn))

    # The thread of the loop.

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        while True:
            try:
                self.loop.run_forever()
                break
            except (SystemExit, KeyboardInterrupt) as exc:
                # asyncio ends its loop for these, also when a task that nobody awaits raises them.
                logger.error("an asyncio task raised %r, and the loop continues", exc)  # noqa: TRY400
        self.loop.close()

    def _make_task(
        self,
        loop: asyncio.AbstractEventLoop,
        coro: Coroutine[Any, Any, T],
        *,
        context: contextvars.Context | None = None,
        **options: Any,
    ) -> asyncio.Task[T]:
        task = asyncio.Task(coro, loop=loop, context=context, **options)
        call = _call.get() if context is None else context.get(_call)
        if call is not None:
            call.adopt(task)
            self._owners[task] = call
        return task

    @staticmethod
    def _note_process() -> Callable[[ProcessGroup], object] | None:
        call = _call.get()
        # A process that a lifespan starts, such as a tool server, is not of a run, and outlives the call.
        return None if call is None or current_run.get(None) is None else call.processes.append

    def _on_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log an error that no code awaits: of a stray task, a callback, a transport."""
        task = context.get("task") or context.get("future")
        call = self._owners.get(task) if isinstance(task, asyncio.Task) else _call.get()
        if call is not None:
            call.note_error(context["message"], context.get("exception"))
        else:
            logger.error("outside of any run: %s", context["message"], exc_info=context.get("exception"))

    # The end.

    async def _close(self) -> None:
        self._closed = True
        if not self._started:
            return
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_TIMEOUT) as scope:
            self.loop.call_soon_threadsafe(self._stop)
            await trio.to_thread.run_sync(self._thread.join, abandon_on_cancel=True)
        if scope.cancelled_caught:
            logger.error("the asyncio loop is blocked; its thread ends with the process")
        for awaited in self._awaited:
            awaited.cancel(reason="the app ends")

    def _stop(self) -> None:
        stopping = self.loop.create_task(self._wind_up(), context=contextvars.Context())
        stopping.add_done_callback(lambda _: self.loop.stop())

    async def _wind_up(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            _, stubborn = await asyncio.wait(left, timeout=CLOSE_TIMEOUT / 2)
            for task in stubborn:
                logger.error("the asyncio task %r does not end", task.get_name())
        await self.loop.shutdown_asyncgens()
        await self.loop.shutdown_default_executor()


@asynccontextmanager
async def open_bridge() -> AsyncIterator[Bridge]:
    """Open a bridge. At the end of the block tasks that are left are cancelled, and the thread is joined."""
    async with nursery_around() as nursery:
        bridge = Bridge(nursery)
        try:
            yield bridge
        finally:
            await bridge._close()


class Items:
    """What an asyncio handler yields, as a Trio task reads it."""

    def __init__(
        self,
        bridge: Bridge,
        fn: Callable[[], Any],
        name: str,
        *,
        tasks_first: AtStop | None,
        in_stream: bool,
    ) -> None:
        self._bridge = bridge
        self._queue: deque[object] = deque()
        self._announced = False
        self._room: asyncio.Event | None = None
        self._turn_began = 0.0
        self._yields_left = YIELDS_AFTER_STOP if in_stream else 0
        self._changed = trio.Event()
        self.call = _Call(bridge, name, tasks_first=tasks_first)
        self.call.on_done = self._note_change
        self.call.begin(lambda: self._pump(fn))

    def __aiter__(self) -> Items:
        return self

    async def __anext__(self) -> object:
        """The next item. Raises what the handler raised, at the end."""
        while not self._queue:
            if self.call.done.is_set():
                self.call.unwrap()
                raise StopAsyncIteration
            self._changed = trio.Event()
            if not self._queue:
                await self._changed.wait()
        item = self._queue.popleft()
        if self._room is not None and len(self._queue) <= LOW_WATER:
            room, self._room = self._room, None
            self._bridge.call_asyncio(room.set)
        return item

    def _note_change(self) -> None:
        self._announced = False
        self._changed.set()

    # In the thread of the loop.

    async def _pump(self, fn: Callable[[], Any]) -> None:
        current_items.set(self)
        self._turn_began = self._bridge.loop.time()
        result = fn()
        if inspect.isawaitable(result):
            result = await result
        if inspect.isasyncgen(result):
            # A cancellation that arrives meanwhile is raised in the generator, at its yield.
            await drive_generator(result, self._put, self._pause_of_generator)
        elif isinstance(result, AsyncIterator):
            async for item in result:
                await self.send(item)
        elif result is not None:
            await self.send(result)

    async def send(self, item: object) -> None:
        """Send an item, and wait if Trio is far behind or other tasks have waited for long."""
        if self._put(item):
            await self._pause()

    def _put(self, item: object) -> bool:
        """Put an item on its way; returns whether to pause. After a stop it is dropped, as from a Trio handler."""
        if not self.call.cancelled:
            self._queue.append(item)
            if not self._announced:
                self._announced = True
                self._bridge.call_trio(self._note_change)
        return len(self._queue) >= HIGH_WATER or self._bridge.loop.time() - self._turn_began > TURN

    async def _pause_of_generator(self) -> None:
        try:
            await self._pause()
        except asyncio.CancelledError:
            if not self._yields_left:
                raise
            self._yields_left -= 1
            # Raise it at the next await instead. The count of cancellations stays what it was.
            task = asyncio.current_task()
            assert task is not None  # noqa: S101  this is a coroutine of the loop
            task.uncancel()
            task.cancel()

    async def _pause(self) -> None:
        if len(self._queue) >= HIGH_WATER and not self.call.cancelled:
            # Tasks of the handler may send, too: all that wait share one event.
            room = self._room = self._room or asyncio.Event()
            if len(self._queue) > LOW_WATER:
                await room.wait()
            if self._room is room:
                self._room = None
        else:
            await asyncio.sleep(0)
        self._turn_began = self._bridge.loop.time()


current_items: contextvars.ContextVar[Items] = contextvars.ContextVar("trio_agentapp_bridge_items")
"""Where the running asyncio handler, and tasks that it has started, send items."""


def _name_of(fn: object) -> str:
    return getattr(fn, "__qualname__", None) or repr(fn)
