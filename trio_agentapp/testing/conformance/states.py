"""Questions about state stores."""

from __future__ import annotations

import datetime
import enum
import math
from typing import Any

import trio

from ...abc import StateStore
from ...errors import StaleToken
from ...protocol.ids import SessionKey, new_session_id
from .asking import expect, expect_refused
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


async def an_unknown_session_has_no_state(store: StateStore) -> None:
    user, session = ids_of(fresh_session())
    expect(await store.load(user, session) is None, "a session that nobody has used has a state")
    expect(await store.delete(user, session) is False, "there was something to delete where nothing was saved")
    expect(await store.rollback(user, session, token=1) is False, "there was something to undo in a new session")


async def what_is_saved_is_loaded(store: StateStore) -> None:
    user, session = ids_of(fresh_session())
    for state in ({"turn": 1, "notes": ["a"]}, {"turn": 2}, {}):
        await store.save(user, session, state)
        loaded = await store.load(user, session)
        expect(loaded == state, f"{state!r} was saved, and {loaded!r} was loaded")
    other = await store.load(user, new_session_id())
    expect(other is None, "another session of the same user has the state, too")


async def json_survives_as_it_is(store: StateStore) -> None:
    user, session = ids_of(fresh_session())
    await store.save(user, session, SURVIVES)
    loaded = await store.load(user, session)
    # repr tells 1 from 1.0 and from True.
    for name, value in SURVIVES.items():
        expect(
            loaded is not None and repr(loaded.get(name)) == repr(value),
            f"under {name!r} {value!r:.60} was saved, and loaded as {(loaded or {}).get(name)!r:.60}",
        )
    for value, plain in BECOMES:
        await store.save(user, session, {"value": value})
        loaded = await store.load(user, session)
        expect(repr(loaded) == repr({"value": plain}), f"{value!r} was loaded as {loaded!r}, not as {plain!r}")


async def saved_states_are_copies(store: StateStore) -> None:
    user, session = ids_of(fresh_session())
    state = {"notes": ["a"]}
    await store.save(user, session, state)
    state["notes"].append("b")
    loaded = await store.load(user, session)
    expect(loaded == {"notes": ["a"]}, "changing a state after its save changed what is kept")
    assert loaded is not None  # noqa: S101  for the type checker
    loaded["notes"].append("c")
    again = await store.load(user, session)
    expect(again == {"notes": ["a"]}, "changing a loaded state changed what is kept")


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
    user, session = ids_of(fresh_session())
    await store.save(user, session, {"turn": 1})
    expect(await store.delete(user, session) is True, "deleting a state said that there was none")
    expect(await store.load(user, session) is None, "a deleted state was loaded")
    expect(await store.delete(user, session) is False, "a deleted state could be deleted again")


async def a_stop_does_not_interrupt_a_write(store: StateStore) -> None:
    key = fresh_session()
    user, session = ids_of(key)
    with acting(key, 1), trio.CancelScope() as scope:
        scope.cancel(reason="the question wants it")
        await store.save(user, session, {"turn": 1})
        await store.save(user, session, {"turn": 2})
    expect(await store.load(user, session) == {"turn": 2}, "a save in a cancelled scope was not whole")
    with trio.CancelScope() as scope:
        scope.cancel(reason="the question wants it")
        await store.rollback(user, session, token=1)
    expect(await store.load(user, session) is None, "a rollback in a cancelled scope was not whole")
    await store.save(user, session, {"turn": 1})
    with trio.CancelScope() as scope:
        scope.cancel(reason="the question wants it")
        await store.delete(user, session)
    expect(await store.load(user, session) is None, "a delete in a cancelled scope was not whole")


async def a_smaller_token_is_refused(store: StateStore) -> None:
    key = fresh_session()
    user, session = ids_of(key)
    for smaller, greater in ((1, 2), (9, 10), (2**53, 2**53 + 1), (2**62, 2**62 + 1)):
        with acting(key, greater):
            await store.save(user, session, {"by": greater})
            await store.save(user, session, {"by": greater, "again": True})
        with acting(key, smaller):
            await expect_refused(StaleToken, store.save, user, session, {"by": smaller})
            await expect_refused(StaleToken, store.delete, user, session)
            await expect_refused(StaleToken, store.rollback, user, session, token=greater)
        loaded = await store.load(user, session)
        expect(loaded == {"by": greater, "again": True}, f"token {smaller} wrote after {greater}: {loaded!r}")


