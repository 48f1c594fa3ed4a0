"""The user's agent function. A `Handler` calls each of its four kinds in one way, and sends the items to the run.

A `yield` of a handler behaves like a call of `emit`: what `emit` raises is raised at the yield, a stop included. So
`Cancelled` reaches a handler at its awaits and at its yields alike, and it may shield its cleanup in either case.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from enum import Enum
from typing import Any

import trio

from ..errors import ConfigurationError
from .generators import drive_generator, drive_in_thread
from .run import Run

__all__ = ["MAX_HANDLER_THREADS", "Handler", "HandlerKind", "kind_of"]

Emit = Callable[[object], Awaitable[None]]

MAX_HANDLER_THREADS = 200
"""Synchronous handlers that run at the same time; further ones wait for a thread.

Trio's own limit of 40 threads is shared with other code.
"""

OFFERED = ("self", "msgs", "request", "run", "app")


class HandlerKind(Enum):
    ASYNC_GENERATOR = "async generator"
    COROUTINE = "coroutine"
    SYNC_GENERATOR = "sync generator"
    SYNC = "sync function"


class Handler:
    """A user's function, its kind, its name, and the parameters that it takes.

    Raises:
        ConfigurationError: it is not callable, or needs a parameter that handlers do not get.
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
                    f"handler {self.name}: handlers have no parameter {parameter.name!r}; "
                    f"they may take {', '.join(OFFERED)}, and **kwargs"
                )
        return tuple(wanted), rest

    def arguments(self, offered: Mapping[str, object]) -> dict[str, object]:
        """Return those of the arguments `offered` that the function takes.

        With `**kwargs` these are all except `self`.
        """
        if self._wants_rest:
            return {name: value for name, value in offered.items() if name != "self" or name in self._wanted}
        return {name: offered[name] for name in self._wanted}

    async def __call__(self, run: Run, offered: Mapping[str, object]) -> None:
        """Execute the function and send its items to `run.emit`. Raises what the function raises."""
        match self.kind:
            case HandlerKind.ASYNC_GENERATOR:
                await drive_generator(self.fn(**self.arguments(offered)), run.emit_nowait, run.pause)
            case HandlerKind.COROUTINE:
                await self._send(await self.fn(**self.arguments(offered)), run)
            case HandlerKind.SYNC | HandlerKind.SYNC_GENERATOR:
                # A thread cannot be cancelled, but it may read the stop flag. So the deadline has to set the flag,
                # too.
                run.start_soon(_set_flag_at_deadline, run, name=f"stop flag of {run.run_id}")
                call = functools.partial(self.fn, **self.arguments(offered))
                for left in await trio.to_thread.run_sync(_in_thread, call, run.emit, limiter=self._threads):
                    await self._send(left, run)

    async def _send(self, result: object, run: Run) -> None:
        """Send what a function returned: nothing, one item, or a generator of items."""
        if inspect.isasyncgen(result):
            await drive_generator(result, run.emit_nowait, run.pause)
        elif inspect.isgenerator(result):
            await trio.to_thread.run_sync(_in_thread, lambda: result, run.emit, limiter=self._threads)
        elif isinstance(result, AsyncIterable):
            items = aiter(result)
            if inspect.isasyncgen(items):
                await drive_generator(items, run.emit_nowait, run.pause)
            else:
                async for item in items:
                    await run.emit(item)
        elif inspect.isawaitable(result):
            await run.emit(await result)
        else:
            await run.emit(result)


def kind_of(fn: Callable[..., Any]) -> HandlerKind:
    """Return the kind of a function, as far as it can be known without calling it."""
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
        # A plain function that wraps another one returns what that one returns, so the kind of the wrapped one
        # counts.
        plain = getattr(plain, "__wrapped__", None)
    return HandlerKind.SYNC


def _in_thread(call: Callable[[], object], emit: Emit) -> tuple[object, ...]:
    """Call the function in this thread. A generator is driven to its end here, so that it never changes threads.

    Returns what is still to be sent, in a tuple: `trio.to_thread.run_sync` refuses a coroutine as a result.
    """
    result = call()
    if not inspect.isgenerator(result):
        return (result,)
    drive_in_thread(result, lambda item: trio.from_thread.run(emit, item))
    return ()


async def _set_flag_at_deadline(run: Run) -> None:
    try:
        await trio.sleep_forever()
    finally:
        run.scope.note_deadline()
