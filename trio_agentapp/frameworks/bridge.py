"""Runs one asyncio loop in its own thread, and calls functions between it and Trio.

The loop has a thread so that a handler that blocks it delays other asyncio handlers only. Trio handlers, `/health`
and stops continue. An item is cheap, because one wake-up of Trio serves all items that have arrived.

Ownership: each call from Trio is one asyncio task. The Trio task waits for it, also after cancelling it. When the
asyncio task ends, the tasks that it started and did not await are cancelled and awaited, and the processes of the
run are ended. So nothing of a call runs after it has returned, as with a nursery. A client that must outlive a run
belongs in the app's lifespan: make it there with `Bridge.run` or `Bridge.open`.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import trio

from ..errors import AgentAppError
from ..nursery import nursery_around
from ..runs import current_run
from ..runs.failures import is_cancelled
from .call import AtStop, Call, current_call, name_of
from .items import Items
from .processes import ProcessGroup, ProcessLoop

__all__ = ["Bridge", "BridgeClosed", "bridge_here", "open_bridge"]

logger = logging.getLogger("trio_agentapp.frameworks")

T = TypeVar("T")

CLOSE_TIMEOUT = 5.0
"""Seconds for the thread to end when the app ends. Remaining tasks have half of it to end."""


class BridgeClosed(AgentAppError):
    """The asyncio loop of the app is not running, because the app has not started or has ended."""


class Task(asyncio.Task[T]):
    """A task with a reference to the call in which it was started.

    asyncio reports an unretrieved error when the task is freed. By then the garbage collector has cleared weak
    references to the task, so a weak map from tasks to calls would not have it.
    """

    call: Call | None = None


class Bridge:
    """Awaits asyncio code from Trio. The app has one as `app.bridge`; its thread starts with the first use."""

    def __init__(self, nursery: trio.Nursery) -> None:
        """`nursery`: runs the Trio functions that asyncio code awaits."""
        self.loop: asyncio.AbstractEventLoop
        """Created by the first call, which also starts its thread."""
        self._nursery = nursery
        self._awaited: set[trio.CancelScope] = set()
        self._trio = trio.lowlevel.current_trio_token()
        self._thread = threading.Thread(target=self._serve, name="asyncio loop of trio-agentapp", daemon=True)
        self._started = False
        self._closed = False

    async def run(self, fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Await `fn(*args)` on the asyncio loop. Returns what it returns, and raises what it raises.

        If the Trio task is cancelled, `fn` gets one `asyncio.CancelledError`. Its cleanup may await, and this
        method waits for its end. `fn` can read the context variables of the Trio task.

        Raises:
            BridgeClosed: the app has not started yet, or has ended.
        """
        call = Call(self, name_of(fn))
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
        """Enter and exit an asyncio context manager, such as a client or a connection pool, on the loop.

        The same asyncio task enters and exits it, because managers with task groups or timeouts require that.
        """
        opened: list[T] = []
        changed = trio.Event()
        leave = asyncio.Event()

        async def hold() -> None:
            async with manager as value:
                opened.append(value)
                self.call_trio(changed.set)
                await leave.wait()

        call = Call(self, type(manager).__qualname__)
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

        `fn` is an async generator function, or a coroutine function whose result is the only item. If the block is
        exited before the last item, `fn` gets one `asyncio.CancelledError` at its current await or yield, and the
        block waits until `fn` has ended.

        Args:
            tasks_first: cancel the asyncio tasks that `fn` started, and wait for their end, before `fn` gets its
                error. It is called with each of these tasks, and returns what to do with it.
            in_stream: raise the error at an await of `fn`, and not at a yield, unless no await follows.
        """
        items = Items(self, fn, name, tasks_first=tasks_first, in_stream=in_stream)
        try:
            yield items
        finally:
            await items.call.end()
            if items.call.cancelled and not items.call.was_cancelled:
                # Raise the error that `fn` raised during its cleanup.
                items.call.unwrap()

    async def await_trio(self, fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Await the Trio function `fn(*args)` from a task of the loop. Returns its result, or raises its error.

        `fn` sees the context variables of the asyncio task. It is cancelled only if that task is cancelled, so an
        asyncio handler can also await it in `finally`.
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
            # Wait for the end of `fn`, because it may be in the middle of a write.
            await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # marks it as retrieved; asyncio logs unretrieved exceptions
            raise

    # Calls from one thread to the other.

    def call_asyncio(self, fn: Callable[..., object], *args: Any) -> None:
        """Schedule `fn(*args)` in the thread of the loop. Start the loop if needed. Raises BridgeClosed."""
        if self._closed:
            raise BridgeClosed("The asyncio loop does not run. It runs from the start of the app to its end.")
        if not self._started:
            self._started = True
            self.loop = ProcessLoop(self._note_process)
            self.loop.set_task_factory(self._make_task)  # type: ignore[arg-type]  # options differ by Python version
            self.loop.set_exception_handler(self._on_error)
            self._thread.start()
        self.loop.call_soon_threadsafe(fn, *args)

    def call_trio(self, fn: Callable[..., object], *args: Any) -> None:
        """Schedule `fn(*args)` in Trio's thread."""
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
                except BaseException as exc:
                    # All runs share the nursery, so only the cancellation of this scope may be raised into it.
                    if is_cancelled(exc):
                        raise
                    change = partial(future.set_exception, exc)
            self._awaited.discard(scope)
            with suppress(RuntimeError):  # the loop is closed, so no task waits for the result
                self.loop.call_soon_threadsafe(lambda: None if future.done() else change())

        if self._closed:
            scope.cancel(reason="the app ends")
        self._awaited.add(scope)
        self._nursery.start_soon(call, name=name_of(fn))

    # In the thread of the loop.

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        while True:
            try:
                self.loop.run_forever()
                break
            except (SystemExit, KeyboardInterrupt) as exc:
                # These exceptions end an asyncio loop, even if a task raises them that no other task awaits.
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
        call = current_call.get() if context is None else context.get(current_call)
        task = Task(coro, loop=loop, context=context, **options)
        task.call = call
        if call is not None:
            call.adopt(task)
        return task

    @staticmethod
    def _note_process() -> Callable[[ProcessGroup], object] | None:
        call = current_call.get()
        # A process that a lifespan starts, such as a tool server, belongs to no run. It outlives its call.
        return None if call is None or current_run.get(None) is None else call.processes.append

    def _on_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log an error that no code handles: of a task that is not awaited, a callback or a transport."""
        task = context.get("task") or context.get("future")
        # For a callback asyncio gives its handle. The handle's context has a public name only since Python 3.12.
        around = getattr(context.get("handle"), "_context", None)
        if isinstance(task, asyncio.Task):
            call = getattr(task, "call", None)
        else:
            call = current_call.get() if around is None else around.get(current_call)
        if call is not None:
            call.note_error(context["message"], context.get("exception"))
        else:
            logger.error("outside of any run: %s", context["message"], exc_info=context.get("exception"))

    # Closing.

    async def _close(self) -> None:
        self._closed = True
        if not self._started:
            return
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_TIMEOUT) as scope:
            self.loop.call_soon_threadsafe(self._stop)
            await trio.to_thread.run_sync(self._thread.join, abandon_on_cancel=True)
        if scope.cancelled_caught:
            logger.error("the asyncio loop is blocked, so its thread could not be joined; it ends with the process")
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
    """Open a bridge. At the end of the block the remaining tasks are cancelled, and the thread is joined."""
    async with nursery_around() as nursery:
        bridge = Bridge(nursery)
        try:
            yield bridge
        finally:
            await bridge._close()


def bridge_here() -> Bridge | None:
    """Return the bridge whose loop runs this code; None in Trio tasks and in worker threads."""
    call = current_call.get()
    bridge = None if call is None else call.bridge
    return bridge if isinstance(bridge, Bridge) and asyncio._get_running_loop() is bridge.loop else None
