"""Runs a service in the background of an `async with` block."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

__all__ = ["serving_in_background"]


@asynccontextmanager
async def serving_in_background(serve: Callable[..., Awaitable[object]]) -> AsyncIterator[None]:
    """Start `serve`, and cancel it when the block is left.

    An exception of the start, or of the block, is raised as it is, not in a group. If the whole block is cancelled,
    the service runs until the block has been left: the block's cleanup may need it.
    """
    failure: BaseException
    scope = trio.CancelScope()

    async def serve_until_left(*, task_status: trio.TaskStatus[object]) -> None:
        with scope:
            await serve(task_status=task_status)

    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_until_left)
            scope.shield = True
            try:
                yield
            finally:
                scope.cancel()
            return
    except BaseExceptionGroup as group:
        # The nursery wraps one group around the exceptions of its tasks.
        if len(group.exceptions) != 1:
            raise
        failure = group.exceptions[0]
    raise failure
