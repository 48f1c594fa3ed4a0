"""Stores that break one promise each: the question that asks for it finds them."""

from __future__ import annotations

import json
import threading
from contextlib import nullcontext
from typing import Any

import pytest
import trio

from trio_agentapp.protocol.ids import SessionKey
from trio_agentapp.protocol.message import Message
from trio_agentapp.runs import current_run
from trio_agentapp.stores.memory import MAX_MEMORY_BYTES, MAX_STATES, Entry, MemoryShelf
from trio_agentapp.stores.record import Record, stale
from trio_agentapp.stores.shelf import ShelvedSessions, ShelvedStates
from trio_agentapp.stores.turns import Turn
from trio_agentapp.testing import ask_store, session_questions, state_questions

STATES = {question.__name__: question for question in state_questions()}
SESSIONS = {question.__name__: question for question in session_questions()}


class Shelf(MemoryShelf):
    """Finds an entry as the object that was kept, so that the stores below can change it in place."""

    def __init__(self) -> None:
        super().__init__(MAX_STATES, MAX_MEMORY_BYTES)
        self._objects: dict[SessionKey, Entry] = {}

    def _find(self, key):
        return self._objects.get(key) or super()._find(key)

    def _keep(self, key, entry):
        super()._keep(key, entry)
        self._objects[key] = entry

    def _forget(self, key):
        self._objects.pop(key, None)
        return super()._forget(key)


class States(ShelvedStates):
    shelf: type[Shelf] = Shelf

    def __init__(self) -> None:
        super().__init__(self.shelf())


class Sessions(ShelvedSessions):
    shelf: type[Shelf] = Shelf

    def __init__(self) -> None:
        super().__init__(self.shelf())


# Of states.


class InventsStates(States):
    async def load(self, user_id, session_id):
        return await super().load(user_id, session_id) or {}


class Merges(States):
    async def save(self, user_id, session_id, state):
        await super().save(user_id, session_id, {**(await self.load(user_id, session_id) or {}), **state})


class NumbersAsFloats(States):
    async def load(self, user_id, session_id):
        value = await self._shelf.read(SessionKey(user_id, session_id))
        return value and json.loads(value, parse_int=float)


class KeepsTheObject(States):
    async def save(self, user_id, session_id, state):
        await super().save(user_id, session_id, state)
        vars(self).setdefault("kept", {})[user_id, session_id] = state

    async def load(self, user_id, session_id):
        await trio.lowlevel.checkpoint()
        return vars(self).get("kept", {}).get((user_id, session_id))


class MakesTextOfAnything(States):
    async def save(self, user_id, session_id, state):
        await super().save(user_id, session_id, json.loads(json.dumps(state, default=str)))


class TakesAnyId(States):
    async def save(self, user_id, session_id, state):
        await super().save(str(user_id).strip() or "nobody", session_id, state)


class JoinedIds(States):
    async def save(self, user_id, session_id, state):
        await super().save("all", f"{user_id}:{session_id}", state)

    async def load(self, user_id, session_id):
        return await super().load("all", f"{user_id}:{session_id}")


class IdsWithoutCase(States):
    async def save(self, user_id, session_id, state):
        await super().save(user_id.lower(), session_id, state)

    async def load(self, user_id, session_id):
        return await super().load(user_id.lower(), session_id)


class DeletesAgain(States):
    async def delete(self, user_id, session_id):
        await super().delete(user_id, session_id)
        return True


class DeletesNothing(States):
    async def delete(self, user_id, session_id):
        return await self._shelf.read(SessionKey(user_id, session_id)) is not None


class SavesUnshielded(States):
    async def save(self, user_id, session_id, state):
        await trio.lowlevel.checkpoint()
        await super().save(user_id, session_id, state)


class DeletesUnshielded(States):
    async def delete(self, user_id, session_id):
        await trio.lowlevel.checkpoint()
        return await super().delete(user_id, session_id)


class RollsBackUnshielded(States):
    async def rollback(self, user_id, session_id, *, token):
        await trio.lowlevel.checkpoint()
        return await super().rollback(user_id, session_id, token=token)


class ShelfWithoutFence(Shelf):
    async def write(self, key, value, token):
        self._find(key).record.fence = 0
        return await super().write(key, value, token)


class WithoutFence(States):
    shelf = ShelfWithoutFence


