"""Closes an async generator at a `yield` or at an `await`, so that its `finally` may still await.

`aclose()` does this for a generator that is suspended at a `yield`: it raises GeneratorExit there, and later
awaits work. It cannot close a generator that is suspended at an `await`. Cancelling a scope can, but then every
further await raises Cancelled, also in the `finally`. Shielding the scope after the first Cancelled does not help:
a nursery in the generator catches this Cancelled as its own, and the generator continues after the nursery.

Therefore the scope is cancelled, and `interruptible` replaces the Cancelled by a GeneratorExit. So the generator
gets the same exception at an `await` as at a `yield`. It is raised once. Later awaits work, under a shield with a
deadline.
"""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any, TypeVar

import outcome
import trio

__all__ = ["interruptible", "without_exit"]

T = TypeVar("T")


@types.coroutine
def interruptible(step: Awaitable[T], leave: Callable[[], bool]) -> Generator[Any, Any, T]:
    """Await `step`. If it is cancelled and `leave()` is true, GeneratorExit is raised in it instead of Cancelled.

    This relies on what `trio.lowlevel.reschedule` documents: a waiting task is resumed with an Outcome.
    """
    inner: Any = step.__await__()
    resume = partial(inner.send, None)
    while True:
        try:
            trap = resume()
        except StopIteration as done:
            value: T = done.value
            return value
        try:
            answer = yield trap
        except BaseException as exc:
            resume = partial(inner.throw, exc)
            continue
        if isinstance(answer, outcome.Error) and isinstance(answer.error, trio.Cancelled) and leave():
            # Sent as an Outcome, so that Trio's code raises it. Python would treat `throw(GeneratorExit)` as
            # `close()`, and then the awaited coroutines must not await.
            answer = outcome.Error(GeneratorExit())
        resume = partial(inner.send, answer)


def without_exit(error: BaseException) -> BaseException | None:
    """Return an error without GeneratorExit and Cancelled, also inside groups; None if nothing is left."""
    if isinstance(error, BaseExceptionGroup):
        return error.split((GeneratorExit, trio.Cancelled))[1]
    return None if isinstance(error, GeneratorExit | trio.Cancelled) else error
