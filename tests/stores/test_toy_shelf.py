"""A user's own place for states and histories is one short class: a shelf."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import trio

from trio_agentapp.protocol import SessionKey
from trio_agentapp.stores import Record, Shelf, ShelvedSessions, ShelvedStates, Turn, surplus
from trio_agentapp.testing import check_session_store, check_state_store


class ToyShelf(Shelf):
    """Records and turns in dicts. No method has a checkpoint inside, so each is atomic."""

    def __init__(self) -> None:
        self.records: dict[SessionKey, Record] = {}
        self.lists: dict[SessionKey, list[Turn]] = {}

    def find(self, key: SessionKey) -> tuple[Record, list[Turn]]:
        return self.records.setdefault(key, Record()), self.lists.setdefault(key, [])

    async def read(self, key: SessionKey) -> bytes | None:
        return self.find(key)[0].value

    async def write(self, key: SessionKey, value: bytes | None, token: int | None) -> bool:
        record, turns = self.find(key)
        existed = record.value is not None or bool(turns)
        record.write(value, token)
        if value is None:
            turns.clear()
        return existed

    async def undo(self, key: SessionKey, undone: int, token: int | None) -> bool:
        record, turns = self.find(key)
        record.admit(token)
        did = record.undo(undone)
        if turns and turns[-1].token == undone:
            turns.pop()
            did = True
        return did

    async def add(self, key: SessionKey, turn: Turn) -> None:
        record, turns = self.find(key)
        if not any(known.run_id == turn.run_id for known in turns):
            record.admit(turn.token)
            turns.append(turn)
            del turns[: surplus([(known.count, len(known.messages)) for known in turns])]

    async def turns(self, key: SessionKey, limit: int | None) -> Sequence[bytes]:
        messages = [turn.messages for turn in self.find(key)[1]]
        return messages if limit is None else messages[max(len(messages) - limit, 0) :]


async def test_a_shelf_is_enough_for_both_stores(autojump_clock: trio.testing.MockClock) -> None:
    await check_state_store(lambda: nullcontext(ShelvedStates(ToyShelf())))
    await check_session_store(lambda: nullcontext(ShelvedSessions(ToyShelf())))