class ShelfWithRoundTokens(Shelf):
    """Compares tokens as numbers of 53 bits, as a script in Lua would."""

    async def write(self, key, value, token):
        entry = self._find(key)
        if token is not None and float(token) == float(entry.record.fence):
            entry.record.fence = token
        return await super().write(key, value, token)


class RoundTokens(States):
    shelf = ShelfWithRoundTokens


class ShelfWithTokensAsText(Shelf):
    async def write(self, key, value, token):
        entry = self._find(key)
        if token is not None and str(token) < str(entry.record.fence):
            raise stale(token, entry.record.fence)
        entry.record.fence = 0
        return await super().write(key, value, token)


class TokensAsText(States):
    shelf = ShelfWithTokensAsText


class DeletesUnfenced(States):
    async def delete(self, user_id, session_id):
        return await self._shelf.write(SessionKey(user_id, session_id), None, None)


class RollsBackUnfenced(States):
    async def rollback(self, user_id, session_id, *, token):
        return await self._shelf.undo(SessionKey(user_id, session_id), token, None)


class ShelfForgetsFences(Shelf):
    async def write(self, key, value, token):
        existed = await super().write(key, value, token)
        if value is None:
            self._forget(key)
        return existed


class ForgetsFences(States):
    shelf = ShelfForgetsFences


class FencesEverybody(States):
    async def save(self, user_id, session_id, state):
        run = current_run.get(None)
        key = SessionKey(user_id, session_id)
        self._shelf._find(key).record.admit(0 if run is None else run.token)
        await super().save(user_id, session_id, state)


class TokensOfOneTask(States):
    """Knows the run by its task or thread, and not by the context."""

    async def save(self, user_id, session_id, state):
        here = vars(self).setdefault("here", (threading.get_ident(), trio.lowlevel.current_task()))
        run = current_run.get(None)
        reset = current_run.set(run) if run else None
        if here != (threading.get_ident(), trio.lowlevel.current_task()) and run is not None:
            reset = current_run.set(type("Nobody", (), {"key": None, "cleanup_state": run.cleanup_state})())
        try:
            await super().save(user_id, session_id, state)
        finally:
            if reset is not None:
                current_run.reset(reset)


class ShelfThatUndoesOneWrite(Shelf):
    async def write(self, key, value, token):
        self._find(key).record.writer = None
        return await super().write(key, value, token)


class UndoesOneWrite(States):
    shelf = ShelfThatUndoesOneWrite


class ShelfThatOverlooksDeletions(Shelf):
    async def write(self, key, value, token):
        record = self._find(key).record
        before, deleted = record.before, record.value is None
        existed = await super().write(key, value, token)
        if deleted and before is not None:
            self._find(key).record.before = before
        return existed


class OverlooksDeletions(States):
    shelf = ShelfThatOverlooksDeletions


class ShelfThatUndoesToSomething(Shelf):
    async def undo(self, key, undone, token):
        did = await super().undo(key, undone, token)
        entry = self._find(key)
        if did and entry.record.value is None:
            entry.record.value = b"{}"
        return did


class UndoesToSomething(States):
    shelf = ShelfThatUndoesToSomething


class ShelfThatUndoesAnybody(Shelf):
    async def undo(self, key, undone, token):
        return await super().undo(key, self._find(key).record.writer or undone, token)


class UndoesAnybody(States):
    shelf = ShelfThatUndoesAnybody


class ShelfThatUndoesTwice(Shelf):
    async def undo(self, key, undone, token):
        did = await super().undo(key, undone, token)
        self._find(key).record.writer = undone if did else self._find(key).record.writer
        return did


class UndoesTwice(States):
    shelf = ShelfThatUndoesTwice


class ShelfThatOverlooksOthers(Shelf):
    async def write(self, key, value, token):
        record = self._find(key).record
        return await super().write(key, value, record.writer if token is None else token)


class OverlooksOthers(States):
    shelf = ShelfThatOverlooksOthers


class ShelfThatLetsUndoneRunsIn(Shelf):
    async def undo(self, key, undone, token):
        record = self._find(key).record
        record.admit(token)
        did = await super().undo(key, undone, None)
        self._find(key).record.fence = undone if did else record.fence
        return did


class LetsUndoneRunsIn(States):
    shelf = ShelfThatLetsUndoneRunsIn


class ShelfThatShutsOutOnSuccess(Shelf):
    async def undo(self, key, undone, token):
        return await super().undo(key, undone, token if self._find(key).record.writer == undone else None)


class ShutsOutOnSuccess(States):
    shelf = ShelfThatShutsOutOnSuccess


