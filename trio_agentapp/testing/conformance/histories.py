"""Questions about session stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import trio

from ...abc import SessionStore
from ...errors import StaleToken
from ...protocol.content import (
    AudioContent,
    DataContent,
    FileContent,
    ImageContent,
    RefusalContent,
    TextContent,
    VideoContent,
)
from ...protocol.ids import new_run_id, new_session_id
from ...protocol.message import Message
from ...stores import MAX_HISTORY_BYTES, MAX_MESSAGES
from .asking import expect, expect_refused, questions_in
from .parties import acting, fresh_session, ids_of

__all__ = ["QUESTIONS"]


class Module:
    """An object with a state, as agent frameworks have them."""

    def __init__(self, memory: Any = None) -> None:
        self.memory = memory

    def state_dict(self) -> dict[str, Any]:
        return {"memory": self.memory}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.memory = state["memory"]


class AsyncModule:
    def __init__(self, memory: Any = None) -> None:
        self.memory = memory

    async def state_dict(self) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        return {"memory": self.memory}

    async def load_state_dict(self, state: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        self.memory = state["memory"]


def talk(words: str) -> list[Message]:
    return [Message(role="user", content=words), Message(content=f"You said: {words}")]


async def an_unknown_session_has_nothing(store: SessionStore) -> None:
    user, session = ids_of(fresh_session())
    module = Module("untouched")
    expect(await store.history(user, session) == [], "a new session has messages")
    expect(await store.load_modules(user, session) is None, "a new session has objects")
    await store.load_session_state(session, user, agent=module)
    expect(module.memory == "untouched", "a new session changed an object")
    expect(await store.delete(user, session) is False, "there was something to delete in a new session")
    expect(await store.rollback(user, session, token=1) is False, "there was something to undo in a new session")


async def turns_come_back_in_order(store: SessionStore) -> None:
    user, session = ids_of(fresh_session())
    said: list[Message] = []
    for turn in range(3):
        messages = talk(f"turn {turn}")
        await store.append(user, session, messages, run_id=new_run_id(), token=turn + 1)
        said += messages
        await _expect_history(store, (user, session), said)
    for limit in (0, 1, 3, 5, 6, 100):
        part = await store.history(user, session, limit=limit)
        expect(
            _words(part) == _words(said[max(len(said) - limit, 0) :]), f"with limit {limit}: {_words(part)!r:.200}"
        )
    await expect_refused(ValueError, store.history, user, session, limit=-1)
    expect(await store.history(user, new_session_id()) == [], "another session of the user has the messages, too")


async def messages_come_back_as_they_were(store: SessionStore) -> None:
    user, session = ids_of(fresh_session())
    messages = [
        Message(role="system", content="Grüße 🙂 \x00"),
        Message(
            role="user",
            content=[
                TextContent("a"),
                ImageContent(image_url="https://example.com/a.png"),
                AudioContent(data="AAAA", format="wav"),
                VideoContent(video_url="https://example.com/a.mp4"),
                FileContent(file_id="f1", filename="a.pdf"),
                FileContent(file_url="https://example.com/a", file_data="AAAA"),
            ],
            metadata={"nested": [1, 2.5, None, {"a": True}]},
        ),
        Message.reasoning("Hm.", id="msg_1"),
        Message.tool_call("clock", {"zone": "UTC"}, call_id="call_1"),
        Message.tool_output("call_1", {"hour": 12, "big": 2**60}),
        Message(content=[RefusalContent("no"), DataContent(None), ImageContent()], usage={"tokens": 3}),
        Message(type="error", code="oops", message="It failed."),
        Message(content=[]),
    ]
    await store.append(user, session, messages, run_id=new_run_id(), token=1)
    kept = await store.history(user, session)
    for message, again in zip(messages, kept, strict=False):
        expect(message == again, f"{message!r:.200} came back as {again!r:.200}")
    expect(len(kept) == len(messages), f"{len(messages)} messages were appended, and {len(kept)} came back")


async def the_same_run_again_changes_nothing(store: SessionStore) -> None:
    user, session = ids_of(fresh_session())
    run_id = new_run_id()
    for words in ("first", "first", "another"):
        await store.append(user, session, talk(words), run_id=run_id, token=1)
    await _expect_history(store, (user, session), talk("first"))
    await store.append(user, session, talk("second"), run_id=new_run_id(), token=2)
    await store.append(user, session, talk("first"), run_id=run_id, token=1)
    await _expect_history(store, (user, session), [*talk("first"), *talk("second")])
    await store.append(user, session, [], run_id=new_run_id(), token=3)
    await _expect_history(store, (user, session), [*talk("first"), *talk("second")])


async def only_messages_are_accepted(store: SessionStore) -> None:
    user, session = ids_of(fresh_session())
    await store.append(user, session, talk("hello"), run_id=new_run_id(), token=1)
    not_json = Message(content=[DataContent({1, 2})])
    for wrong in ("text", {"role": "user"}, None, not_json):
        await expect_refused(
            TypeError, store.append, user, session, [*talk("no"), wrong], run_id=new_run_id(), token=2
        )
    await expect_refused(ValueError, store.append, "", session, talk("no"), run_id=new_run_id(), token=2)
    await expect_refused(ValueError, store.append, user, session, talk("no"), run_id="", token=2)
    await _expect_history(store, (user, session), talk("hello"))


async def sessions_are_separate(store: SessionStore) -> None:
    mark = new_session_id()
    keys = [(mark + "a:b", "c"), (mark + "a", "b:c"), (mark + "{a}", "b"), (mark + "A", "b:c")]
    run_id = new_run_id()
    for key in keys:
        await store.append(*key, talk(key[0]), run_id=run_id, token=1)
        await store.save_modules(*key, {"of": key[0]})
    await store.delete(*keys[0])
    for key in keys[1:]:
        await _expect_history(store, key, talk(key[0]))
        expect(await store.load_modules(*key) == {"of": key[0]}, f"session {key} has the objects of another")


async def a_smaller_token_is_refused(store: SessionStore) -> None:
    for smaller, greater in ((9, 10), (2**53, 2**53 + 1), (2**62, 2**62 + 1)):
        key = fresh_session()
        user, session = ids_of(key)
        await store.append(user, session, talk("hello"), run_id=new_run_id(), token=greater)
        with acting(key, smaller):
            await expect_refused(
                StaleToken, store.append, user, session, talk("late"), run_id=new_run_id(), token=smaller
            )
            await expect_refused(StaleToken, store.save_modules, user, session, {"late": 1})
            await expect_refused(StaleToken, store.delete, user, session)
            await expect_refused(StaleToken, store.rollback, user, session, token=greater)
        await store.append(user, session, talk("more"), run_id=new_run_id(), token=greater)
        await _expect_history(store, (user, session), [*talk("hello"), *talk("more")])


async def objects_and_messages_share_a_fence(store: SessionStore) -> None:
    key = fresh_session()
    user, session = ids_of(key)
    with acting(key, 2):
        await store.save_modules(user, session, {"by": 2})
    await expect_refused(StaleToken, store.append, user, session, talk("late"), run_id=new_run_id(), token=1)
    expect(await store.history(user, session) == [], "a late run appended")


async def rollback_removes_the_last_turn(store: SessionStore) -> None:
    user, session = ids_of(fresh_session())
    for token, words in ((1, "first"), (2, "second")):
        await store.append(user, session, talk(words), run_id=new_run_id(), token=token)
    for token in (1, 3, 0):
        did = await store.rollback(user, session, token=token)
        expect(did is False, f"the messages of run {token} were removed, and run 2 was the last to append")
    expect(await store.rollback(user, session, token=2) is True, "the last turn could not be removed")
    await _expect_history(store, (user, session), talk("first"))
    expect(await store.rollback(user, session, token=2) is False, "a turn was removed twice")
    await store.append(user, session, talk("third"), run_id=new_run_id(), token=3)
    await _expect_history(store, (user, session), [*talk("first"), *talk("third")])


async def rollback_undoes_objects(store: SessionStore) -> None:
    for before in (None, {"turn": 1}):
        key = fresh_session()
        user, session = ids_of(key)
        if before is not None:
            await store.save_modules(user, session, before)
        with acting(key, 2):
            await store.save_modules(user, session, {"turn": 2})
            await store.save_modules(user, session, {"turn": 3})
        expect(await store.rollback(user, session, token=2) is True, "saves of objects could not be undone")
        loaded = await store.load_modules(user, session)
        expect(loaded == before, f"rollback brought {loaded!r} back, and before the run it was {before!r}")


async def rollback_fences_the_undone_run(store: SessionStore) -> None:
    for appended in (True, False):
        key = fresh_session()
        user, session = ids_of(key)
        if appended:
            await store.append(user, session, talk("hello"), run_id=new_run_id(), token=1)
        with acting(key, 2):
            did = await store.rollback(user, session, token=1)
            expect(did is appended, f"the run had {'' if appended else 'not '}appended, and rollback said {did!r}")
        await expect_refused(StaleToken, store.append, user, session, talk("late"), run_id=new_run_id(), token=1)
        expect(await store.history(user, session) == [], "an undone run appended once more")


async def a_deleted_session_is_gone(store: SessionStore) -> None:
    key = fresh_session()
    user, session = ids_of(key)
    for fill in ("messages", "objects"):
        if fill == "messages":
            await store.append(user, session, talk("hello"), run_id=new_run_id(), token=2)
        else:
            await store.save_modules(user, session, {"turn": 1})
        expect(await store.delete(user, session) is True, f"deleting {fill} said that there were none")
        expect(await store.history(user, session) == [], "a deleted session has messages")
        expect(await store.load_modules(user, session) is None, "a deleted session has objects")
        expect(await store.delete(user, session) is False, "a deleted session could be deleted again")
    await expect_refused(StaleToken, store.append, user, session, talk("late"), run_id=new_run_id(), token=1)
    await store.append(user, session, talk("again"), run_id=new_run_id(), token=2)
    await _expect_history(store, (user, session), talk("again"))


async def objects_keep_their_states(store: SessionStore) -> None:
    user, session = ids_of(fresh_session())
    await store.save_session_state(session_id=session, user_id=user, agent=Module([1]), helper=AsyncModule("x"))
    agent, helper, other = Module(), AsyncModule(), Module("untouched")
    await store.load_session_state(session_id=session, user_id=user, agent=agent, helper=helper, other=other)
    expect(
        (agent.memory, helper.memory, other.memory) == ([1], "x", "untouched"),
        f"objects were loaded as {(agent.memory, helper.memory, other.memory)!r}",
    )
    await store.save_session_state(session, user, agent=Module(None))
    await store.load_session_state(session, user, agent=agent, helper=helper)
    expect((agent.memory, helper.memory) == (None, "x"), "a save did not replace what was kept before")
    for wrong in (object(), None):
        await expect_refused(TypeError, store.save_session_state, session, user, agent=agent, wrong=wrong)
        await expect_refused(TypeError, store.load_session_state, session, user, agent=agent, wrong=wrong)
    await expect_refused(TypeError, store.save_session_state, session, user, agent=Module({1, 2}))
    expect(
        await store.load_modules(user, session) == {"agent": {"memory": None}}, "a refused save changed something"
    )


async def without_a_user_the_session_id_is_used(store: SessionStore) -> None:
    session = new_session_id()
    await store.save_session_state(session, agent=Module("alone"))
    agent = Module()
    await store.load_session_state(session_id=session, user_id=session, agent=agent)
    expect(agent.memory == "alone", "without a user_id objects were not kept under the session's id")


async def a_stop_does_not_interrupt_a_write(store: SessionStore) -> None:
    user, session = ids_of(fresh_session())
    with trio.CancelScope() as scope:
        scope.cancel(reason="the question wants it")
        await store.append(user, session, talk("hello"), run_id=new_run_id(), token=1)
        await store.save_session_state(session, user, agent=AsyncModule("saved"))
    await _expect_history(store, (user, session), talk("hello"))
    agent = AsyncModule()
    await store.load_session_state(session, user, agent=agent)
    expect(agent.memory == "saved", "a save of objects in a cancelled scope was not whole")


async def histories_are_bounded(store: SessionStore) -> None:
    user, session = ids_of(fresh_session())
    tenth = MAX_MESSAGES // 10
    for again in (False, True):
        for turn in range(12):
            messages = [Message(content=f"{turn}.{number}") for number in range(tenth)]
            await store.append(user, session, messages, run_id=new_run_id(), token=1)
        kept = _words(await store.history(user, session))
        expect(len(kept) <= MAX_MESSAGES, f"{len(kept)} messages are kept of one session")
        expect(
            len(kept) == MAX_MESSAGES and kept[-1] == f"11.{tenth - 1}" and kept[0] == "2.0",
            f"of turns 0 to 11 the last ten are to be kept{' after a deletion' if again else ''}: "
            f"{len(kept)} messages from {kept[0]} to {kept[-1]}",
        )
        await store.delete(user, session)
    large = "x" * (MAX_HISTORY_BYTES // 3)
    for turn in range(4):
        await store.append(user, session, [Message(content=f"{turn}{large}")], run_id=new_run_id(), token=1)
    kept = [words[0] for words in _words(await store.history(user, session))]
    expect(kept == ["2", "3"], f"of four turns that take a third of the bytes each, two fit; kept were {kept!r}")
    await store.append(user, session, [Message(content="4" + 4 * large)], run_id=new_run_id(), token=1)
    kept = [words[0] for words in _words(await store.history(user, session))]
    expect(
        kept == ["4"], f"of a turn beyond the bytes of a history that turn is kept, and none before it: {kept!r}"
    )
    many = [Message(content=str(number)) for number in range(MAX_MESSAGES + 10)]
    await store.append(user, session, many, run_id=new_run_id(), token=1)
    kept = _words(await store.history(user, session))
    expect(kept == [str(number) for number in range(10, MAX_MESSAGES + 10)], "a turn that is too long lost its end")


async def concurrent_turns_do_not_mix(store: SessionStore) -> None:
    keys = [ids_of(fresh_session()) for _ in range(10)]

    async def turns(key: tuple[str, str]) -> None:
        said: list[Message] = []
        for turn in range(5):
            messages = talk(f"{turn} of {key[1]}")
            await store.append(*key, messages, run_id=new_run_id(), token=turn + 1)
            said += messages
            await _expect_history(store, key, said)

    async with trio.open_nursery() as nursery:
        for key in keys:
            nursery.start_soon(turns, key)


async def _expect_history(store: SessionStore, key: tuple[str, str], said: Sequence[Message]) -> None:
    kept = _words(await store.history(*key))
    expect(kept == _words(said), f"the history of {key} is {kept!r:.300} and not {_words(said)!r:.300}")


def _words(messages: Sequence[Message]) -> list[str]:
    return [message.text for message in messages]


QUESTIONS = questions_in(globals())
