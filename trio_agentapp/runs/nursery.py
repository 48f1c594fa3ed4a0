"""A nursery around a block of other code, which does not change what that code raises."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from .failures import leaves

__all__ = ["nursery_around"]


@asynccontextmanager
async def nursery_around() -> AsyncIterator[trio.Nursery]:
    """Open a nursery. An exception of the block is raised as it is, not in a group, unless a task failed, too."""
    own: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as exc:
                own = exc
                raise
    except BaseExceptionGroup as group:
        if own is not None and [*leaves(group)] == [*leaves(own)]:
            raise own from own.__cause__
        raise