class ShelfThatTakesRollbacksForWrites(Shelf):
    async def undo(self, key, undone, token):
        did = await super().undo(key, undone, token)
        self._find(key).record.writer = token
        return did


class TakesRollbacksForWrites(States):
    shelf = ShelfThatTakesRollbacksForWrites


class ShelfThatShutsTheUndoerOut(Shelf):
    async def undo(self, key, undone, token):
        did = await super().undo(key, undone, token)
        if did:
            self._find(key).record.fence += 1
        return did


class ShutsTheUndoerOut(States):
    shelf = ShelfThatShutsTheUndoerOut


class OneDesk(States):
    """All sessions pass over one place, with a pause in between."""

    async def save(self, user_id, session_id, state):
        self.desk = state
        await trio.lowlevel.cancel_shielded_checkpoint()
        await super().save(user_id, session_id, self.desk)


class InPieces(States):
    """The parts of a state are written one after the other, and others come in between."""

    async def save(self, user_id, session_id, state):
        if "number" in state:
            text, self.text = getattr(self, "text", []), state["text"]
            state = {**state, "text": text}
        await super().save(user_id, session_id, state)


BROKEN_STATES: list[tuple[type[States], str]] = [
    (InventsStates, "an_unknown_session_has_no_state"),
    (Merges, "what_is_saved_is_loaded"),
    (NumbersAsFloats, "json_survives_as_it_is"),
    (KeepsTheObject, "saved_states_are_copies"),
    (MakesTextOfAnything, "a_state_that_is_not_json_is_refused"),
    (TakesAnyId, "ids_are_checked"),
    (JoinedIds, "sessions_are_separate"),
    (IdsWithoutCase, "sessions_are_separate"),
    (DeletesAgain, "a_deleted_state_is_gone"),
    (DeletesNothing, "a_deleted_state_is_gone"),
    (SavesUnshielded, "a_stop_does_not_interrupt_a_write"),
    (DeletesUnshielded, "a_stop_does_not_interrupt_a_write"),
    (RollsBackUnshielded, "a_stop_does_not_interrupt_a_write"),
    (WithoutFence, "a_smaller_token_is_refused"),
    (RoundTokens, "a_smaller_token_is_refused"),
    (TokensAsText, "a_smaller_token_is_refused"),
    (DeletesUnfenced, "a_smaller_token_is_refused"),
    (RollsBackUnfenced, "a_smaller_token_is_refused"),
    (ForgetsFences, "a_deletion_still_refuses_late_writers"),
    (FencesEverybody, "the_token_is_that_of_the_sessions_run"),
    (TokensOfOneTask, "the_token_is_known_in_threads_and_children"),
    (UndoesOneWrite, "rollback_undoes_all_writes_of_a_run"),
    (OverlooksDeletions, "rollback_restores_a_deletion"),
    (UndoesToSomething, "rollback_undoes_all_writes_of_a_run"),
    (UndoesAnybody, "rollback_undoes_only_the_last_writer"),
    (UndoesTwice, "rollback_undoes_only_the_last_writer"),
    (OverlooksOthers, "rollback_keeps_what_others_wrote"),
    (LetsUndoneRunsIn, "rollback_fences_the_undone_run"),
    (ShutsOutOnSuccess, "rollback_fences_the_undone_run"),
    (TakesRollbacksForWrites, "the_next_run_continues_from_a_rollback"),
    (ShutsTheUndoerOut, "a_run_can_undo_itself"),
    (OneDesk, "concurrent_saves_do_not_mix"),
    (InPieces, "concurrent_saves_of_one_session_are_whole"),
]


# Of histories and objects.


class GreetsNewSessions(Sessions):
    async def history(self, user_id, session_id, *, limit=None):
        return await super().history(user_id, session_id, limit=limit) or [Message(content="Welcome!")]


class NewestFirst(Sessions):
    async def history(self, user_id, session_id, *, limit=None):
        return (await super().history(user_id, session_id, limit=limit))[::-1]


class LimitsTurns(Sessions):
    async def history(self, user_id, session_id, *, limit=None):
        messages = await super().history(user_id, session_id)
        return messages if limit is None else messages[-2 * limit :]


class OnlyText(Sessions):
    async def append(self, user_id, session_id, messages, *, run_id, token):
        plain = [Message(role=each.role, content=each.text) for each in messages]
        await super().append(user_id, session_id, plain, run_id=run_id, token=token)


