"""A nursery that raises an exception of its block as it is, and not in an exception group."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from .protocol.exception_groups import leaves

__all__ = ["nursery_around"]


@asynccontextmanager
async def nursery_around() -> AsyncIterator[trio.Nursery]:
    """Open a nursery for tasks that accompany the block.

    `trio.open_nursery` puts every exception of its block into an ExceptionGroup. Here an exception of the block
    leaves it unchanged, so that callers can catch it with a plain `except`. If a task of the nursery has failed,
    too, all exceptions are raised in a group, as Trio does.
    """
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
