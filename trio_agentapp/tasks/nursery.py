"""A nursery around a block of somebody else's code."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from ..runs.failures import leaves

__all__ = ["nursery_around"]


@asynccontextmanager
async def nursery_around() -> AsyncIterator[trio.Nursery]:
    """A nursery; what the block raises comes out as it is, unless something else failed beside it."""
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
