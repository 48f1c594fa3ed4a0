"""A service in the background of an `async with` block."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

__all__ = ["serving_in_background"]


@asynccontextmanager
async def serving_in_background(serve: Callable[..., Awaitable[object]]) -> AsyncIterator[None]:
    """Start `serve` and stop it at the end. An error of the start, or of the block, comes out as it went in."""
    failure: BaseException
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            yield
            nursery.cancel_scope.cancel()
            return
    except BaseExceptionGroup as group:
        # The nursery wrapped exactly one layer around what happened in it.
        if len(group.exceptions) != 1:
            raise
        failure = group.exceptions[0]
    raise failure
