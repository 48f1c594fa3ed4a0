"""Questions about state stores."""

from __future__ import annotations

import datetime
import enum
import math
from collections.abc import Mapping
from typing import Any

import trio

from ...abc import StateStore
from ...errors import StaleToken
from ...protocol.ids import SessionKey, new_session_id
from .asking import expect, expect_refused, present, questions_in
from .parties import acting, fresh_session, ids_of

__all__ = ["QUESTIONS"]

RIVALS = 20


class Mood(enum.StrEnum):
    CALM = "calm"


SURVIVES: dict[str, Any] = {
    "nothing": None,
    "yes": True,
    "no": False,
    "one": 1,
    "one as a float": 1.0,
    "integers": [0, -1, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1],
    "floats": [0.1, -2.5e-308, 1.7976931348623157e308, 5e-324],
    "text": 'Grüße, 世界, 🙂, \x00, \x7f, \u2028, \\, "quoted", \'\n',
    "": "an empty key",
    "{braces}": {"nested": [{"deep": [[], {}]}]},
    "long": "x" * 100_000,
}

BECOMES: list[tuple[Any, Any]] = [((1, (2,)), [1, [2]]), (Mood.CALM, "calm"), ("a\ud800b", "a\ufffdb")]

REFUSED: list[Any] = [
    {1, 2},
    b"bytes",
    object(),
    math.nan,
    -math.inf,
    2**64,
    {1: "a key that is a number"},
    {None: "a key that is none"},
    datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC),
    1j,
    (number for number in range(3)),
]


class Session:
    """One session of a store. With `by`, a call is made by the handler of a run with that token."""

    def __init__(self, store: StateStore, key: SessionKey | None = None) -> None:
        self.key = key or fresh_session()
        self._store = store

    async def save(self, *states: Mapping[str, Any], by: int | None = None) -> None:
        """Save states one after the other."""
        with acting(self.key, by):
            for state in states:
                await self._store.save(*ids_of(self.key), state)

    async def load(self) -> dict[str, Any] | None:
        return await self._store.load(*ids_of(self.key))

    async def delete(self, *, by: int | None = None) -> bool:
        with acting(self.key, by):
            return await self._store.delete(*ids_of(self.key))

    async def rollback(self, token: int, *, by: int | None = None) -> bool:
        with acting(self.key, by):
            return await self._store.rollback(*ids_of(self.key), token=token)


async def an_unknown_session_has_no_state(store: StateStore) -> None:
    session = Session(store)
    expect(await session.load() is None, "a new session has a state")
    expect(await session.delete() is False, "there was something to delete in a new session")
    expect(await session.rollback(1) is False, "there was something to undo in a new session")


async def what_is_saved_is_loaded(store: StateStore) -> None:
    session = Session(store)
    for state in ({"turn": 1, "notes": ["a"]}, {"turn": 2}, {}):
        await session.save(state)
        loaded = await session.load()
        expect(loaded == state, f"{state!r} was saved, and {loaded!r} was loaded")
    other = await Session(store, SessionKey(session.key.user_id, new_session_id())).load()
    expect(other is None, "another session of the same user has the state, too")


async def json_survives_as_it_is(store: StateStore) -> None:
    session = Session(store)
    await session.save(SURVIVES)
    loaded = await session.load()
    # repr tells 1 from 1.0 and from True.
    for name, value in SURVIVES.items():
        expect(
            loaded is not None and repr(loaded.get(name)) == repr(value),
            f"under {name!r} {value!r:.60} was saved, and loaded as {(loaded or {}).get(name)!r:.60}",
        )
    for value, plain in BECOMES:
        await session.save({"value": value})
        loaded = await session.load()
        expect(repr(loaded) == repr({"value": plain}), f"{value!r} was loaded as {loaded!r}, not as {plain!r}")


async def saved_states_are_copies(store: StateStore) -> None:
    session = Session(store)
    state = {"notes": ["a"]}
    await session.save(state)
    state["notes"].append("b")
    loaded = await session.load()
    expect(loaded == {"notes": ["a"]}, "changing a state after its save changed what is kept")
    assert loaded is not None  # noqa: S101  for the type checker
    loaded["notes"].append("c")
    expect(await session.load() == {"notes": ["a"]}, "changing a loaded state changed what is kept")


async def a_state_that_is_not_json_is_refused(store: StateStore) -> None:
    user, session = ids_of(fresh_session())
    await store.save(user, session, {"turn": 1})
    cycle: list[Any] = []
    cycle.append(cycle)
    for value in (*REFUSED, cycle):
        await expect_refused(TypeError, store.save, user, session, {"fine": 1, "not": [value]})
    for state in ("text", ["a"], None, 7):
        await expect_refused(TypeError, store.save, user, session, state)
    expect(await store.load(user, session) == {"turn": 1}, "a save that was refused changed the state")


