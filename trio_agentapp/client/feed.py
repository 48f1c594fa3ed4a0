"""A feed: what one connection brings of one run, and how it ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Any, TypeAlias

import attrs
import trio

from ..protocol.lifecycle import StopReceipt

__all__ = ["Batch", "Cut", "Feed", "Hole", "Transport", "is_terminal"]

MAX_EVENTS = 1024
"""Events that wait for their reader before their connection is held back."""

MAX_WEIGHT = 1024 * 1024
"""Bytes that do, as they came."""

TERMINAL = frozenset({"completed", "failed", "canceled", "rejected"})


@attrs.frozen
class Hole:
    """Events `start` to `stop` (both included) are no longer to be had."""

    start: int
    stop: int


Batch: TypeAlias = list[dict[str, Any] | Hole]


class Cut(Exception):
    """A connection failed, or was silent for too long. Stays inside the client.

    `sent`: the request may have arrived, so that what it asked for may have been done.
    `hopeless`: trying again cannot help.
    """

    def __init__(self, what: str, *, sent: bool, hopeless: bool = False) -> None:
        super().__init__(what)
        self.sent = sent
        self.hopeless = hopeless


def is_terminal(event: dict[str, Any]) -> bool:
    return event.get("object") == "response" and event.get("status") in TERMINAL


class Feed(ABC):
    """Filled by a task of the client, so that a reader who is cancelled has lost nothing."""

    def __init__(self, node: int, run_id: str, session_id: str | None) -> None:
        self.node = node
        self.run_id = run_id
        self.session_id = session_id
        self._items: deque[dict[str, Any] | Hole] = deque()
        self._weight = 0
        self._over = False
        self._cut: Cut | None = None
        self._news = trio.Event()
        self._room = trio.Event()

    async def receive(self) -> Batch:
        """What came since the last call, at least one event.

        Raises:
            Cut: the connection ended, and the run may go on.
            trio.EndOfChannel: the server has nothing more to tell.
        """
        while not self._items:
            if self._cut is not None:
                raise self._cut
            if self._over:
                raise trio.EndOfChannel
            await self._news.wait()
        batch = list(self._items)
        self._items.clear()
        self._weight = 0
        self._news = trio.Event()
        self._room.set()
        return batch

    async def stop(self, *, wait: bool) -> StopReceipt | None:  # noqa: ARG002  where it can, it waits
        """Stop the run by this connection; None: it has no way to say so."""
        await trio.lowlevel.checkpoint()
        return None

    @abstractmethod
    async def aclose(self) -> None:
        """Leave. The server sees a reader that has gone."""

    # What follows is for the task that fills it.

    @property
    def full(self) -> bool:
        return self.many or self._weight >= MAX_WEIGHT

    @property
    def many(self) -> bool:
        """The reader lags, whatever the size of the events that wait for it."""
        return len(self._items) >= MAX_EVENTS

    @property
    def weight(self) -> int:
        """Bytes that wait for their reader, as they came."""
        return self._weight

    def put(self, batch: Batch, weight: int) -> None:
        self._items.extend(batch)
        self._weight += weight
        self._news.set()
        if self.full:
            self._room = trio.Event()

    async def wait_room(self) -> None:
        while self.full:
            await self._room.wait()

    def finish(self, cut: Cut | None = None) -> None:
        """Nothing follows. `cut`: because the connection ended, not the run."""
        if not self._over:
            self._over = True
            self._cut = cut
            self._news.set()


class Transport(ABC):
    """How runs are started and followed at one node.

    Both raise RequestError (the node refused) and Cut.
    """

    @abstractmethod
    async def start(self, node: int, body: dict[str, Any]) -> Feed:
        """Start a run, or join the live one of the same id."""

    @abstractmethod
    async def attach(self, node: int, run_id: str, after: int, user_id: str | None) -> Feed:
        """Follow a run from the event after `after` on; -1: from its first."""

    async def aclose(self) -> None:
        """Leave in good order."""
        await trio.lowlevel.checkpoint()
