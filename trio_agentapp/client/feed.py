"""A feed: what one connection brings of one run, and how it ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import attrs
import trio

from ..protocol.lifecycle import StopReceipt

__all__ = ["Batch", "Cut", "Feed", "Hole", "Transport", "is_terminal"]

FEED_DEPTH = 16
"""Batches that wait for their reader, before the connection itself is held back."""

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


class Feed:
    """One end is filled by a task of the client, so that a reader who is cancelled has lost nothing."""

    def __init__(self, node: int, run_id: str, session_id: str | None) -> None:
        self.node = node
        self.run_id = run_id
        self.session_id = session_id
        self.cut: Cut | None = None
        """Why it ended before its run did."""
        self.scope = trio.CancelScope()
        self.send, self._receive = trio.open_memory_channel[Batch](FEED_DEPTH)
        self.closed = trio.Event()

    async def receive(self) -> Batch:
        """What came since the last call, at least one event.

        Raises:
            Cut: the connection ended, and the run may go on.
            trio.EndOfChannel: the server has nothing more to tell.
        """
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            if self.cut is not None:
                raise self.cut from None
            raise

    async def stop(self, *, wait: bool) -> StopReceipt | None:  # noqa: ARG002  where it can, it waits
        """Stop the run by this connection; None: it has no way to say so."""
        await trio.lowlevel.checkpoint()
        return None

    async def aclose(self) -> None:
        """Leave. The server sees a reader that has gone."""
        self.scope.cancel(reason="the reader of this run left")
        await self.closed.wait()


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