async def ids_are_checked(store: StateStore) -> None:
    user, session = ids_of(fresh_session())
    for wrong in ("", "a\nb", "\ud800", "x" * 257):
        await expect_refused(ValueError, store.save, wrong, session, {})
        await expect_refused(ValueError, store.load, user, wrong)
    await expect_refused(TypeError, store.save, None, session, {})


async def sessions_are_separate(store: StateStore) -> None:
    mark = new_session_id()
    keys = [
        (mark + "a:b", "c"),
        (mark + "a", "b:c"),
        (mark + "a", ":b:c"),
        (mark + "{a}", "b"),
        (mark + "{a", "}b"),
    ]
    keys += [(mark + "ä", "b"), (mark + "A", "b:c"), (mark + "a ", "b:c"), (mark + "%", "_")]
    for number, key in enumerate(keys):
        await store.save(*key, {"number": number})
    for number, key in enumerate(keys):
        loaded = await store.load(*key)
        expect(loaded == {"number": number}, f"session {key} has the state {loaded!r} and not number {number}")
    await store.delete(*keys[0])
    for number, key in enumerate(keys[1:], 1):
        expect(await store.load(*key) == {"number": number}, "deleting one state touched another")


async def a_deleted_state_is_gone(store: StateStore) -> None:
    session = Session(store)
    await session.save({"turn": 1})
    expect(await session.delete() is True, "deleting a state returned False")
    expect(await session.load() is None, "a deleted state was loaded")
    expect(await session.delete() is False, "a deleted state could be deleted again")


async def a_stop_does_not_interrupt_a_write(store: StateStore) -> None:
    session = Session(store)
    with trio.CancelScope() as scope:
        scope.cancel(reason="the question needs it")
        await session.save({"turn": 1}, {"turn": 2}, by=1)
    expect(await session.load() == {"turn": 2}, "a save in a cancelled scope was not complete")
    with trio.CancelScope() as scope:
        scope.cancel(reason="the question needs it")
        await session.rollback(1)
    expect(await session.load() is None, "a rollback in a cancelled scope was not complete")
    await session.save({"turn": 1})
    with trio.CancelScope() as scope:
        scope.cancel(reason="the question needs it")
        await session.delete()
    expect(await session.load() is None, "a delete in a cancelled scope was not complete")


async def a_smaller_token_is_refused(store: StateStore) -> None:
    session = Session(store)
    for smaller, greater in ((1, 2), (9, 10), (2**53, 2**53 + 1), (2**62, 2**62 + 1)):
        await session.save({"by": greater}, {"by": greater, "again": True}, by=greater)
        await expect_refused(StaleToken, session.save, {"by": smaller}, by=smaller)
        await expect_refused(StaleToken, session.delete, by=smaller)
        await expect_refused(StaleToken, session.rollback, greater, by=smaller)
        loaded = await session.load()
        expect(loaded == {"by": greater, "again": True}, f"token {smaller} wrote after {greater}: {loaded!r}")


async def a_deletion_still_refuses_late_writers(store: StateStore) -> None:
    session = Session(store)
    await session.save({"by": 2}, by=2)
    await session.delete(by=2)
    await expect_refused(StaleToken, session.save, {"by": 1}, by=1)
    expect(await session.load() is None, "a late writer restored a deleted state")


async def the_token_is_that_of_the_sessions_run(store: StateStore) -> None:
    session = Session(store)
    await session.save({"by": 5}, by=5)
    await session.save({"by": "code outside of runs"})
    with acting(fresh_session(), 1):
        await session.save({"by": "a run of another session"})
    await expect_refused(StaleToken, session.save, {"by": 4}, by=4)


async def the_token_is_known_in_threads_and_children(store: StateStore) -> None:
    session = Session(store)
    await session.save({"by": 2}, by=2)

    async def attempt() -> None:
        await expect_refused(StaleToken, session.save, {"by": 1})

    def in_thread() -> None:
        trio.from_thread.run(attempt)

    with acting(session.key, 1):
        await trio.to_thread.run_sync(in_thread)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attempt)


