"""States in the memory of this process: gone with it, and seen by no other node."""

from __future__ import annotations

import copy
import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import trio

from ..abc import StateStore
from ..errors import StaleToken
from ..protocol.ids import SessionKey
from ..runs import current_run, shielded_write

__all__ = ["MAX_STATES", "MemoryStateStore"]

logger = logging.getLogger("trio_agentapp.stores")

MAX_STATES = 10_000
"""States kept; past it the one unused for longest is forgotten, with a warning."""


class MemoryStateStore(StateStore):
    """One state per user and session, as deep copies, so that nobody changes a saved state by accident."""

    def __init__(self, *, max_states: int = MAX_STATES) -> None:
        self._max_states = max_states
        self._states: OrderedDict[SessionKey, dict[str, Any]] = OrderedDict()
        # Kept apart from the states: a deleted state still refuses a late writer.
        self._tokens: OrderedDict[SessionKey, int] = OrderedDict()

    async def save(self, user_id: str, session_id: str, state: Mapping[str, Any]) -> None:
        if not isinstance(state, Mapping):
            raise TypeError(f"a state is a mapping, not {type(state).__name__}")
        try:
            kept = copy.deepcopy(dict(state))
        except Exception as exc:
            raise TypeError(f"the state cannot be copied: {exc}") from exc
        key = SessionKey(user_id, session_id)
        async with shielded_write():
            await trio.lowlevel.checkpoint()
            self._fence(key)
            self._states[key] = kept
            self._states.move_to_end(key)
            if len(self._states) > self._max_states:
                self._states.popitem(last=False)
                logger.warning("more than %d states in memory: the oldest was forgotten", self._max_states)

    async def load(self, user_id: str, session_id: str) -> dict[str, Any] | None:
        await trio.lowlevel.checkpoint()
        key = SessionKey(user_id, session_id)
        if key not in self._states:
            return None
        self._states.move_to_end(key)
        return copy.deepcopy(self._states[key])

    async def delete(self, user_id: str, session_id: str) -> bool:
        key = SessionKey(user_id, session_id)
        async with shielded_write():
            await trio.lowlevel.checkpoint()
            self._fence(key)
            existed = key in self._states
            self._states.pop(key, None)
        return existed

    def _fence(self, key: SessionKey) -> None:
        """Refuse the write of a run that a later one has replaced. Code outside runs has no token."""
        run = current_run.get(None)
        if run is None or run.key != key:
            return
        seen = self._tokens.get(key, 0)
        if run.token < seen:
            raise StaleToken(f"run {run.run_id} lost its session to a later run; nothing was written")
        self._tokens[key] = run.token
        self._tokens.move_to_end(key)
        if len(self._tokens) > self._max_states:
            self._tokens.popitem(last=False)
