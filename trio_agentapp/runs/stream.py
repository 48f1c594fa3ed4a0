"""A reader of an event log: replays its events, then follows new ones.

Reader and log refer to each other: a reader takes events from the log, and the log wakes its readers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING

import attrs
import trio

from ..errors import BackendUnavailable
from ..protocol.events import Event

if TYPE_CHECKING:
    from .event_log import EventLog

__all__ = ["BATCH_WEIGHT", "Delivery", "Gap", "Subscriber"]

BATCH_WEIGHT = 48 * 1024
"""Bytes that a reader takes at once. They become one write."""


ARCHIVE_TRIES = 5
"""How often a read from the store is tried before the reader is closed. Its client may resume later."""

ARCHIVE_PAUSE = 0.5
"""Seconds between two of these tries."""


@attrs.frozen
class Gap:
    """Events `start` to `stop` (both included) are not kept any more."""

    start: int
    stop: int


class Delivery(Enum):
    """The result of offering events to a reader's connection."""

    REFUSED = auto()
    """The connection took nothing. The reader's task has to read the events."""
    SENT = auto()
    """All bytes were sent. The reader's task need not run."""
    BEGUN = auto()
    """The events were taken, but not all bytes were sent.

    The reader's task has to send the rest before anything else.
    """


class Subscriber:
    """A position in a run's log. It gets each event once and in order.

    Close it with `close()`, which may be called again, or use it in a `with` block. Only one task may read.
    """

    def __init__(self, log: EventLog, position: int) -> None:
        self.position = position
        """Sequence number of the next event to read."""
        self.passed = 0
        """Weight of all events before `position`."""
        self.quiet_since = trio.current_time()
        """When this reader last got events, on Trio's clock."""
        self._log = log
        self.on_stalled: Callable[[], object] | None = None
        """Called if this reader does not call `receive` again within a limit. None: there is no limit."""
        self.deliver: Callable[[Sequence[Event]], Delivery] | None = None
        """Sends new events at once, while this reader waits for them. It neither blocks nor raises."""
        self.on_close: Callable[[], None] | None = None
        """Called once, when this reader is closed."""
        self._waiting: trio.Event | None = None
        self._nudged = False
        self._closed = False

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def receive(self, max_weight: int = BATCH_WEIGHT) -> list[Event | Gap]:
        """Return the events since the last call, about `max_weight` bytes at most. Waits for one if there is none.

        Returns an empty list if there was no event for so long that a keep-alive should be sent.

        Raises:
            trio.EndOfChannel: the terminal event has been read.
            trio.ClosedResourceError: this reader was closed, or the store does not answer.
        """
        log = self._log
        while not self._closed:
            if self.position < log.end:
                if self.position < log.first and log.archive is not None:
                    return await self._read_archive()
                return self._take(max_weight)
            if log.closed:
                raise trio.EndOfChannel
            if self._nudged:
                self._nudged = False
                self.quiet_since = trio.current_time()
                return []
            self._waiting = trio.Event()
            log.park(self)
            await self._waiting.wait()
        raise trio.ClosedResourceError

    def _take(self, max_weight: int) -> list[Event | Gap]:
        log = self._log
        taken: list[Event | Gap] = []
        if self.position < log.first:
            taken.append(Gap(self.position, log.first - 1))
            self.position = log.first
            self.passed = log.weight_before(log.first)
        events = log.read(self.position, max_weight)
        taken.extend(events)
        self.position += len(events)
        self.passed += sum(event.weight for event in events)
        self.quiet_since = trio.current_time()
        self._nudged = False
        log.advanced(self)
        return taken

    def offer(self, events: Sequence[Event], weight: int) -> bool:
        """Send new events from the task that put them into the log.

        Returns False if the reader's task must be woken.

        `weight` is the weight of these events together. It is possible only while the reader waits and has read all
        earlier events. It saves a wake-up and a task switch for each event.
        """
        if self.deliver is None or self._waiting is None or self.position != events[0].sequence_number:
            return False
        delivery = self.deliver(events)
        if delivery is Delivery.REFUSED:
            return False
        self.position += len(events)
        self.passed += weight
        self.quiet_since = trio.current_time()
        self._log.advanced(self)
        if delivery is Delivery.BEGUN:
            self.nudge()
            return False
        return True

    async def _read_archive(self) -> list[Event | Gap]:
        """Read events that are in the store and not in the log."""
        archive = self._log.archive
        assert archive is not None  # noqa: S101
        for attempt in range(ARCHIVE_TRIES):
            if attempt:
                await trio.sleep(ARCHIVE_PAUSE)
            try:
                events = await archive(self.position)
                break
            except BackendUnavailable:
                continue
        else:
            self.close()
            raise trio.ClosedResourceError
        taken: list[Event | Gap] = []
        # The gap ends at the first event of the archive, or of the log if the archive is empty.
        begins = events[0].sequence_number if events else self._log.first
        if begins > self.position:
            taken.append(Gap(self.position, begins - 1))
            self.position = begins
        taken.extend(events)
        self.position += len(events)
        self.passed = self._log.weight_before(self.position)
        self.quiet_since = trio.current_time()
        return taken

    @property
    def ready(self) -> bool:
        """Whether `receive` returns events of the log without waiting."""
        return not self._closed and self._log.first <= self.position < self._log.end

    @property
    def waiting(self) -> bool:
        """Whether this reader waits for more events."""
        return self._waiting is not None

    def close(self) -> None:
        """Stop reading. A waiting call of `receive` raises ClosedResourceError."""
        if self._closed:
            return
        self._closed = True
        self._log.unsubscribe(self)
        self.wake()
        # The callbacks refer to this reader. Dropping them breaks the reference cycles, so memory is freed at once.
        self.on_stalled = self.deliver = None
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            on_close()

    def nudge(self) -> None:
        """Let a waiting `receive` return an empty list, so that a keep-alive is sent."""
        if self._waiting is not None:
            self._nudged = True
            self.wake()

    def wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.set()
