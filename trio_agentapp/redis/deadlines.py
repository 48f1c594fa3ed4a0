"""The deadlines of calls. No I/O."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator

from .fifo import Request

__all__ = ["Deadlines"]


class Deadlines:
    """The deadlines of all calls. One task watches them.

    A cancel scope for each call would cost as much CPU as the rest of the call. A call that is done stays in the
    heap until all calls with earlier deadlines are done, too; calls mostly end in the order of their deadlines.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Request]] = []
        self._count = itertools.count()  # orders calls with equal deadlines

    def add(self, deadline: float, request: Request) -> None:
        heap = self._heap
        while heap and heap[0][2].done:
            heapq.heappop(heap)
        heapq.heappush(heap, (deadline, next(self._count), request))

    def earliest(self) -> float:
        """Return the earliest deadline of the calls that wait; infinity if there is none."""
        while self._heap and self._heap[0][2].done:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def expired(self, now: float) -> Iterator[Request]:
        """Remove and return the calls whose deadline has passed."""
        while self.earliest() <= now:
            yield heapq.heappop(self._heap)[2]
