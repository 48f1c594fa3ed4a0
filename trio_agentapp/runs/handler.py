"""The user's function, whatever its shape, as one thing that can be called with a place to send items to.

A `yield` of a handler behaves like a call of `emit`: what `emit` raises is raised at the yield, a stop included. So
a handler meets `Cancelled` at its awaits and at its yields alike, and may shield its cleanup in either case. Only
the task that calls a generator ever resumes it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Generator, Mapping
from contextlib import aclosing
from enum import Enum
from typing import Any

import trio

from ..errors import ConfigurationError
from .run import Run

__all__ = ["MAX_HANDLER_THREADS", "Handler", "HandlerKind", "kind_of"]

Emit = Callable[[object], Awaitable[None]]

MAX_HANDLER_THREADS = 200
"""Synchronous handlers that run at once; more wait for a thread. Not Trio's default of 40, which others share."""

OFFERED = ("self", "msgs", "request", "run", "app")


class HandlerKind(Enum):
    ASYNC_GENERATOR = "async generator"
    COROUTINE = "coroutine"
    SYNC_GENERATOR = "sync generator"
    SYNC = "sync function"


class Handler:
    """A user's function with what is known of it: its kind, its name, and the parameters it asks for.

    Raises:
        ConfigurationError: it is not callable, or needs a parameter that handlers are not given.
    """

    def __init__(self, fn: Callable[..., Any]) -> None:
        if not callable(fn):
            raise ConfigurationError(f"a handler must be callable, not {type(fn).__name__}")
        self.fn = fn
        self.name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
        self.kind = kind_of(fn)
        self._wanted, self._wants_rest = self._read_signature()
        self.warned_of_silence = False
        self._threads = trio.CapacityLimiter(MAX_HANDLER_THREADS)

    @property
    def in_thread(self) -> bool:
        return self.kind in (HandlerKind.SYNC, HandlerKind.SYNC_GENERATOR)

    def _read_signature(self) -> tuple[tuple[str, ...], bool]:
        wanted: list[str] = []
        rest = False
        try:
            signature = inspect.signature(self.fn)
        except ValueError as exc:
            raise ConfigurationError(f"handler {self.name}: its signature cannot be read") from exc
        for parameter in signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                rest = True
            elif parameter.kind is parameter.VAR_POSITIONAL:
                continue
            elif parameter.kind is parameter.POSITIONAL_ONLY:
                raise ConfigurationError(
                    f"handler {self.name}: parameters are given by name, and {parameter.name!r} is positional-only"
                )
            elif parameter.name in OFFERED:
                wanted.append(parameter.name)
            elif parameter.default is parameter.empty:
                raise ConfigurationError(
                    f"handler {self.name}: parameter {parameter.name!r} is not one that handlers are given; "
                    f"those are {', '.join(OFFERED)}, and **kwargs"
                )
        return tuple(wanted), rest

    def arguments(self, offered: Mapping[str, object]) -> dict[str, object]:
        """Those of `offered` that the function asks for; with `**kwargs`, also the others except `self`."""
        if self._wants_rest:
            return {name: value for name, value in offered.items() if name != "self" or name in self._wanted}
        return {name: offered[name] for name in self._wanted}

    async def __call__(self, run: Run, offered: Mapping[str, object]) -> None:
        """Execute the function and send its items to `run.emit`. Raises what the function raises."""
        arguments = self.arguments(offered)
        match self.kind:
            case HandlerKind.ASYNC_GENERATOR:
                await _drain(self.fn(**arguments), run)
            case HandlerKind.COROUTINE:
                await self._send(await self.fn(**arguments), run)
            case HandlerKind.SYNC | HandlerKind.SYNC_GENERATOR:
                # A thread cannot be cancelled, so the flag it may read must be set also by a deadline.
                run.start_soon(_raise_flag, run, name=f"stop flag of {run.run_id}")
                call = functools.partial(self.fn, **arguments)
                for left in await trio.to_thread.run_sync(_in_thread, call, run.emit, limiter=self._threads):
                    await self._send(left, run)

    async def _send(self, result: object, run: Run) -> None:
        """Send what a function returned: nothing, one item, or a generator of items that it made."""
        if inspect.isasyncgen(result):
            await _drain(result, run)
        elif inspect.isgenerator(result):
            await trio.to_thread.run_sync(_in_thread, lambda: result, run.emit, limiter=self._threads)
        elif isinstance(result, AsyncIterable):
            items = aiter(result)
            if inspect.isasyncgen(items):
                await _drain(items, run)
            else:
                async for item in items:
                    await run.emit(item)
        elif inspect.isawaitable(result):
            await run.emit(await result)
        else:
            await run.emit(result)


def kind_of(fn: Callable[..., Any]) -> HandlerKind:
    """What calling it gives, as far as can be told without a call."""
    plain: Any = fn
    while plain is not None:
        while isinstance(plain, functools.partial):
            plain = plain.func
        called = plain if inspect.isroutine(plain) else type(plain).__call__
        if inspect.isasyncgenfunction(called):
            return HandlerKind.ASYNC_GENERATOR
        if inspect.iscoroutinefunction(called):
            return HandlerKind.COROUTINE
        if inspect.isgeneratorfunction(called):
            return HandlerKind.SYNC_GENERATOR
        # A plain function around another gives what that one gives; a wrapper of a kind of its own was met first.
        plain = getattr(plain, "__wrapped__", None)
    return HandlerKind.SYNC


async def _drain(items: AsyncGenerator[object, Any], run: Run) -> None:
    """Send each item; what that raises is thrown into the generator, at its yield."""
    async with aclosing(items):
        raised: BaseException | None = None
        while True:
            try:
                item = await (anext(items) if raised is None else items.athrow(raised))
            except StopAsyncIteration:
                return
            # Thrown from outside this `except`, so that it does not become the context of what the handler raises:
            # a Cancelled in the context of another is the mark of a cut cleanup.
            raised = None
            try:
                if run.emit_nowait(item):
                    await run.pause()
            except BaseException as exc:
                raised = exc


def _in_thread(call: Callable[[], object], emit: Emit) -> tuple[object, ...]:
    """Call the function in this thread; a generator is run to its end here, so that it never changes threads.

    Gives what is still to be sent. In a tuple, since Trio takes a bare coroutine for a mistake of the caller.
    """
    result = call()
    if not inspect.isgenerator(result):
        return (result,)
    _drain_in_thread(result, emit)
    return ()


def _drain_in_thread(items: Generator[object, Any, object], emit: Emit) -> None:
    raised: BaseException | None = None
    try:
        while True:
            try:
                item = next(items) if raised is None else items.throw(raised)
            except StopIteration:
                return
            raised = None
            try:
                trio.from_thread.run(emit, item)
            except BaseException as exc:
                raised = exc
    finally:
        items.close()


async def _raise_flag(run: Run) -> None:
    try:
        await trio.sleep_forever()
    finally:
        run.note_deadline()
