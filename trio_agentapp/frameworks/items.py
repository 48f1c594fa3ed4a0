"""The queue of items from an asyncio handler to the Trio task that reads them."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import trio

from ..runs.generators import drive_generator
from .call import AtStop, Call, Sides

__all__ = ["HIGH_WATER", "Items", "current_items"]

HIGH_WATER = 256
"""Number of queued items at which the asyncio handler is suspended."""

LOW_WATER = 64
"""Number of queued items at which the handler continues."""

TURN = 0.01
"""Seconds for which a generator that never awaits may run before other tasks of the loop get a turn."""

YIELDS_AFTER_STOP = 20_000
"""Number of items that a generator may yield after a stop without an await. Then the stop is raised at a yield."""


class Items:
    """Iterates in a Trio task over what an asyncio handler yields."""

    def __init__(
        self,
        bridge: Sides,
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
        self.forgotten = False
        """Whether this turn is not saved, because the state of the session is too large."""
        self.call = Call(bridge, name, tasks_first=tasks_first)
        self.call.on_done = self._note_change
        self.call.begin(lambda: self._pump(fn))

    def __aiter__(self) -> Items:
        return self

    async def __anext__(self) -> object:
        """Return the next item. After the last one, raise the error of the handler, if it raised one."""
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
            # A cancellation that arrives during a pause is raised in the generator, at its yield.
            await drive_generator(result, self._put, self._pause_of_generator)
        elif isinstance(result, AsyncIterator):
            async for item in result:
                await self.send(item)
        elif result is not None:
            await self.send(result)

    async def send(self, item: object) -> None:
        """Queue an item. Pause if the queue is full, or if other tasks have waited longer than `TURN`."""
        if self._put(item):
            await self._pause()

    def _put(self, item: object) -> bool:
        """Queue an item, and return whether to pause. Items after a stop are dropped, as from a Trio handler."""
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
            # Raise it at the next await instead. The task's count of cancellations does not change.
            task = asyncio.current_task()
            assert task is not None  # noqa: S101  this is a coroutine of the loop
            task.uncancel()
            task.cancel()

    async def _pause(self) -> None:
        if len(self._queue) >= HIGH_WATER and not self.call.cancelled:
            # Several tasks of the handler may wait here. They share one event.
            room = self._room = self._room or asyncio.Event()
            if len(self._queue) > LOW_WATER:
                await room.wait()
            if self._room is room:
                self._room = None
        else:
            await asyncio.sleep(0)
        self._turn_began = self._bridge.loop.time()


current_items: contextvars.ContextVar[Items] = contextvars.ContextVar("trio_agentapp_bridge_items")
"""The queue to which the running asyncio handler, and the tasks that it started, send items."""
