"""What an asyncio handler gets as `run`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio

from ..protocol.message import Message
from ..runs import Run, StopFlag
from .bridge import Bridge, current_items

__all__ = ["AsyncioRun"]

T = TypeVar("T")


class AsyncioRun:
    """A `Run`, usable from the asyncio loop: the same attributes, and methods that await there.

    An asyncio handler may await in `except` and `finally` as it likes, so `cleanup()` does nothing here.
    """

    def __init__(self, run: Run, bridge: Bridge) -> None:
        self._run = run
        self._bridge = bridge
        self.run_id = run.run_id
        self.user_id = run.user_id
        self.session_id = run.session_id
        self.token = run.token

    @property
    def stopping(self) -> StopFlag:
        return self._run.stopping

    @property
    def usage(self) -> Mapping[str, Any] | None:
        return self._run.usage

    @usage.setter
    def usage(self, usage: Mapping[str, Any] | None) -> None:
        self._bridge.call_trio(setattr, self._run, "usage", usage)

    async def emit(self, item: object) -> None:
        """Send an item, as a `yield` does, and after what was yielded before."""
        await current_items.get().send(item)

    async def receive(self) -> Message:
        """The next message that was sent to this run."""
        return await self._await_trio(self._run.receive)

    def on_exit(self, fn: Callable[[], Awaitable[object] | object]) -> None:
        """Call `fn` on the loop when the handler has ended; a coroutine function is awaited."""

        async def call() -> None:
            result = fn()
            if isinstance(result, Awaitable):
                await result

        self._bridge.call_trio(self._run.on_exit, lambda: self._bridge.run(call))

    def start_soon(self, fn: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> asyncio.Task[Any]:
        """Start an asyncio task that ends with the run."""
        return asyncio.get_running_loop().create_task(fn(*args))

    @asynccontextmanager
    async def cleanup(self) -> AsyncIterator[None]:
        yield

    async def _await_trio(self, fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Await a Trio function in a child task of the run. Raises what it raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        scope = trio.CancelScope()

        async def call() -> None:
            with scope:
                try:
                    result = await fn(*args)
                except Exception as exc:
                    _settle(future.set_exception, exc)
                else:
                    _settle(future.set_result, result)
                return
            _settle(future.cancel)

        def _settle(change: Callable[..., object], *values: object) -> None:
            loop.call_soon_threadsafe(lambda: None if future.done() else change(*values))

        self._bridge.call_trio(lambda: self._run.start_soon(call))
        try:
            return await future
        except asyncio.CancelledError:
            self._bridge.call_trio(lambda: scope.cancel(reason="the asyncio task was cancelled"))
            raise
