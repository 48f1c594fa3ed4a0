"""Iterates a user's generator and sends each item. An exception of the sending is thrown into the generator.

So `yield` in a handler behaves like `await run.emit(...)`: a stop, or an error in the item, is raised at the
`yield`, where the generator can catch it and clean up. A plain `async for` would raise it outside of the generator,
which would only be closed. A generator is resumed and closed in one task or thread only.
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
    """Iterate an async generator to its end, and close it.

    Args:
        send: called with each item. If it returns True, `pause()` is awaited before the next item.
        throws: exceptions of `send` and `pause` that are thrown into the generator. It may catch them and go on.
            Other exceptions are raised here, after the generator was closed.
    """
    async with aclosing(items):
        raised: BaseException | None = None
        while True:
            try:
                item = await (anext(items) if raised is None else items.athrow(raised))
            except StopAsyncIteration:
                return
            # Throw it outside of `except`. Inside, it would become the context of what the handler raises next, and
            # a Cancelled whose context is another Cancelled is taken for a cancelled cleanup (`Cleanup.inspect`).
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
    """Iterate a synchronous generator to its end in the current thread, and close it.

    Args:
        send: called with each item. It blocks the thread while the run has to pause. What it returns is ignored.
        throws: exceptions of `send` that are thrown into the generator; see `drive_generator`.
    """
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
