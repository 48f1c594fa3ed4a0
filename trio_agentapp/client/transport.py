"""The contract of the two transports: starting runs and following them at one node."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import trio

from .subscription import Subscription

__all__ = ["Transport"]


class Transport(ABC):
    """Opens runs at one node. `start` and `attach` raise RequestError if it refuses, and ConnectionFailed."""

    @abstractmethod
    async def start(self, node: int, body: dict[str, Any]) -> Subscription:
        """Start a run, or join the live run with the same id."""

    @abstractmethod
    async def attach(self, node: int, run_id: str, after: int, user_id: str | None) -> Subscription:
        """Follow a run from the event after `after`; -1: from its first event."""

    async def aclose(self) -> None:
        """Close all connections, with close frames where the protocol has them."""
        await trio.lowlevel.checkpoint()
