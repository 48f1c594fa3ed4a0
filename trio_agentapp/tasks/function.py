"""The user's task function. Its kinds are called in one way: with a JSON body, for one result."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import trio

from ..errors import ConfigurationError, ValidationError
from ..runs.generators import drive_generator, drive_in_thread
from ..runs.handler import HandlerKind, kind_of

__all__ = ["MAX_ITEMS", "NO_BODY", "TaskFunction", "TooManyItems"]

MAX_ITEMS = 10_000
"""Limit of the items of a generator, whose result is their list."""

NO_BODY: Any = object()
"""Marks a request without a body."""


class TooManyItems(Exception):
    """A generator yielded more than `MAX_ITEMS`."""


class TaskFunction:
    """A function that is called with the JSON body of a request.

    One with a single parameter gets the whole body; one with several gets the members of an object by name; one
    without any takes no body. A generator's result is the list of what it yields, `MAX_ITEMS` at most.

    `timeout`, in seconds, ends a call that takes longer.

    Raises:
        ConfigurationError: it is not callable, or cannot be called by name.
    """

    def __init__(
        self, fn: Callable[..., Any], *, name: str, queue: str = "celery", timeout: float | None = None
    ) -> None:
        if not callable(fn):
            raise ConfigurationError(f"a task must be a function, not {type(fn).__name__}")
        if timeout is not None and (isinstance(timeout, bool) or not 0 < timeout < float("inf")):
            raise ConfigurationError(f"task {name}: timeout must be a number of seconds above 0, not {timeout!r}")
        self.fn = fn
        self.name = name
        self.queue = queue
        self.timeout = timeout
        self._kind = kind_of(fn)
        self._parameters = self._read_parameters()

    def _read_parameters(self) -> tuple[inspect.Parameter, ...]:
        try:
            parameters = tuple(inspect.signature(self.fn).parameters.values())
        except ValueError as exc:
            raise ConfigurationError(f"task {self.name}: its signature cannot be read") from exc
        if len(parameters) > 1:
            for each in parameters:
                if each.kind in (each.POSITIONAL_ONLY, each.VAR_POSITIONAL):
                    raise ConfigurationError(
                        f"task {self.name}: several parameters are given by name, and {each.name!r} is positional"
                    )
        return parameters

    def bind(self, body: object) -> tuple[tuple[object, ...], dict[str, Any]]:
        """Positional and named arguments for a body.

        Raises:
            ValidationError: the body does not fit. It names every fault.
        """
        named = [each for each in self._parameters if each.kind is not each.VAR_KEYWORD]
        rest = len(named) < len(self._parameters)
        if not self._parameters:
            return (), {}
        if len(named) == 1 and not rest:
            if body is not NO_BODY:
                return ((), {named[0].name: body}) if named[0].kind is named[0].KEYWORD_ONLY else ((body,), {})
            if named[0].default is named[0].empty and named[0].kind is not named[0].VAR_POSITIONAL:
                raise ValidationError([("$", f"the body is empty; it is {named[0].name!r} of this task")])
            return (), {}
        members = {} if body is NO_BODY else body
        if not isinstance(members, Mapping):
            raise ValidationError([("$", "must be an object whose members are the parameters of this task")])
        known = {each.name for each in named}
        faults = [
            (f"$.{each.name}", "is required")
            for each in named
            if each.default is each.empty and each.name not in members
        ]
        if not rest:
            words = f"is not a parameter of this task; those are {', '.join(sorted(known))}"
            faults += [(f"$.{name}", words) for name in members if name not in known]
        if faults:
            raise ValidationError(faults)
        return (), dict(members)

    async def __call__(self, body: object, *, threads: trio.CapacityLimiter) -> object:
        """Call it; synchronous kinds in a thread. Raises what the function raises, and TooManyItems."""
        positional, named = self.bind(body)
        call = functools.partial(self.fn, *positional, **named)
        if self._kind is HandlerKind.ASYNC_GENERATOR:
            return await _collect(call())
        if self._kind is HandlerKind.COROUTINE:
            return await call()
        # In a tuple, since Trio takes a bare coroutine for a mistake of the caller.
        (result,) = await trio.to_thread.run_sync(_call_in_thread, call, limiter=threads)
        if inspect.isasyncgen(result):
            return await _collect(result)
        return await result if inspect.isawaitable(result) else result


class _Collector:
    """The items of a generator so far. A yield is like an await: a stop is raised there."""

    def __init__(self) -> None:
        self.items: list[object] = []

    def add(self, item: object) -> bool:
        if len(self.items) >= MAX_ITEMS:
            raise TooManyItems(f"it yielded more than {MAX_ITEMS} items")
        self.items.append(item)
        return True

    def add_from_thread(self, item: object) -> None:
        self.add(item)
        trio.from_thread.check_cancelled()


async def _collect(generator: AsyncGenerator[object, Any]) -> list[object]:
    collector = _Collector()
    await drive_generator(generator, collector.add, trio.lowlevel.checkpoint, throws=trio.Cancelled)
    return collector.items


def _call_in_thread(call: Callable[[], object]) -> tuple[object]:
    result = call()
    if not inspect.isgenerator(result):
        return (result,)
    collector = _Collector()
    drive_in_thread(result, collector.add_from_thread, throws=trio.Cancelled)
    return (collector.items,)
