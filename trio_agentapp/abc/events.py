"""The contract of event stores, and what a run puts its events into."""

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
from .interrupts import Lease, Renewal

__all__ = ["EventSink", "EventStore", "Extent"]


class EventSink(Protocol):
    """Where a run puts its events, and what holds it back. The run's own log is one."""

    @property
    def congested(self) -> bool:
        """Too much is on its way: the run should wait."""

    @property
    def drained(self) -> bool:
        """Another task has taken all that was put, so others have had their turn since."""

    def put(self, events: Sequence[Event]) -> None:
        """Take events; their numbers continue those before. Never blocks."""

    async def wait_relieved(self) -> None:
        """Wait while it is congested."""

    async def flush(self) -> None:
        """Wait until readers can see all that was put, or never will, since the run has lost its session."""

    def give_up(self) -> None:
        """The run has ended: nothing more is put, and what is on its way is never shown."""


@attrs.frozen(kw_only=True)
class Extent:
    """What is kept of a run's events: those from `first` to `end - 1`; `ended`: no more will come."""

    first: int
    end: int
    ended: bool


class EventStore(ABC):
    """Keeps the events of runs for readers that come, or come back, later.

    `shared`: readers on every node can read while the run goes on. An event is shown to nobody, on the node of its
    run neither, before the store has it: what a reader has seen, every other reader will see.
    """

    shared: ClassVar[bool] = False

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own what the store needs running, until cancelled. The default needs nothing."""
        task_status.started()
        await trio.sleep_forever()

    def sink(
        self, lease: Lease, show: Callable[[Sequence[Event]], None], hear: Callable[[Renewal], None]
    ) -> EventSink | None:
        """Where the run of `lease` puts its events; None: its log is enough.

        `show` is called with events that may be shown; `hear` with what the store learns of the lease meanwhile.
        Both are synchronous.
        """
        return None

    @abstractmethod
    def keep(self, key: SessionKey, run_id: str, events: Sequence[Event]) -> None:
        """A run of this node has ended; `events` are the last of its events that its log still has."""

    @abstractmethod
    async def extent(self, key: SessionKey, run_id: str) -> Extent | None:
        """What there is of a run's events; None: nothing."""

    @abstractmethod
    async def read(self, key: SessionKey, run_id: str, start: int) -> Sequence[Event]:
        """A batch of events from number `start` on; beginning later, where those are gone; empty if there are none.

        Their numbers follow each other.

        Raises:
            BackendUnavailable: the store cannot be asked.
        """

    def attending(self, key: SessionKey, run_id: str) -> AbstractAsyncContextManager[None]:
        """Inside this block the run counts as watched from this node, although it runs on another."""
        raise NotOffered("This event store is not shared.")

    async def unwatched(self, runs: Sequence[tuple[SessionKey, str]]) -> Sequence[float]:
        """For each run, the seconds since a reader on another node was last there; 0: one is; `inf`: none was."""
        await trio.lowlevel.checkpoint()
        return [math.inf] * len(runs)
