"""Lets a few connections go on in each turn of the event loop, so that a flood of requests delays no stream."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from ..nursery import nursery_around

__all__ = ["Turns"]

READS_PER_TURN = 3
"""Connections whose bytes are handled in one turn of the loop, while turns are short.

A request costs about a millisecond. If a thousand clients send one at the same moment, and all are handled in one
turn, every stream waits for a second. So the others wait for the next turns, in the order in which they came.
"""

MAX_READS = 16
"""The same, at most."""

TIME_FOR_READ = 0.003
"""One read for each so many seconds of CPU time of the last turn: new requests get at least a third of the time.

A thousand running chats make turns of 20 ms and more. With three requests in each of them, the last clients of a
burst would wait for seconds.
"""


class Turns:
    """Counts the connections of a turn. A task begins a new count in each turn that needs one."""

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        """`clock`: the CPU time of the event loop. On a busy machine other processes make turns longer, too."""
        self._clock = clock
        self.limit = READS_PER_TURN
        """How many may go on in this turn."""
        self._gone_on = 0
        self._waiting = trio.lowlevel.ParkingLot()
        self._counting = trio.lowlevel.ParkingLot()

    @property
    def admitted(self) -> int:
        """How many connections may be accepted in this turn: fewer while others wait, which would pile up."""
        return max(self.limit + 1 - len(self._waiting), 1)

    def take(self) -> bool:
        """Whether the caller may go on in this turn; if not, it shall `wait`."""
        if self._gone_on >= self.limit or self._waiting:
            return False
        self._gone_on += 1
        self._counting.unpark()
        return True

    async def wait(self) -> None:
        """Wait for a turn."""
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
            began_at = self._clock()
            # This task runs in the turn after the one that woke it. The first take may come before its first turn.
            while self._gone_on or self._waiting:
                self._gone_on = len(self._waiting.unpark(count=self.limit))
                await trio.lowlevel.checkpoint()
                now = self._clock()
                self.limit = min(max(READS_PER_TURN, int((now - began_at) / TIME_FOR_READ)), MAX_READS)
                began_at = now
            self.limit = READS_PER_TURN
            await self._counting.park()
