"""The contract of state stores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import trio

__all__ = ["StateStore"]


class StateStore(ABC):
    """Keeps one state per user and session: a mapping of JSON-like values, saved and loaded as a whole.

    Writes shield themselves: a save that has begun is whole, also in the `finally` of a stopped handler, for at
    most the cleanup budget of the run. A write carries the fencing token of the run it is called from.
    """

    @abstractmethod
    async def save(self, user_id: str, session_id: str, state: Mapping[str, Any]) -> None:
        """Replace the state.

        Raises:
            StaleToken: a later run of this session has written already.
            TypeError: the state holds something that cannot be kept; nothing was written.
        """

    @abstractmethod
    async def load(self, user_id: str, session_id: str) -> dict[str, Any] | None:
        """A copy of the state, None if there is none."""

    @abstractmethod
    async def delete(self, user_id: str, session_id: str) -> bool:
        """Forget the state; True if there was one. Fenced as `save` is."""

    async def aclose(self) -> None:
        """Release what the store holds."""
        await trio.lowlevel.checkpoint()
