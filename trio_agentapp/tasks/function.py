"""Wraps the user's task function, of any kind, so that it is called with a JSON body and returns one result."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import partial
from typing import Any

import trio

from ..errors import ConfigurationError, ValidationError
from ..runs.generators import drive_generator, drive_in_thread
from ..runs.handler import HandlerKind, kind_of

__all__ = ["MAX_ITEMS", "NO_BODY", "TaskFunction", "TooManyItems"]

MAX_ITEMS = 10_000
"""Limit of the items of a generator. The list of its items is its result."""

NO_BODY: Any = object()
"""Stands for the body of a request that has none."""


class TooManyItems(Exception):
    """A generator yielded more than `MAX_ITEMS`."""


class TaskFunction:
    """A function that is called with the JSON body of a request.

    A single parameter gets the whole body. Several parameters get the members of an object by name. A function
    without parameters ignores the body. The result of a generator is the list of its items, at most `MAX_ITEMS`.

    `timeout`: seconds after which a call is stopped.

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
        """Return the positional and named arguments for a body.

        Raises:
            ValidationError: the body does not fit the parameters; it lists every fault.
        """
        named = [each for each in self._parameters if each.kind is not each.VAR_KEYWORD]
        rest = len(named) < len(self._parameters)
        if not self._parameters:
            return (), {}
        if len(named) == 1 and not rest:
            if body is not NO_BODY:
                return ((), {named[0].name: body}) if named[0].kind is named[0].KEYWORD_ONLY else ((body,), {})
            if named[0].default is named[0].empty and named[0].kind is not named[0].VAR_POSITIONAL:
                raise ValidationError([("$", f"the body is empty; it must be the {named[0].name!r} of this task")])
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
        """Call the function; synchronous kinds in a thread. Raises what it raises, and TooManyItems."""
        positional, named = self.bind(body)
        call = partial(self.fn, *positional, **named)
        if self._kind is HandlerKind.ASYNC_GENERATOR:
            return await _collect(call())
        if self._kind is HandlerKind.COROUTINE:
            return await call()
        # In a tuple, because Trio refuses a thread function that returns a bare coroutine.
        (result,) = await trio.to_thread.run_sync(_call_in_thread, call, limiter=threads)
        if inspect.isasyncgen(result):
            return await _collect(result)
        return await result if inspect.isawaitable(result) else result


async def _collect(generator: AsyncGenerator[object, Any]) -> list[object]:
    items: list[object] = []
    await drive_generator(generator, partial(_add, items), trio.lowlevel.checkpoint, throws=trio.Cancelled)
    return items


def _call_in_thread(call: Callable[[], object]) -> tuple[object]:
    result = call()
    if not inspect.isgenerator(result):
        return (result,)
    items: list[object] = []

    def add(item: object) -> None:
        _add(items, item)
        trio.from_thread.check_cancelled()

    drive_in_thread(result, add, throws=trio.Cancelled)
    return (items,)


def _add(items: list[object], item: object) -> bool:
    if len(items) >= MAX_ITEMS:
        raise TooManyItems(f"it yielded more than {MAX_ITEMS} items")
    items.append(item)
    return True