async def a_deletion_still_refuses_late_writers(store: StateStore) -> None:
    key = fresh_session()
    user, session = ids_of(key)
    with acting(key, 2):
        await store.save(user, session, {"by": 2})
        await store.delete(user, session)
    with acting(key, 1):
        await expect_refused(StaleToken, store.save, user, session, {"by": 1})
    expect(await store.load(user, session) is None, "a late writer brought a deleted state back")


async def the_token_is_that_of_the_sessions_run(store: StateStore) -> None:
    key = fresh_session()
    user, session = ids_of(key)
    with acting(key, 5):
        await store.save(user, session, {"by": 5})
    await store.save(user, session, {"by": "code outside of runs"})
    with acting(fresh_session(), 1):
        await store.save(user, session, {"by": "a run of another session"})
    with acting(key, 4):
        await expect_refused(StaleToken, store.save, user, session, {"by": 4})


async def the_token_is_known_in_threads_and_children(store: StateStore) -> None:
    key = fresh_session()
    user, session = ids_of(key)
    with acting(key, 2):
        await store.save(user, session, {"by": 2})

    async def attempt() -> None:
        await expect_refused(StaleToken, store.save, user, session, {"by": 1})

    def in_thread() -> None:
        trio.from_thread.run(attempt)

    with acting(key, 1):
        await trio.to_thread.run_sync(in_thread)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attempt)


async def rollback_undoes_all_writes_of_a_run(store: StateStore) -> None:
    for before in (None, {}, {"turn": 1}):
        for delete in (False, True):
            key = fresh_session()
            user, session = ids_of(key)
            if before is not None:
                with acting(key, 1):
                    await store.save(user, session, {"turn": 0})
                    await store.save(user, session, before)
            with acting(key, 2):
                await store.save(user, session, {"turn": 2})
                await store.save(user, session, {"turn": 3})
                if delete:
                    await store.delete(user, session)
            did = await store.rollback(user, session, token=2)
            expect(did is True, "rollback said that there was nothing to undo")
            loaded = await store.load(user, session)
            expect(loaded == before, f"rollback brought {loaded!r} back, and before the run it was {before!r}")


async def rollback_restores_a_deletion(store: StateStore) -> None:
    key = fresh_session()
    user, session = ids_of(key)
    await store.save(user, session, {"by": 0})
    with acting(key, 1):
        await store.save(user, session, {"by": 1})
        await store.delete(user, session)
    with acting(key, 2):
        await store.save(user, session, {"by": 2})
    expect(await store.rollback(user, session, token=2) is True, "a save after a deletion could not be undone")
    loaded = await store.load(user, session)
    expect(loaded is None, f"before the run the state was deleted, and rollback brought {loaded!r} back")


async def rollback_undoes_only_the_last_writer(store: StateStore) -> None:
    key = fresh_session()
    user, session = ids_of(key)
    await store.save(user, session, {"by": 0})
    for token in (1, 3):
        with acting(key, token):
            await store.save(user, session, {"by": token})
    for token in (1, 2, 4, 0):
        did = await store.rollback(user, session, token=token)
        expect(did is False, f"the writes of run {token} were undone, and run 3 was the last to save")
    expect(await store.load(user, session) == {"by": 3}, "a rollback that did nothing changed the state")
    expect(await store.rollback(user, session, token=3) is True, "the last writer could not be undone")
    expect(await store.rollback(user, session, token=3) is False, "a run was undone twice")
    expect(await store.load(user, session) == {"by": 1}, "a second rollback changed the state")


async def rollback_keeps_what_others_wrote(store: StateStore) -> None:
    key = fresh_session()
    user, session = ids_of(key)
    with acting(key, 1):
        await store.save(user, session, {"by": 1})
    await store.save(user, session, {"by": "code outside of runs"})
    expect(await store.rollback(user, session, token=1) is False, "a run was undone after others had written")
    with acting(key, 1):
        await store.save(user, session, {"by": 1})
    expect(await store.rollback(user, session, token=1) is True, "a run that wrote again could not be undone")
    loaded = await store.load(user, session)
    expect(loaded == {"by": "code outside of runs"}, f"what others wrote was lost: {loaded!r}")