class ShelfThatAddsAgain(Shelf):
    async def add(self, key, turn):
        same = [known.run_id for known in self._find(key).turns]
        await super().add(
            key, Turn(turn.run_id + "x" * same.count(turn.run_id), turn.token, turn.count, turn.messages)
        )


class AddsAgain(Sessions):
    shelf = ShelfThatAddsAgain


class ShelfThatKnowsTheLastRun(Shelf):
    async def add(self, key, turn):
        entry = self._find(key)
        if entry.turns and entry.turns[-1].run_id == turn.run_id:
            return
        entry.record.fence = 0
        await super().add(key, Turn(turn.run_id + str(len(entry.turns)), turn.token, turn.count, turn.messages))


class KnowsTheLastRun(Sessions):
    shelf = ShelfThatKnowsTheLastRun


class SkipsWhatIsNoMessage(Sessions):
    async def append(self, user_id, session_id, messages, *, run_id, token):
        plain = [each for each in messages if isinstance(each, Message)]
        await super().append(user_id, session_id, plain, run_id=run_id, token=token)


class JoinedSessionIds(Sessions):
    async def append(self, user_id, session_id, messages, *, run_id, token):
        await super().append("all", f"{user_id}:{session_id}", messages, run_id=run_id, token=token)

    async def history(self, user_id, session_id, *, limit=None):
        return await super().history("all", f"{user_id}:{session_id}", limit=limit)


class ShelfThatAddsUnfenced(Shelf):
    async def add(self, key, turn):
        fence, self._find(key).record.fence = self._find(key).record.fence, 0
        await super().add(key, turn)
        self._find(key).record.fence = max(fence, turn.token)


class AddsUnfenced(Sessions):
    shelf = ShelfThatAddsUnfenced


class ShelfWithTwoFences(Shelf):
    def __init__(self) -> None:
        super().__init__()
        self.of_values: dict[SessionKey, Record] = {}

    async def write(self, key, value, token):
        self.of_values.setdefault(key, Record()).admit(token)
        fence = self._find(key).record.fence
        existed = await super().write(key, value, None)
        self._find(key).record.fence = fence
        return existed


class TwoFences(Sessions):
    shelf = ShelfWithTwoFences


class ShelfThatRemovesAnyTurn(Shelf):
    async def undo(self, key, undone, token):
        entry = self._find(key)
        keep = [turn for turn in entry.turns if turn.token != undone]
        did = len(keep) < len(entry.turns)
        entry.turns[:] = keep
        return await super().undo(key, undone, token) or did


class RemovesAnyTurn(Sessions):
    shelf = ShelfThatRemovesAnyTurn


class ShelfThatRemovesNoTurn(Shelf):
    async def undo(self, key, undone, token):
        turns = list(self._find(key).turns)
        did = await super().undo(key, undone, token)
        self._find(key).turns[:] = turns
        return did


class RemovesNoTurn(Sessions):
    shelf = ShelfThatRemovesNoTurn


class ShelfThatKeepsObjects(Shelf):
    async def undo(self, key, undone, token):
        value = self._find(key).record.value
        did = await super().undo(key, undone, token)
        self._find(key).record.value = value
        return did


class KeepsObjects(Sessions):
    shelf = ShelfThatKeepsObjects


class SessionsLetUndoneRunsIn(Sessions):
    async def rollback(self, user_id, session_id, *, token):
        return await self._shelf.undo(SessionKey(user_id, session_id), token, None)


class ShelfThatDeletesMessagesOnly(Shelf):
    async def write(self, key, value, token):
        if value is not None:
            return await super().write(key, value, token)
        entry = self._find(key)
        existed = not entry.empty
        entry.turns.clear()
        entry.record.admit(token)
        return existed


class DeletesMessagesOnly(Sessions):
    shelf = ShelfThatDeletesMessagesOnly


class DeletionsForgetFences(Sessions):
    shelf = ShelfForgetsFences


class MergesObjects(Sessions):
    async def save_modules(self, user_id, session_id, states):
        known = await self.load_modules(user_id, session_id) or {}
        await super().save_modules(user_id, session_id, {**known, **states})


class SkipsObjectsWithoutState(Sessions):
    async def save_session_state(self, session_id, user_id="", **modules):
        modules = {name: module for name, module in modules.items() if hasattr(module, "state_dict")}
        await super().save_session_state(session_id, user_id, **modules)


class EverybodysObjects(Sessions):
    async def save_session_state(self, session_id, user_id="", **modules):
        await super().save_session_state(session_id, user_id or "everybody", **modules)


