"""To end a generator wherever it stands, and to let its `finally` await.

`aclose()` does both for a generator that stands at a `yield`: it raises GeneratorExit there, and what follows may
await. One that stands at an `await` cannot be reached so. A cancelled scope reaches it, but then every further
await raises, in its `finally` too. Turning a shield on behind the first Cancelled does not help: a nursery in the
generator would take that Cancelled for its own, and the generator would go on behind it.

So the wait is cut by a cancelled scope, and what the generator sees in its place is GeneratorExit, at its `await`
as at a `yield`: an exception, once, after which awaits work under a shield with a deadline.
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
    """`await step`, in which a cancellation appears as GeneratorExit if `leave()` says so when it arrives.

    Of Trio it needs what `trio.lowlevel.reschedule` documents: a task that waits is resumed with an Outcome.
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
            # Sent, for Trio to raise it. Thrown in, Python would take it for `close()`, under which no coroutine
            # that is being awaited here may await anything.
            answer = outcome.Error(GeneratorExit())
        resume = partial(inner.send, answer)


def without_exit(error: BaseException) -> BaseException | None:
    """What remains of an error without GeneratorExit and Cancelled, which a nursery puts into a group."""
    if isinstance(error, BaseExceptionGroup):
        return error.split((GeneratorExit, trio.Cancelled))[1]
    return None if isinstance(error, GeneratorExit | trio.Cancelled) else error
