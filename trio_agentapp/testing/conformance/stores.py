"""The contracts of state and session stores as questions: what follows from their texts in `abc`, and no more.

    async def test_my_store():
        await check_state_store(my_store)           # `async with my_store() as store:` gives one to be asked

or one test for each question:

    @pytest.mark.parametrize("question", state_questions(), ids=lambda question: question.__name__)
    async def test_my_store(question):
        await ask_store(my_store, question)

Each question uses ids of its own, so a store that keeps what earlier questions left serves as well as an empty one.
A store that several processes share should be asked as two of its kind, in turn.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias, TypeVar

import trio

from ...abc import SessionStore, StateStore
from ...runs.failures import leaves
from . import histories, states

__all__ = ["ask_store", "check_session_store", "check_state_store", "session_questions", "state_questions"]

S = TypeVar("S")

Make: TypeAlias = Callable[[], AbstractAsyncContextManager[S]]
Question: TypeAlias = Callable[[S], Awaitable[None]]

PATIENCE = 20.0
"""Seconds for the answer to one question."""


def state_questions() -> Sequence[Question[StateStore]]:
    """All questions about a state store, the simple ones first."""
    return states.QUESTIONS


def session_questions() -> Sequence[Question[SessionStore]]:
    """All questions about a session store, the simple ones first."""
    return histories.QUESTIONS


async def ask_store(make: Make[S], question: Question[S], *, patience: float = PATIENCE) -> None:
    """Put one question to a store.

    Raises:
        AssertionError: the answer is wrong, is an exception, or did not come within `patience` seconds. The
            message begins with the name of the question.
    """
    name = getattr(question, "__name__", "question")
    wrong: BaseException | None = None
    async with make() as store:
        with trio.move_on_after(patience) as scope:
            try:
                await question(store)
            except Exception as exc:
                wrong = next(leaves(exc))  # a nursery of a question wraps what went wrong in it
    if wrong is not None:
        sentence = str(wrong) if isinstance(wrong, AssertionError) else f"the store raised {wrong!r}"
        raise AssertionError(f"{name}: {sentence}") from wrong
    if scope.cancelled_caught:
        raise AssertionError(f"{name}: no answer within {patience:g} s")


async def check_state_store(make: Make[StateStore], *, patience: float = PATIENCE) -> None:
    """Put every question to a state store; the first wrong answer is raised.

    Raises:
        AssertionError: see `ask_store`.
    """
    for question in state_questions():
        await ask_store(make, question, patience=patience)


async def check_session_store(make: Make[SessionStore], *, patience: float = PATIENCE) -> None:
    """Put every question to a session store; the first wrong answer is raised.

    Raises:
        AssertionError: see `ask_store`.
    """
    for question in session_questions():
        await ask_store(make, question, patience=patience)
