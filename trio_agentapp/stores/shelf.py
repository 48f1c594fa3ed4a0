"""The two stores over a shelf.

A shelf keeps bytes at one place: for each session a record, as `Record` does, and a list of turns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar, TypeVarTuple

from ..abc import SessionStore, StateStore
from ..protocol.ids import SessionKey
from ..protocol.message import Message
from ..runs import CleanupScope, current_run, shielded_write
from .turns import Turn, make_turn, messages_of
from .values import decode_state, encode_state, key_of

__all__ = ["FORGET_AFTER", "Shelf", "ShelvedSessions", "ShelvedStates"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

FORGET_AFTER = 24 * 3600.0
"""Seconds for which a deleted session refuses late writers. The cleanup of a run is much shorter."""


class Shelf(ABC):
    """Keeps a value and a list of turns for each session at one place, such as a database.

    `Record` has the rules for the value: its fence, and the version to which `undo` returns. `surplus` has the
    bounds of a history. `tests/stores/test_toy_shelf.py` uses both, over dicts.

    It must hold: every method is atomic, and may be repeated; a write with a `token` below the session's fence
    raises StaleToken and changes nothing; a deleted session remembers its fence for `FORGET_AFTER`.
    """

    @abstractmethod
    async def read(self, key: SessionKey) -> bytes | None:
        """Return the value; None if there is none."""

    @abstractmethod
    async def write(self, key: SessionKey, value: bytes | None, token: int | None) -> bool:
        """Replace the value; with None, delete it and all turns.

        Return True if there was a value or a turn before.
        """

    @abstractmethod
    async def undo(self, key: SessionKey, undone: int, token: int | None) -> bool:
        """Undo the writes of the run with token `undone`: the value and the last turn.

        Return True if it had written them.
        """

    @abstractmethod
    async def add(self, key: SessionKey, turn: Turn) -> None:
        """Append a turn, unless its run has one. Then remove the oldest `surplus(...)` turns."""

    @abstractmethod
    async def turns(self, key: SessionKey, limit: int | None) -> Sequence[bytes]:
        """Return the messages of the last `limit` turns (None: of all), oldest first."""


class ShelvedStates(StateStore):
    """A state store over a shelf."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def save(self, user_id: str, session_id: str, state: Mapping[str, Any]) -> None:
        key, value = key_of(user_id, session_id), encode_state(state)
        await _whole(self._shelf.write, key, value, token_for(key))

    async def load(self, user_id: str, session_id: str) -> dict[str, Any] | None:
        return decode_state(await self._shelf.read(key_of(user_id, session_id)))

    async def delete(self, user_id: str, session_id: str) -> bool:
        key = key_of(user_id, session_id)
        return await _whole(self._shelf.write, key, None, token_for(key))

    async def rollback(self, user_id: str, session_id: str, *, token: int) -> bool:
        key = key_of(user_id, session_id)
        return await _whole(self._shelf.undo, key, token, token_for(key))


class ShelvedSessions(SessionStore):
    """A session store over a shelf."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def append(
        self, user_id: str, session_id: str, messages: Sequence[Message], *, run_id: str, token: int
    ) -> None:
        key, turn = key_of(user_id, session_id), make_turn(messages, run_id, token)
        if turn is not None:
            await _whole(self._shelf.add, key, turn)

    async def history(self, user_id: str, session_id: str, *, limit: int | None = None) -> list[Message]:
        if limit is not None and limit < 0:
            raise ValueError(f"limit is 0 or more, not {limit}")
        return messages_of(await self._shelf.turns(key_of(user_id, session_id), limit), limit)

    async def delete(self, user_id: str, session_id: str) -> bool:
        key = key_of(user_id, session_id)
        return await _whole(self._shelf.write, key, None, token_for(key))

    async def rollback(self, user_id: str, session_id: str, *, token: int) -> bool:
        key = key_of(user_id, session_id)
        return await _whole(self._shelf.undo, key, token, token_for(key))

    async def save_modules(self, user_id: str, session_id: str, states: Mapping[str, Any]) -> None:
        key, value = key_of(user_id, session_id), encode_state(states)
        await _whole(self._shelf.write, key, value, token_for(key))

    async def load_modules(self, user_id: str, session_id: str) -> dict[str, Any] | None:
        return decode_state(await self._shelf.read(key_of(user_id, session_id)))

    def shield(self) -> CleanupScope:
        return shielded_write()


def token_for(key: SessionKey) -> int | None:
    """Return the fencing token of the calling run, also in its threads; None if it is not a run of this session."""
    run = current_run.get(None)
    return run.token if run is not None and run.key == key else None


async def _whole(write: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Await a write. A stop does not interrupt it."""
    async with shielded_write():
        return await write(*args)
    raise AssertionError  # for the type checker: the scope swallows no exception
