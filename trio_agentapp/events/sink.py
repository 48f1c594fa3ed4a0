"""Keeps the events of one run that are not in Redis yet. Readers get them when Redis has acknowledged them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import trio
from redis.exceptions import RedisError

from ..abc import Lease, Renewal
from ..protocol.codec import encode_event
from ..protocol.events import Event

__all__ = ["RedisSink"]

BATCH_EVENTS = 64
"""Events of one run in one call."""

BATCH_BYTES = 256 * 1024
"""Bytes of one run in one call; a larger event is sent alone."""

UNACKNOWLEDGED_EVENTS = 256
"""Unacknowledged events above which the run has to wait."""

UNACKNOWLEDGED_WEIGHT = 1024 * 1024
"""Bytes of unacknowledged events above which the run has to wait."""

RING = 1024
"""Acknowledged events that are kept, to write them again if a fail-over loses them."""

KEPT_WEIGHT = 8 * 1024 * 1024
"""Bytes of a run's events in Redis while it runs. Older events are trimmed; readers get a gap instead."""

PAUSE = 0.5
"""Seconds to the next attempt after the server refused a call, for example because it is full."""


class RedisSink:
    """The `EventSink` of one run. It calls `mark` when it has events to write."""

    def __init__(
        self,
        lease: Lease,
        show: Callable[[Sequence[Event]], None],
        report: Callable[[Renewal], None],
        mark: Callable[[RedisSink], None],
    ) -> None:
        self.lease = lease
        self.retry_at = -math.inf
        """When the next attempt may be made, on Trio's clock."""
        self.trouble: str | None = None
        """The server's last refusal; None after a success."""
        self.first = 0
        """Number of the first event of the batch."""
        self.least = 0
        """Number of the oldest event to keep in Redis."""
        self.after_a_gap = False
        """The server has lost events that are not in memory any more, so the next ones are written after a gap."""
        self._show = show
        self._report = report
        self._mark = mark
        self._pending: deque[Event] = deque()
        self._weight = 0
        self._in_flight = 0
        self._shown = -1
        self._over = False
        self._ring: deque[Event] = deque(maxlen=RING)
        self._kept: deque[tuple[int, int]] = deque()
        self._kept_weight = 0
        self._moved = trio.Event()

    @property
    def congested(self) -> bool:
        return len(self._pending) > UNACKNOWLEDGED_EVENTS or self._weight > UNACKNOWLEDGED_WEIGHT

    @property
    def drained(self) -> bool:
        return not self._pending

    def put(self, events: Sequence[Event]) -> None:
        if self._over or not events:
            return
        self._pending.extend(events)
        self._weight += sum(event.weight for event in events)
        self._mark(self)

    async def wait_relieved(self) -> None:
        while self.congested and not self._over:
            await self._moved.wait()

    async def flush(self) -> None:
        while self._pending and not self._over:
            await self._moved.wait()

    def give_up(self) -> None:
        self._over = True
        self._pending.clear()
        self._weight = 0
        self._move()

    def _move(self) -> None:
        self._moved.set()
        self._moved = trio.Event()

    # Called by the store.

    def take_batch(self) -> list[bytes]:
        """Return the JSON of the next events to write, empty if there are none."""
        batch: list[bytes] = []
        size = 0
        for event in islice(self._pending, BATCH_EVENTS):
            encoded = encode_event(event)
            size += len(encoded)
            if batch and size > BATCH_BYTES:
                break
            batch.append(encoded)
        self._in_flight = len(batch)
        if batch:
            self.first = self._pending[0].sequence_number
        return batch

    def settle(self, reply: Any) -> None:
        """Handle the server's reply to the last batch."""
        if self._over:
            return
        if isinstance(reply, RedisError):
            self.trouble = str(reply)
            self.retry_at = trio.current_time() + PAUSE
            self._mark(self)
            return
        self.trouble = None
        match reply[0]:
            case b"LOST":
                self.give_up()
                self._report(Renewal.LOST)
                return
            case b"GAP":
                self._go_back(int(reply[1]) + 1)
            case outcome:
                self._acknowledge()
                if outcome == b"STOP":
                    self._report(Renewal.STOP)
        if self._pending:
            self._mark(self)

    def _acknowledge(self) -> None:
        self.after_a_gap = False
        events = [self._pending.popleft() for _ in range(self._in_flight)]
        self._in_flight = 0
        weight = sum(event.weight for event in events)
        self._weight -= weight
        self._ring.extend(events)
        self._kept.append((events[0].sequence_number, weight))
        self._kept_weight += weight
        while self._kept_weight > KEPT_WEIGHT and len(self._kept) > 1:
            self._kept_weight -= self._kept.popleft()[1]
            self.least = self._kept[0][0]
        if events[0].sequence_number <= self._shown:
            # Leave out events that were written again because the server had lost them: readers have got them.
            events = [event for event in events if event.sequence_number > self._shown]
        if events:
            self._shown = events[-1].sequence_number
            self._show(events)
        self._move()

    def _go_back(self, number: int) -> None:
        """Write again the acknowledged events from `number` on: the server has lost them."""
        lost = [event for event in self._ring if event.sequence_number >= number]
        for _ in lost:
            self._ring.pop()
        while self._kept and self._kept[-1][0] >= number:
            self._kept_weight -= self._kept.pop()[1]
        self._pending.extendleft(reversed(lost))
        self._weight += sum(event.weight for event in lost)
        self.after_a_gap = not lost or lost[0].sequence_number > number
