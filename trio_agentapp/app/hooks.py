"""Calls the functions that a user passes to the app: at start-up, at shutdown, and around both."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import trio

from ..endpoints.fastapi import refuse_fastapi
from ..runs.containment import called, close_dropped, contain, unwrap
from .settings import Settings

__all__ = ["LifeHooks", "shielded"]

F = TypeVar("F", bound=Callable[..., Any])


class LifeHooks:
    """Hooks of start and shutdown: `before_start`, `after_finish`, `lifespan`, `@app.init`, `@app.shutdown`."""

    def __init__(self, settings: Settings) -> None:
        for name in ("lifespan", "before_start", "after_finish", "authenticate", "authorize"):
            refuse_fastapi(getattr(settings, name), name, hook=True)
        self._settings = settings
        self._init: list[Callable[..., Any]] = []
        self._shutdown: list[Callable[..., Any]] = []

    def add_init(self, fn: F) -> F:
        return _add(fn, self._init, "@app.init")

    def add_shutdown(self, fn: F) -> F:
        return _add(fn, self._shutdown, "@app.shutdown")

    @asynccontextmanager
    async def around_all(self, app: object) -> AsyncIterator[None]:
        """Call `before_start` now, and `after_finish` when the block ends."""
        async with AsyncExitStack() as stack:
            if self._settings.before_start is not None:
                await _call(self._settings.before_start, app)
            if self._settings.after_finish is not None:
                stack.push_async_callback(shielded, _call, self._settings.after_finish, app)
            yield

    @asynccontextmanager
    async def around_runs(self, app: object, runner: object) -> AsyncIterator[None]:
        """Call the `@app.init` functions and enter the lifespan; at the end leave it and call `@app.shutdown`."""
        async with AsyncExitStack() as stack:
            for fn in self._init:
                await _call(fn, *_self_if_wanted(fn, app, runner))
            for fn in reversed(self._shutdown):
                stack.push_async_callback(shielded, _call, fn, *_self_if_wanted(fn, app, runner))
            if self._settings.lifespan is not None:
                stack.push_async_callback(close_dropped)
                await stack.enter_async_context(self._settings.lifespan(app))
                await close_dropped()
            yield


def _add(fn: F, functions: list[Callable[..., Any]], decorator: str) -> F:
    warnings.warn(f"{decorator} is deprecated; use lifespan", DeprecationWarning, stacklevel=4)
    refuse_fastapi(fn, decorator, hook=True)
    functions.append(fn)
    return fn


def _self_if_wanted(fn: Callable[..., Any], app: object, runner: object) -> tuple[object, ...]:
    """Return the arguments for an `@app.init` or `@app.shutdown` function.

    A parameter called `self` gets the handler's `self`. Another one gets the app, and so does `self` in an app
    without a handler.
    """
    names = list(inspect.signature(fn).parameters)
    if not names:
        return ()
    return (runner,) if names[0] == "self" and runner is not None else (app,)


async def _call(fn: Callable[..., Any], *args: Any) -> None:
    """Call a hook in a task of its own, and close what it leaves open.

    Raises what it raises, always an Exception.
    """
    unwrap(await contain(called, fn, *args))


async def shielded(fn: Callable[..., Awaitable[Any]], *args: Any) -> None:
    """Await `fn(*args)` also while the app is cancelled. The launcher's watchdog limits the time."""
    with trio.CancelScope(shield=True):
        await fn(*args)
