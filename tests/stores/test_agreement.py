"""Random uses of memory, SQLite and Redis at once: they and a plain model of the contract always agree."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from trio_agentapp.errors import StaleToken
from trio_agentapp.protocol.ids import SessionKey
from trio_agentapp.protocol.message import Message
from trio_agentapp.runs import Run, current_run
from trio_agentapp.stores import Stores, open_stores
from trio_agentapp.testing.redis_server import RedisServer

EXAMPLES = 60

TOKENS = st.integers(1, 4)
RUNNING = st.none() | TOKENS
"""The token of the run that does something; None: code outside of runs."""

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    # Surrogates are replaced: that is a question of the conformance suite.
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
VALUES = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), JSON, max_size=3)


class Model:
    """The contract as it is told: every write is remembered, and the present follows from them."""

    def __init__(self) -> None:
        self.writes: list[tuple[int | None, Any]] = []
        self.turns: list[tuple[int, str]] = []
        self.fence = 0

    def admit(self, token: int | None) -> None:
        if token is not None and token < self.fence:
            raise StaleToken
        self.fence = max(self.fence, token or 0)

    @property
    def value(self) -> Any:
        return self.writes[-1][1] if self.writes else None

    def write(self, token: int | None, value: Any) -> None:
        self.admit(token)
        self.writes.append((token, value))

    def rollback(self, token: int) -> bool:
        did = False
        if self.writes and self.writes[-1][0] == token:
            while self.writes and self.writes[-1][0] == token:
                self.writes.pop()
            # One version back is kept, and no more: from here on it is as if somebody else had saved it.
            self.writes = [(None, self.value)]
            did = True
        if self.turns and self.turns[-1][0] == token:
            self.turns.pop()
            did = True
        return did


def machine_of(places: list[Stores], numbers: itertools.count[int]) -> type[RuleBasedStateMachine]:
    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.key = SessionKey("ann", f"chat {next(numbers)}")
            self.ids = (self.key.user_id, self.key.session_id)
            self.states, self.sessions = Model(), Model()

        def agree(self, running: int | None, attempt: Callable[[Stores], Any], model: Callable[[], Any]) -> None:
            """All places answer, or refuse, as the model does."""

            async def answer(stores: Stores) -> Any:
                if running is not None:
                    run = Run(run_id="a-run-of-some-token", key=self.key)
                    run.token = running
                    current_run.set(run)
                try:
                    return await attempt(stores)
                except StaleToken:
                    return StaleToken

            async def answers() -> list[Any]:
                return [await answer(stores) for stores in places]

            try:
                expected = model()
            except StaleToken:
                expected = StaleToken
            for answered in trio.from_thread.run(answers):
                assert repr(answered) == repr(expected)

        @rule(running=RUNNING, value=VALUES)
        def save(self, running: int | None, value: Any) -> None:
            self.agree(
                running, lambda to: to.states.save(*self.ids, value), lambda: self.states.write(running, value)
            )

        @rule(running=RUNNING)
        def delete(self, running: int | None) -> None:
            def model() -> bool:
                existed = self.states.value is not None
                self.states.write(running, None)
                return existed

            self.agree(running, lambda to: to.states.delete(*self.ids), model)

        @rule(running=RUNNING, token=TOKENS)
        def rollback(self, running: int | None, token: int) -> None:
            def model() -> bool:
                self.states.admit(running)
                return self.states.rollback(token)

            self.agree(running, lambda to: to.states.rollback(*self.ids, token=token), model)

        @rule(token=TOKENS, words=st.lists(st.sampled_from("abc"), max_size=3), again=st.booleans())
        def append(self, token: int, words: list[str], again: bool) -> None:
            run_id = f"run-{token}" if again else f"run-{token}-{next(numbers)}"
            messages = [Message(content=f"{run_id} {word}") for word in words]

            def model() -> None:
                known = {text.split(" ")[0] for _, turn in self.sessions.turns for text in turn.split("|")}
                if messages and run_id not in known:
                    self.sessions.admit(token)
                    self.sessions.turns.append((token, "|".join(message.text for message in messages)))

            self.agree(None, lambda to: to.sessions.append(*self.ids, messages, run_id=run_id, token=token), model)

        @rule(running=RUNNING, value=VALUES)
        def save_modules(self, running: int | None, value: Any) -> None:
            self.agree(
                running,
                lambda to: to.sessions.save_modules(*self.ids, value),
                lambda: self.sessions.write(running, value),
            )

        @rule(running=RUNNING)
        def delete_session(self, running: int | None) -> None:
            def model() -> bool:
                existed = self.sessions.value is not None or bool(self.sessions.turns)
                self.sessions.write(running, None)
                self.sessions.turns.clear()
                return existed

            self.agree(running, lambda to: to.sessions.delete(*self.ids), model)

        @rule(running=RUNNING, token=TOKENS)
        def rollback_session(self, running: int | None, token: int) -> None:
            def model() -> bool:
                self.sessions.admit(running)
                return self.sessions.rollback(token)

            self.agree(running, lambda to: to.sessions.rollback(*self.ids, token=token), model)

        @rule(limit=st.none() | st.integers(0, 4))
        def read_history(self, limit: int | None) -> None:
            async def texts(to: Stores) -> list[str]:
                return [message.text for message in await to.sessions.history(*self.ids, limit=limit)]

            said = [text for _, turn in self.sessions.turns for text in turn.split("|")]
            self.agree(None, texts, lambda: said if limit is None else said[max(len(said) - limit, 0) :])

        @invariant()
        def the_present_is_the_same(self) -> None:
            self.agree(None, lambda to: to.states.load(*self.ids), lambda: self.states.value)
            self.agree(None, lambda to: to.sessions.load_modules(*self.ids), lambda: self.sessions.value)

    return Machine


async def test_all_stores_agree(redis_server: RedisServer, tmp_path: Path) -> None:
    async with (
        open_stores() as memory,
        open_stores(f"sqlite:///{tmp_path}/states.db") as sqlite,
        open_stores(redis_server.url, prefix="agreement") as redis,
    ):
        machine = machine_of([memory, sqlite, redis], itertools.count())
        profile = settings(max_examples=EXAMPLES, stateful_step_count=30, deadline=None)
        await trio.to_thread.run_sync(lambda: run_state_machine_as_test(machine, settings=profile))
