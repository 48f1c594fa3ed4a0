"""Drives a user's generator: sends what it yields, and raises at its `yield` what the sending raised.

A `yield` therefore behaves like an await: a stop is raised there, and the generator may clean up. Only the task or
thread that called a generator ever resumes it, and closes it in the end.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import aclosing, closing
from typing import Any

__all__ = ["drive_generator", "drive_in_thread"]


async def drive_generator(
    items: AsyncGenerator[object, Any],
    send: Callable[[object], bool],
    pause: Callable[[], Awaitable[None]],
    *,
    throws: type[BaseException] = BaseException,
) -> None:
    """Send each item, and await `pause()` where `send` returned True.

    What they raise is thrown into the generator if it is one of `throws`. Anything else closes the generator.
    """
    async with aclosing(items):
        raised: BaseException | None = None
        while True:
            try:
                item = await (anext(items) if raised is None else items.athrow(raised))
            except StopAsyncIteration:
                return
            # It is thrown outside of `except`, where it would become the context of what the handler raises next:
            # a Cancelled with another as its context is the mark of a cleanup that was cut.
            raised = None
            try:
                if send(item):
                    await pause()
            except throws as exc:
                raised = exc


def drive_in_thread(
    items: Generator[object, Any, object],
    send: Callable[[object], object],
    *,
    throws: type[BaseException] = BaseException,
) -> None:
    """The same for a synchronous generator, from its first step to its end in the current thread."""
    with closing(items):
        raised: BaseException | None = None
        while True:
            try:
                item = next(items) if raised is None else items.throw(raised)
            except StopIteration:
                return
            raised = None
            try:
                send(item)
            except throws as exc:
                raised = exc