class AppendsUnshielded(Sessions):
    async def append(self, user_id, session_id, messages, *, run_id, token):
        await trio.lowlevel.checkpoint()
        await super().append(user_id, session_id, messages, run_id=run_id, token=token)


class MakesStatesUnshielded(Sessions):
    def shield(self) -> Any:
        return nullcontext()


class ShelfWithoutBounds(Shelf):
    async def add(self, key, turn):
        entry = self._find(key)
        if all(known.run_id != turn.run_id for known in entry.turns):
            entry.record.admit(turn.token)
            entry.turns.append(turn)
            self._keep(key, entry)


class WithoutBounds(Sessions):
    shelf = ShelfWithoutBounds


class ShelfThatKeepsTheOldest(Shelf):
    async def add(self, key, turn):
        entry = self._find(key)
        if sum(known.count for known in entry.turns) + turn.count <= 1000:
            await super().add(key, turn)


class KeepsTheOldest(Sessions):
    shelf = ShelfThatKeepsTheOldest


class OneDeskForMessages(Sessions):
    async def append(self, user_id, session_id, messages, *, run_id, token):
        self.desk = messages
        await trio.lowlevel.cancel_shielded_checkpoint()
        await super().append(user_id, session_id, self.desk, run_id=run_id, token=token)


BROKEN_SESSIONS: list[tuple[type[Sessions], str]] = [
    (GreetsNewSessions, "an_unknown_session_has_nothing"),
    (NewestFirst, "turns_come_back_in_order"),
    (LimitsTurns, "turns_come_back_in_order"),
    (OnlyText, "messages_come_back_as_they_were"),
    (AddsAgain, "the_same_run_again_changes_nothing"),
    (KnowsTheLastRun, "the_same_run_again_changes_nothing"),
    (SkipsWhatIsNoMessage, "only_messages_are_accepted"),
    (JoinedSessionIds, "sessions_are_separate"),
    (AddsUnfenced, "a_smaller_token_is_refused"),
    (TwoFences, "objects_and_messages_share_a_fence"),
    (RemovesAnyTurn, "rollback_removes_the_last_turn"),
    (RemovesNoTurn, "rollback_removes_the_last_turn"),
    (KeepsObjects, "rollback_undoes_objects"),
    (SessionsLetUndoneRunsIn, "rollback_fences_the_undone_run"),
    (DeletesMessagesOnly, "a_deleted_session_is_gone"),
    (DeletionsForgetFences, "a_deleted_session_is_gone"),
    (MergesObjects, "objects_keep_their_states"),
    (SkipsObjectsWithoutState, "objects_keep_their_states"),
    (EverybodysObjects, "without_a_user_the_session_id_is_used"),
    (AppendsUnshielded, "a_stop_does_not_interrupt_a_write"),
    (MakesStatesUnshielded, "a_stop_does_not_interrupt_a_write"),
    (WithoutBounds, "histories_are_bounded"),
    (KeepsTheOldest, "histories_are_bounded"),
    (OneDeskForMessages, "concurrent_turns_do_not_mix"),
]


@pytest.mark.parametrize(("broken", "question"), BROKEN_STATES, ids=lambda each: getattr(each, "__name__", each))
async def test_a_broken_state_store_is_found(broken: type[States], question: str) -> None:
    with pytest.raises(AssertionError, match=f"^{question}: "):
        await ask_store(lambda: nullcontext(broken()), STATES[question])


@pytest.mark.parametrize(("broken", "question"), BROKEN_SESSIONS, ids=lambda each: getattr(each, "__name__", each))
async def test_a_broken_session_store_is_found(broken: type[Sessions], question: str) -> None:
    with pytest.raises(AssertionError, match=f"^{question}: "):
        await ask_store(lambda: nullcontext(broken()), SESSIONS[question])


def test_every_question_finds_somebody() -> None:
    assert {question for _, question in BROKEN_STATES} == set(STATES)
    assert {question for _, question in BROKEN_SESSIONS} == set(SESSIONS)


async def test_a_store_that_hangs_is_found(autojump_clock: trio.testing.MockClock) -> None:
    class Hangs(States):
        async def load(self, user_id, session_id):
            await trio.sleep_forever()

    with pytest.raises(AssertionError, match=r"^what_is_saved_is_loaded: no answer within 20 s"):
        await ask_store(lambda: nullcontext(Hangs()), STATES["what_is_saved_is_loaded"])