async def rollback_fences_the_undone_run(store: StateStore) -> None:
    for saved in (True, False):
        key = fresh_session()
        user, session = ids_of(key)
        await store.save(user, session, {"by": 0})
        with acting(key, 1):
            if saved:
                await store.save(user, session, {"by": 1})
        with acting(key, 2):
            did = await store.rollback(user, session, token=1)
            expect(did is saved, f"the run had {'' if saved else 'not '}saved, and rollback said {did!r}")
        with acting(key, 1):
            await expect_refused(StaleToken, store.save, user, session, {"by": 1})
        expect(await store.load(user, session) == {"by": 0}, "an undone run wrote once more")


async def the_next_run_continues_from_a_rollback(store: StateStore) -> None:
    key = fresh_session()
    user, session = ids_of(key)
    for token, state in ((1, {"turn": 1}), (2, {"turn": 2})):
        with acting(key, token):
            await store.save(user, session, state)
    with acting(key, 3):
        await store.rollback(user, session, token=2)
        await store.save(user, session, {"turn": 3})
        await store.save(user, session, {"turn": 4})
    expect(await store.load(user, session) == {"turn": 4}, "the run that undid another could not save")
    with acting(key, 4):
        await store.rollback(user, session, token=3)
    loaded = await store.load(user, session)
    expect(loaded == {"turn": 1}, f"before the replacing run there was turn 1, and it was taken back to {loaded!r}")


async def a_run_can_undo_itself(store: StateStore) -> None:
    key = fresh_session()
    user, session = ids_of(key)
    with acting(key, 1):
        await store.save(user, session, {"turn": 1})
        expect(await store.rollback(user, session, token=1) is True, "a run could not undo itself")
        expect(await store.load(user, session) is None, "a run that undid itself left a state")
        await store.save(user, session, {"turn": 2})
    expect(await store.load(user, session) == {"turn": 2}, "a run that undid itself could not save any more")


async def concurrent_saves_do_not_mix(store: StateStore) -> None:
    keys = [fresh_session() for _ in range(RIVALS)]

    async def turns(key: SessionKey) -> None:
        user, session = ids_of(key)
        with acting(key, 1):
            for turn in range(5):
                state = {"user": user, "session": session, "turn": turn, "text": session * 50}
                await store.save(user, session, state)
                loaded = await store.load(user, session)
                expect(loaded == state, f"session {session} saved turn {turn}, and loaded {loaded!r:.200}")

    async with trio.open_nursery() as nursery:
        for key in keys:
            nursery.start_soon(turns, key)


async def concurrent_saves_of_one_session_are_whole(store: StateStore) -> None:
    user, session = ids_of(fresh_session())

    def state_of(number: int) -> dict[str, Any]:
        return {"number": number, "text": [str(number)] * (1 + number * 200)}

    async with trio.open_nursery() as nursery:
        for number in range(RIVALS):
            nursery.start_soon(store.save, user, session, state_of(number))
    loaded = await store.load(user, session)
    expect(loaded is not None, "of many saves at once none was kept")
    assert loaded is not None  # noqa: S101  for the type checker
    expect(loaded == state_of(loaded["number"]), "of many saves at once a mixture was kept")


QUESTIONS = (
    an_unknown_session_has_no_state,
    what_is_saved_is_loaded,
    json_survives_as_it_is,
    saved_states_are_copies,
    a_state_that_is_not_json_is_refused,
    ids_are_checked,
    sessions_are_separate,
    a_deleted_state_is_gone,
    a_stop_does_not_interrupt_a_write,
    a_smaller_token_is_refused,
    a_deletion_still_refuses_late_writers,
    the_token_is_that_of_the_sessions_run,
    the_token_is_known_in_threads_and_children,
    rollback_undoes_all_writes_of_a_run,
    rollback_restores_a_deletion,
    rollback_undoes_only_the_last_writer,
    rollback_keeps_what_others_wrote,
    rollback_fences_the_undone_run,
    the_next_run_continues_from_a_rollback,
    a_run_can_undo_itself,
    concurrent_saves_do_not_mix,
    concurrent_saves_of_one_session_are_whole,
)
