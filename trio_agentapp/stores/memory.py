"""States and histories in the memory of this process.

They are lost when it ends, and other nodes do not see them.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import trio

from ..protocol.ids import SessionKey
from ..refusals import note_refusal
from .record import Record
from .shelf import Shelf, ShelvedSessions, ShelvedStates
from .turns import Turn, surplus

__all__ = ["MAX_MEMORY_BYTES", "MAX_STATES", "MemorySessionStore", "MemoryStateStore"]

logger = logging.getLogger("trio_agentapp.stores")

MAX_STATES = 10_000
"""Sessions of one store. Beyond it the least recently used one is dropped, and a warning is logged."""

MAX_STATES_PER_USER = 1000
"""Sessions of one user in a store.

Beyond it the user's own least recently used ones are dropped, a tenth at a time. So a user who opens many sessions
cannot displace those of others.
"""

MAX_MEMORY_BYTES = 256 * 2**20
"""Bytes of one store, with the same rule."""


class MemoryStateStore(ShelvedStates):
    """Keeps states as JSON.

    So the same values are accepted as in other stores, and a saved state cannot be changed.

    With `alone=False` there may be other nodes, which do not see these states. The first save logs a warning.
    """

    def __init__(
        self, *, max_states: int = MAX_STATES, max_bytes: int = MAX_MEMORY_BYTES, alone: bool = True
    ) -> None:
        super().__init__(MemoryShelf(max_states, max_bytes))
        self._to_warn = not alone

    async def save(self, user_id: str, session_id: str, state: Mapping[str, Any]) -> None:
        if self._to_warn:
            self._to_warn = False
            logger.warning(
                "states are kept in the memory of this process, so other nodes do not see them; set state_url "
                "(or AGENTAPP_STATE_URL), for instance to redis://localhost"
            )
        await super().save(user_id, session_id, state)


class MemorySessionStore(ShelvedSessions):
    """Histories and states of objects in memory."""

    def __init__(self, *, max_sessions: int = MAX_STATES, max_bytes: int = MAX_MEMORY_BYTES) -> None:
        super().__init__(MemoryShelf(max_sessions, max_bytes))


@attrs.define
class Entry:
    """The record and the turns of one session, while a call uses them."""

    record: Record = attrs.field(factory=Record)
    turns: list[Turn] = attrs.field(factory=list)

    @property
    def empty(self) -> bool:
        return self.record.value is None and not self.turns

    @property
    def size(self) -> int:
        return self.record.size + sum(len(turn.messages) for turn in self.turns)

    def packed(self) -> tuple[Any, ...]:
        """Return the entry as one tuple of bytes, strings and numbers, which the garbage collector ignores."""
        turns = (part for turn in self.turns for part in (turn.run_id, turn.token, turn.count, turn.messages))
        record = self.record
        return record.value, record.before, record.writer, record.fence, *turns

    @classmethod
    def unpacked(cls, packed: tuple[Any, ...]) -> Entry:
        turns = [Turn(*packed[at : at + 4]) for at in range(4, len(packed), 4)]
        return cls(Record(*packed[:4]), turns)


class MemoryShelf(Shelf):
    """A shelf in memory. A deleted session keeps its record, so that late writers are still refused."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: OrderedDict[SessionKey, tuple[Any, ...]] = OrderedDict()
        self._of_user: Counter[str] = Counter()
        self._total = 0
        self._warned = False

    async def read(self, key: SessionKey) -> bytes | None:
        await trio.lowlevel.checkpoint()
        return self._find(key).record.value

    async def write(self, key: SessionKey, value: bytes | None, token: int | None) -> bool:
        await trio.lowlevel.checkpoint()
        entry = self._find(key)
        existed = not entry.empty
        entry.record.write(value, token)
        if value is None:
            entry.turns.clear()
        self._keep(key, entry)
        return existed

    async def undo(self, key: SessionKey, undone: int, token: int | None) -> bool:
        await trio.lowlevel.checkpoint()
        entry = self._find(key)
        entry.record.admit(token)
        did = entry.record.undo(undone)
        if entry.turns and entry.turns[-1].token == undone:
            del entry.turns[-1]
            did = True
        self._keep(key, entry)
        return did

    async def add(self, key: SessionKey, turn: Turn) -> None:
        await trio.lowlevel.checkpoint()
        entry = self._find(key)
        if any(known.run_id == turn.run_id for known in entry.turns):
            return
        entry.record.admit(turn.token)
        entry.turns.append(turn)
        del entry.turns[: surplus([(known.count, len(known.messages)) for known in entry.turns])]
        self._keep(key, entry)

    async def turns(self, key: SessionKey, limit: int | None) -> Sequence[bytes]:
        await trio.lowlevel.checkpoint()
        turns = self._find(key).turns
        return [turn.messages for turn in turns[len(turns) - min(limit, len(turns)) if limit is not None else 0 :]]

    def _find(self, key: SessionKey) -> Entry:
        packed = self._entries.get(key)
        if packed is None:
            return Entry()
        self._entries.move_to_end(key)
        return Entry.unpacked(packed)

    def _keep(self, key: SessionKey, entry: Entry) -> None:
        self._forget(key)
        self._entries[key] = entry.packed()
        self._of_user[key.user_id] += 1
        self._total += entry.size
        if self._of_user[key.user_id] > MAX_STATES_PER_USER:
            note_refusal("stored_sessions_per_user")
            own = [known for known in self._entries if known.user_id == key.user_id]
            for known in own[: MAX_STATES_PER_USER // 10]:
                self._forget(known)
        while len(self._entries) > self._max_entries or (self._total > self._max_bytes and len(self._entries) > 1):
            forgotten = self._forget(next(iter(self._entries)))
            note_refusal("stored_sessions")
            if not forgotten.empty and not self._warned:
                self._warned = True
                logger.warning(
                    "more than %d sessions or %d MiB in memory: from now on the oldest are forgotten",
                    self._max_entries,
                    self._max_bytes // 2**20,
                )

    def _forget(self, key: SessionKey) -> Entry:
        packed = self._entries.pop(key, None)
        if packed is None:
            return Entry()
        self._of_user[key.user_id] -= 1
        if not self._of_user[key.user_id]:
            del self._of_user[key.user_id]
        entry = Entry.unpacked(packed)
        self._total -= entry.size
        return entry
