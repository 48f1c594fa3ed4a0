"""When calls have waited long enough. No I/O."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator

from .fifo import Request

__all__ = ["Deadlines"]


class Deadlines:
    """The deadlines of all calls, for one task to watch.

    A cancel scope for each call would cost as much CPU as the rest of the call. Calls that are over stay in the
    heap only as long as an earlier one is not: they mostly end in the order of their deadlines.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Request]] = []
        self._count = itertools.count()  # between two of the same time

    def add(self, deadline: float, request: Request) -> None:
        heap = self._heap
        while heap and heap[0][2].done:
            heapq.heappop(heap)
        heapq.heappush(heap, (deadline, next(self._count), request))

    def earliest(self) -> float:
        """Of the calls that still wait; infinite if none does."""
        while self._heap and self._heap[0][2].done:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def expired(self, now: float) -> Iterator[Request]:
        """Take out the calls whose time is over."""
        while self.earliest() <= now:
            yield heapq.heappop(self._heap)[2]
