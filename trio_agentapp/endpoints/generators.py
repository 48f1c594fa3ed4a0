"""Sends the items of a user's generator as Server-Sent Events.

One task drives the generator and closes it; a synchronous generator is driven in one thread. The request's own
task writes the items to the client. A bounded buffer is between them, so a slow client pauses the generator.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Generator
from functools import partial
from typing import Any

import orjson
import trio

from ..errors import AgentAppError, RequestError
from ..protocol.exception_groups import unwrapped
from ..protocol.serialiser import to_json
from ..protocol.sse import KEEP_ALIVE
from ..runs.containment import contain
from ..runs.failures import is_cancelled
from ..runs.generators import drive_in_thread
from ..runs.stream import BATCH_WEIGHT
from ..runs.ticker import KEEP_ALIVE as QUIET
from ..server.stream_body import StreamBody
from .closing import interruptible, without_exit

__all__ = ["GeneratorBody", "Items"]

logger = logging.getLogger("trio_agentapp.endpoints")

Items = AsyncGenerator[Any, Any] | Generator[Any, Any, Any]

TURN = 0.01
"""Seconds for which a generator that does not await may run before other tasks. Its items become one write."""

BUFFER = BATCH_WEIGHT
"""Number of unsent bytes at which the generator is suspended. The last item may exceed it."""


class GeneratorBody(StreamBody):
    """The body of one response.

    `budget` is the time in seconds that the generator has for its cleanup. `threads` limits synchronous generators.

    When the client disconnects, the generator is closed: GeneratorExit is raised at the `yield` or `await` where it
    is suspended, and its `finally` may await until the budget is used up. The same happens when the server shuts
    down, and the client gets a last event that reports it.
    """

    def __init__(
        self, items: Items, *, name: str, budget: float, threads: trio.CapacityLimiter, debug: bool = False
    ) -> None:
        self._items = items
        self._name = name
        self._budget = budget
        self._threads = threads
        self._debug = debug
        self._buffer = bytearray()
        self._begun = False
        self._over = False
        self._leaving = False
        self._nudged = False
        self._written_at = 0.0
        self._turn_began = 0.0
        self._filled = trio.Event()
        self._room = trio.Event()
        # Shielded, so that only `_close` ends the generator.
        self._driving = trio.CancelScope(shield=True)
        self._cleanup = trio.CancelScope()
        self._beating = trio.CancelScope()
        self._nursery: Any = None

    # In the task of the request.

    async def __aenter__(self) -> GeneratorBody:
        self._nursery = trio.open_nursery()
        nursery = await self._nursery.__aenter__()
        self._written_at = trio.current_time()
        nursery.start_soon(self._beat, name=f"heartbeat of {self._name}")
        nursery.start_soon(self._produce, name=f"generator of {self._name}")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close("the client has left")
        # The exception is not given to the nursery, which would cancel its tasks instead of awaiting the cleanup.
        await self._nursery.__aexit__(None, None, None)

    def __aiter__(self) -> GeneratorBody:
        return self

    async def __anext__(self) -> bytes:
        if not self._begun:
            # An empty write sends the headers at once, because the first item may take long.
            self._begun = True
            return b""
        while not self._buffer:
            if self._over:
                raise StopAsyncIteration
            if self._nudged:
                self._nudged = False
                self._written_at = trio.current_time()
                return KEEP_ALIVE
            self._filled = trio.Event()
            await self._filled.wait()
        data = bytes(self._buffer)
        self._buffer.clear()
        self._nudged = False
        self._room.set()
        self._written_at = trio.current_time()
        self._turn_began = time.monotonic()
        return data

    def wind_down(self) -> None:
        self._leaving = True
        self._close("the server is shutting down")

    async def _beat(self) -> None:
        """Send a comment after `QUIET` seconds without a write. The timer is not restarted at each item."""
        with self._beating:
            while True:
                await trio.sleep_until(self._written_at + QUIET)
                if trio.current_time() >= self._written_at + QUIET:
                    self._nudged = True
                    self._filled.set()
                    # The comment may wait for a full socket. A client that has data to read needs no second one.
                    self._written_at = trio.current_time()

    # In the task of the generator.

    def _close(self, reason: str) -> None:
        if not self._driving.cancel_called:
            self._cleanup.deadline = trio.current_time() + self._budget
            self._driving.cancel(reason=reason)

    async def _produce(self) -> None:
        failure: BaseException | None = None
        try:
            with self._driving:
                try:
                    with self._cleanup:
                        (await contain(self._drive)).unwrap()
                except BaseException as exc:
                    if is_cancelled(exc):
                        raise
                    failure = exc
        finally:
            closed = self._driving.cancel_called
            if self._cleanup.cancelled_caught:
                words = "endpoint %s: its cleanup took longer than %g s and was cut"
                logger.warning(words, self._name, self._budget)
            if closed and failure is not None:
                failure = without_exit(failure)
            if failure is not None:
                logger.error(
                    "endpoint %s: its stream failed%s",
                    self._name,
                    " when it was closed" if closed else "",
                    exc_info=failure,
                )
            if self._leaving:
                self._add(SHUTDOWN)
            elif failure is not None and not closed:
                self._add(_failure_of(failure, debug=self._debug))
            self._over = True
            self._filled.set()
            self._beating.cancel(reason="the generator has ended")

    async def _drive(self) -> None:
        if isinstance(self._items, AsyncGenerator):
            await self._drive_here(self._items)
        else:
            drive = partial(drive_in_thread, self._items, self._send_from_thread, throws=Exception)
            await trio.to_thread.run_sync(drive, limiter=self._threads)

    async def _drive_here(self, items: AsyncGenerator[Any, Any]) -> None:
        raised: Exception | None = None
        try:
            # A generator that is closed before its first step is not started. It would run up to its first await.
            await trio.lowlevel.checkpoint_if_cancelled()
            while True:
                step: Awaitable[Any] = anext(items) if raised is None else items.athrow(raised)
                try:
                    item = await interruptible(step, self._begin_cleanup)
                except StopAsyncIteration:
                    return
                # An error of `_send` is thrown into the generator in the next step, outside of the `except` below.
                # Otherwise Python would set it as the context of what the generator raises.
                raised = None
                try:
                    await self._send(item)
                except Exception as exc:
                    raised = exc
        finally:
            self._cleanup.shield = True
            await items.aclose()

    def _begin_cleanup(self) -> bool:
        """Return whether this cancellation closes the generator. If so, shield the generator's cleanup."""
        if self._cleanup.shield or not self._driving.cancel_called:
            return False
        self._cleanup.shield = True
        return True

    async def _send(self, item: object) -> None:
        """Put an item into the buffer, and wait while it is full.

        Raises ItemError if the item cannot be written as JSON, and Cancelled after the stream was closed.
        """
        self._add(to_json(item))
        if len(self._buffer) >= BUFFER:
            self._room = trio.Event()
            await self._room.wait()
        elif self._driving.cancel_called or time.monotonic() - self._turn_began >= TURN:
            self._turn_began = time.monotonic()
            await trio.lowlevel.checkpoint()

    def _send_from_thread(self, item: object) -> None:
        trio.from_thread.run(self._send, item)

    def _add(self, json: bytes) -> None:
        self._buffer += b"data: %b\n\n" % json
        self._filled.set()


SHUTDOWN = orjson.dumps(
    {"error": "shutdown", "error_type": "Cancelled", "message": "The server is shutting down; the stream is cut."}
)


def _failure_of(error: BaseException, *, debug: bool) -> bytes:
    """Return the last event of a failed stream. The text of an internal error is included only with `debug`."""
    error = unwrapped(error)
    public = isinstance(error, RequestError)
    return orjson.dumps(
        {
            "error": error.code if isinstance(error, RequestError) else "internal",
            "error_type": _public_type(error),
            "message": str(error)[:10_000] if debug or public else "Something went wrong in this stream.",
        }
    )


def _public_type(error: BaseException) -> str:
    """Return the name of the first class in the error's MRO that is not defined in this package."""
    ours = AgentAppError.__module__.partition(".")[0]
    return next(cls.__name__ for cls in type(error).__mro__ if cls.__module__.partition(".")[0] != ours)
