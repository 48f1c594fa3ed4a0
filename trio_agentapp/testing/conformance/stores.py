"""The contracts of state and session stores as questions. They ask for what `abc` promises, and for nothing else.

    async def test_my_store():
        await check_state_store(my_store)           # `async with my_store() as store:` opens one

or one test for each question:

    @pytest.mark.parametrize("question", state_questions(), ids=lambda question: question.__name__)
    async def test_my_store(question):
        await ask_store(my_store, question)

Each question uses new ids, so a store with the data of earlier questions serves as well as an empty one.
Ask a store that several processes share as two stores, in turn.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias, TypeVar

from ...abc import SessionStore, StateStore
from . import histories, states
from .asking import TIMEOUT, opened_by, put

__all__ = ["ask_store", "check_session_store", "check_state_store", "session_questions", "state_questions"]

S = TypeVar("S")

Make: TypeAlias = Callable[[], AbstractAsyncContextManager[S]]
Question: TypeAlias = Callable[[S], Awaitable[None]]


def state_questions() -> Sequence[Question[StateStore]]:
    """Return all questions about a state store, the simple ones first."""
    return states.QUESTIONS


def session_questions() -> Sequence[Question[SessionStore]]:
    """Return all questions about a session store, the simple ones first."""
    return histories.QUESTIONS


async def ask_store(make: Make[S], question: Question[S], *, timeout: float = TIMEOUT) -> None:
    """Put one question to a store.

    Raises:
        AssertionError: the answer is wrong, is an exception, or did not come within `timeout` seconds. The message
            begins with the name of the question.
    """
    async with opened_by(make) as store:
        await put(question, store, "store", timeout)


async def check_state_store(make: Make[StateStore], *, timeout: float = TIMEOUT) -> None:
    """Put every question to a state store. Raises an AssertionError for the first wrong answer."""
    for question in state_questions():
        await ask_store(make, question, timeout=timeout)


async def check_session_store(make: Make[SessionStore], *, timeout: float = TIMEOUT) -> None:
    """Put every question to a session store. Raises an AssertionError for the first wrong answer."""
    for question in session_questions():
        await ask_store(make, question, timeout=timeout)
