"""A subscription: a bounded buffer between the task that reads a connection and the reader of one run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Any, TypeAlias

import attrs
import trio

from ..protocol.events import TERMINAL
from ..protocol.lifecycle import StopReceipt
from .failures import ConnectionFailed

__all__ = ["Batch", "Gap", "Subscription", "is_terminal"]

MAX_EVENTS = 1024
"""Unread events after which the connection is not read further."""

MAX_BYTES = 1024 * 1024
"""Unread bytes after which the connection is not read further."""


@attrs.frozen
class Gap:
    """The events `start` to `stop` (both included) are no longer stored."""

    start: int
    stop: int


Batch: TypeAlias = list[dict[str, Any] | Gap]


def is_terminal(event: dict[str, Any]) -> bool:
    return event.get("object") == "response" and event.get("status") in TERMINAL


class Subscription(ABC):
    """The events of one run that one connection delivers. A task of the client fills it, so a read that is
    cancelled loses nothing.
    """

    def __init__(self, node: int, run_id: str, session_id: str | None) -> None:
        self.node = node
        self.run_id = run_id
        self.session_id = session_id
        self.size = 0
        """Bytes of the unread events, as they came over the connection."""
        self._items: deque[dict[str, Any] | Gap] = deque()
        self._over = False
        self._failure: ConnectionFailed | None = None
        self._changed = trio.Event()
        self._room = trio.Event()

    async def receive(self) -> Batch:
        """Return what arrived since the last call, at least one event.

        Raises:
            ConnectionFailed: the connection ended; the run may continue.
            trio.EndOfChannel: the server sends nothing more.
        """
        while not self._items:
            if self._failure is not None:
                raise self._failure
            if self._over:
                raise trio.EndOfChannel
            await self._changed.wait()
        batch = list(self._items)
        self._items.clear()
        self.size = 0
        self._changed = trio.Event()
        self._room.set()
        return batch

    async def stop(self, *, wait: bool) -> StopReceipt | None:  # noqa: ARG002  a WebSocket does wait
        """Stop the run over this connection. None: this connection cannot send a stop."""
        await trio.lowlevel.checkpoint()
        return None

    @abstractmethod
    async def aclose(self) -> None:
        """Stop reading. The server counts one reader less."""

    # What the task that fills it calls.

    @property
    def full(self) -> bool:
        return self.too_many or self.size >= MAX_BYTES

    @property
    def too_many(self) -> bool:
        """Whether the reader has not read `MAX_EVENTS` or more, of whatever size."""
        return len(self._items) >= MAX_EVENTS

    def put(self, batch: Batch, size: int) -> None:
        self._items.extend(batch)
        self.size += size
        self._changed.set()
        if self.full:
            self._room = trio.Event()

    async def wait_room(self) -> None:
        while self.full:
            await self._room.wait()

    def finish(self, failure: ConnectionFailed | None = None) -> None:
        """Note that no event follows. With `failure`, the connection has ended, and not the run."""
        if not self._over:
            self._over = True
            self._failure = failure
            self._changed.set()
