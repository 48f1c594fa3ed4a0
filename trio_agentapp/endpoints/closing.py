"""Closing an async generator wherever it is suspended, so that its `finally` may still await.

`aclose()` does this for a generator that is suspended at a `yield`: it raises GeneratorExit there, and later
awaits work. It cannot reach a generator that is suspended at an `await`. A cancelled scope can, but then every
further await raises Cancelled, also in the `finally`. Shielding the scope after the first Cancelled does not help:
a nursery in the generator catches that Cancelled as its own, and the generator continues after the nursery.

Therefore a cancelled scope ends the wait, and the generator sees GeneratorExit in place of Cancelled, at an `await`
as at a `yield`. It is raised once; later awaits work under a shield that has a deadline.
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
    """Await `step`; a cancellation that arrives while `leave()` is true is raised in it as GeneratorExit.

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
            # Sent, so that Trio raises it. If it were thrown in, Python would treat it as `close()`, during which
            # the awaited coroutines must not await.
            answer = outcome.Error(GeneratorExit())
        resume = partial(inner.send, answer)


def without_exit(error: BaseException) -> BaseException | None:
    """Return an error without GeneratorExit and Cancelled, also out of the groups that nurseries raise."""
    if isinstance(error, BaseExceptionGroup):
        return error.split((GeneratorExit, trio.Cancelled))[1]
    return None if isinstance(error, GeneratorExit | trio.Cancelled) else error