async def rollback_undoes_all_writes_of_a_run(store: StateStore) -> None:
    for before in (None, {}, {"turn": 1}):
        for delete in (False, True):
            session = Session(store)
            if before is not None:
                await session.save({"turn": 0}, before, by=1)
            await session.save({"turn": 2}, {"turn": 3}, by=2)
            if delete:
                await session.delete(by=2)
            expect(await session.rollback(2) is True, "rollback returned False, and there was something to undo")
            loaded = await session.load()
            expect(loaded == before, f"rollback restored {loaded!r}, and before the run it was {before!r}")


async def rollback_restores_a_deletion(store: StateStore) -> None:
    session = Session(store)
    await session.save({"by": 0})
    await session.save({"by": 1}, by=1)
    await session.delete(by=1)
    await session.save({"by": 2}, by=2)
    expect(await session.rollback(2) is True, "a save after a deletion could not be undone")
    loaded = await session.load()
    expect(loaded is None, f"before the run the state was deleted, and rollback restored {loaded!r}")


async def rollback_undoes_only_the_last_writer(store: StateStore) -> None:
    session = Session(store)
    await session.save({"by": 0})
    for token in (1, 3):
        await session.save({"by": token}, by=token)
    for token in (1, 2, 4, 0):
        did = await session.rollback(token)
        expect(did is False, f"the writes of run {token} were undone, and run 3 was the last to save")
    expect(await session.load() == {"by": 3}, "a rollback without effect changed the state")
    expect(await session.rollback(3) is True, "the last writer could not be undone")
    expect(await session.rollback(3) is False, "a run was undone twice")
    expect(await session.load() == {"by": 1}, "a second rollback changed the state")


async def rollback_keeps_what_others_wrote(store: StateStore) -> None:
    session = Session(store)
    await session.save({"by": 1}, by=1)
    await session.save({"by": "code outside of runs"})
    expect(await session.rollback(1) is False, "a run was undone after others had written")
    await session.save({"by": 1}, by=1)
    expect(await session.rollback(1) is True, "a run that wrote again could not be undone")
    loaded = await session.load()
    expect(loaded == {"by": "code outside of runs"}, f"what others wrote was lost: {loaded!r}")


async def rollback_fences_the_undone_run(store: StateStore) -> None:
    for saved in (True, False):
        session = Session(store)
        await session.save({"by": 0})
        if saved:
            await session.save({"by": 1}, by=1)
        did = await session.rollback(1, by=2)
        expect(did is saved, f"the run had {'' if saved else 'not '}saved, and rollback returned {did!r}")
        await expect_refused(StaleToken, session.save, {"by": 1}, by=1)
        expect(await session.load() == {"by": 0}, "an undone run wrote once more")


async def the_next_run_continues_from_a_rollback(store: StateStore) -> None:
    session = Session(store)
    for turn in (1, 2):
        await session.save({"turn": turn}, by=turn)
    await session.rollback(2, by=3)
    await session.save({"turn": 3}, {"turn": 4}, by=3)
    expect(await session.load() == {"turn": 4}, "the run that undid another could not save")
    await session.rollback(3, by=4)
    loaded = await session.load()
    expect(loaded == {"turn": 1}, f"before the replacing run there was turn 1, and rollback restored {loaded!r}")


async def a_run_can_undo_itself(store: StateStore) -> None:
    session = Session(store)
    await session.save({"turn": 1}, by=1)
    expect(await session.rollback(1, by=1) is True, "a run could not undo itself")
    expect(await session.load() is None, "a run that undid itself left a state")
    await session.save({"turn": 2}, by=1)
    expect(await session.load() == {"turn": 2}, "a run that undid itself could not save any more")


async def concurrent_saves_do_not_mix(store: StateStore) -> None:
    async def turns(session: Session) -> None:
        user_id, session_id = ids_of(session.key)
        for turn in range(5):
            state = {"user": user_id, "session": session_id, "turn": turn, "text": session_id * 50}
            await session.save(state, by=1)
            loaded = await session.load()
            expect(loaded == state, f"session {session_id} saved turn {turn}, and loaded {loaded!r:.200}")

    async with trio.open_nursery() as nursery:
        for _ in range(RIVALS):
            nursery.start_soon(turns, Session(store))


async def concurrent_saves_of_one_session_are_whole(store: StateStore) -> None:
    session = Session(store)

    def state_of(number: int) -> dict[str, Any]:
        return {"number": number, "text": [str(number)] * (1 + number * 200)}

    async with trio.open_nursery() as nursery:
        for number in range(RIVALS):
            nursery.start_soon(session.save, state_of(number))
    loaded = present(await session.load(), "none of many concurrent saves was kept")
    expect(loaded == state_of(loaded["number"]), "a mixture of many concurrent saves was kept")


QUESTIONS = questions_in(globals())
