"""Limits how many connections are handled in a turn of the event loop, so that floods do not delay streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from ..nursery import nursery_around

__all__ = ["Turns"]

READS_PER_TURN = 3
"""Connections whose bytes are handled in one turn of the loop.

A request costs about a millisecond. If a thousand clients send one at the same moment, and all are handled in one
turn, every stream waits for a second. So the others wait for the next turns, in the order in which they came.
"""


class Turns:
    """Counts the connections of a turn. A task resets the count in each turn that needs it."""

    def __init__(self) -> None:
        self._gone_on = 0
        self._waiting = trio.lowlevel.ParkingLot()
        self._counting = trio.lowlevel.ParkingLot()

    @property
    def admitted(self) -> int:
        """How many connections may be accepted in this turn.

        It is less while others wait, so that they do not pile up.
        """
        return max(READS_PER_TURN + 1 - len(self._waiting), 1)

    def take(self) -> bool:
        """Return whether the caller may continue in this turn. If not, it has to `wait`."""
        if self._gone_on >= READS_PER_TURN or self._waiting:
            return False
        self._gone_on += 1
        self._counting.unpark()
        return True

    async def wait(self) -> None:
        """Wait for a turn in which the caller may continue."""
        self._counting.unpark()
        await self._waiting.park()

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        """Inside this block, turns are counted."""
        async with nursery_around() as nursery:
            nursery.start_soon(self._count)
            yield
            nursery.cancel_scope.cancel(reason="all connections are closed")

    async def _count(self) -> None:
        while True:
            # This task runs in the turn after the one that woke it. The first take may come before its first turn.
            while self._gone_on or self._waiting:
                self._gone_on = len(self._waiting.unpark(count=READS_PER_TURN))
                await trio.lowlevel.checkpoint()
            await self._counting.park()
