"""The contract of event stores, and of the sinks that receive the events of a run."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, Protocol

import attrs
import trio

from ..errors import NotOffered
from ..protocol.events import Event
from ..protocol.ids import SessionKey
from .interrupt_answers import Renewal
from .lease import Lease

__all__ = ["EventSink", "EventStore", "Extent"]


class EventSink(Protocol):
    """Receives the events of one run. The run's own log is a sink; a store may put another sink before it."""

    @property
    def congested(self) -> bool:
        """Whether too many events wait, so that the run should wait."""

    @property
    def drained(self) -> bool:
        """Whether another task has read all events, so that other tasks have run since the last `put`."""

    def put(self, events: Sequence[Event]) -> None:
        """Add events. Their numbers continue those of the events before. Never blocks."""

    async def wait_relieved(self) -> None:
        """Wait while it is congested."""

    async def flush(self) -> None:
        """Wait until readers can see all events, or until the run has lost its session and they never will."""

    def give_up(self) -> None:
        """Drop all events that were not shown yet, because the run has ended."""


@attrs.frozen(kw_only=True)
class Extent:
    """The events that are kept of a run: numbers `first` to `end - 1`. `ended`: no more will follow."""

    first: int
    end: int
    ended: bool


class EventStore(ABC):
    """Keeps the events of runs for readers that come later, or again.

    A store needs three methods: `keep`, `extent` and `read`, as in `tests/events/toy_stores.py`.
    `trio_agentapp.testing.check_event_store` tests any store. It must hold:

    - A run is known by its session and its id together: the same id in another session is another run.
    - `read` returns events in the order of their numbers, without a gap in a batch, and always the same events.
    - Events may be forgotten from the front. Then `read` and `extent` begin later, and readers get a gap. A store
      must drop events at some time, or it grows without limit; the records of runs are kept for 10 minutes.
    - After the terminal event there are no more events.

    The log of a live run serves readers on its own node. So a store that is not shared is only asked about runs
    that have ended, and `Extent.ended` is always True. It may be asked about runs of other nodes, and has none of
    their events.

    A store with `shared = True` serves readers on every node while the run is live. It also needs `sink`,
    `attending` and `unwatched`. Its sink shows an event, also on the run's own node, only after it is stored:
    otherwise one reader could get an event that is then lost for all others.
    """

    shared: ClassVar[bool] = False

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the store's own tasks until cancelled. By default there are none."""
        task_status.started()
        await trio.sleep_forever()

    def sink(
        self, lease: Lease, show: Callable[[Sequence[Event]], None], report: Callable[[Renewal], None]
    ) -> EventSink | None:
        """Return the sink for the run of `lease`; None: its log alone is enough.

        The sink calls `show` with events that readers may get, and `report` if it finds that the lease was stopped
        or lost. Both are synchronous.
        """
        return None

    @abstractmethod
    def keep(self, key: SessionKey, run_id: str, events: Sequence[Event]) -> None:
        """Keep the events of a run of this node that has ended, also of one that was stopped before it started.

        Called once, when the end of the run is recorded and its terminal event was shown; must not block or raise.
        `extent` and `read` of this store have the events as soon as it has returned.
        A request that repeats the id of a run that was stopped before its start calls it again: the first events
        stay. A shared store has got the events through its sink, except those of a run that had none, and the
        terminal event. It adds what it does not have, unless its server has written the terminal event together
        with the end of the run (`Ending.terminal_event`).

        Args:
            events: the last events of the run, with consecutive numbers, the terminal event at the end. A long run
                begins after number 0, because its log has dropped older ones. The sequence may be kept as it is: it
                does not change any more. It must not be changed, because readers still read it.
        """

    @abstractmethod
    async def extent(self, key: SessionKey, run_id: str) -> Extent | None:
        """Return the range of a run's events that are kept; None if there are none, or the run is unknown.

        Raises:
            BackendUnavailable: the store cannot be reached.
        """

    @abstractmethod
    async def read(self, key: SessionKey, run_id: str, start: int) -> Sequence[Event]:
        """Return events from number `start` on: at least one if there is one; the store chooses how many.

        Empty if there are none, or the run is unknown. If older events were forgotten, the batch begins later.
        Readers call again with the number after the last event that they got, until they have the terminal event.

        Raises:
            BackendUnavailable: the store cannot be reached.
        """

    def attending(self, key: SessionKey, run_id: str) -> AbstractAsyncContextManager[None]:
        """Report to the run's node, inside this block, that this node has readers of the run. For shared stores."""
        raise NotOffered("This event store is not shared.")

    async def unwatched(self, runs: Sequence[tuple[SessionKey, str]]) -> Sequence[float]:
        """Return for each run the seconds since another node had a reader; 0 if one has, `inf` if none ever had."""
        await trio.lowlevel.checkpoint()
        return [math.inf] * len(runs)
