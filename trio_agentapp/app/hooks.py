"""How the functions that a user hands to the app are called."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from ..runs.containment import contain, unwrap

__all__ = ["call", "self_if_wanted", "shielded"]


def self_if_wanted(fn: Callable[..., Any], app: object, runner: object) -> tuple[object, ...]:
    """What `@app.init` and `@app.shutdown` functions get: the handler's `self` for `self`, else the app.

    An app without a handler has no `self`: its functions get the app.
    """
    names = list(inspect.signature(fn).parameters)
    if not names:
        return ()
    return (runner,) if names[0] == "self" and runner is not None else (app,)


async def call(fn: Callable[..., Any], *args: Any) -> None:
    """Call a hook in a task of its own: what it leaves open is closed. Raises what it raises, as an Exception."""
    unwrap(await contain(_call, fn, *args))


async def _call(fn: Callable[..., Any], *args: Any) -> None:
    result = fn(*args)
    if inspect.isawaitable(result):
        await result


async def shielded(fn: Callable[..., Awaitable[Any]], *args: Any) -> None:
    """Closing is not cut by whatever ended the app; its bound is the launcher's watchdog."""
    with trio.CancelScope(shield=True):
        await fn(*args)
