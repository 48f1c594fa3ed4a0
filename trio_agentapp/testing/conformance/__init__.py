"""The contract of interrupt backends as questions. They ask for what `abc` promises, and for nothing else.

    async def test_my_backend():
        not_offered = await check_interrupt_backend(my_backend)   # `async with my_backend() as backend:` opens one

or one test for each question:

    @pytest.mark.parametrize("question", interrupt_questions(), ids=lambda question: question.__name__)
    async def test_my_backend(question):
        await ask(my_backend, question)

No question waits for time to pass, so a real clock and a virtual one give the same answers. Each question uses new
ids, so a server that still holds the data of earlier questions serves as well as an empty one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial, wraps
from typing import TypeAlias

import trio

from ...abc import BaseInterruptBackend
from . import claims, endings, offers, signals, stops
from .asking import TIMEOUT, opened_by, put, put_all

__all__ = ["MakeBackend", "Question", "ask", "check_interrupt_backend", "interrupt_questions"]

MakeBackend: TypeAlias = Callable[[], AbstractAsyncContextManager[BaseInterruptBackend]]
"""Opens a new backend and closes it. Its `serve` runs while a question is asked."""

Question: TypeAlias = Callable[[BaseInterruptBackend], Awaitable[None]]


def interrupt_questions() -> Sequence[Question]:
    """Return all questions, the simple ones first, those about optional parts last."""
    return [*claims.QUESTIONS, *endings.QUESTIONS, *stops.QUESTIONS, *signals.QUESTIONS, *offers.QUESTIONS]


async def ask(make: MakeBackend, question: Question, *, timeout: float = TIMEOUT) -> bool:
    """Put one question to a new backend. Return False if it is about a part that the backend does not offer.

    Raises:
        AssertionError: the answer is wrong, is an exception, or did not come within `timeout` seconds. The message
            begins with the name of the question.
    """
    async with opened_by(make) as backend:

        @wraps(question)
        async def served(backend: BaseInterruptBackend) -> None:
            async with trio.open_nursery() as nursery:
                await nursery.start(backend.serve)
                await question(backend)
                nursery.cancel_scope.cancel(reason="the question was answered")

        return await put(served, backend, "backend", timeout)


async def check_interrupt_backend(make: MakeBackend, *, timeout: float = TIMEOUT) -> Sequence[str]:
    """Put every question to a backend of its own. Return the names of those about parts that it does not offer.

    Raises:
        AssertionError: the first wrong answer. See `ask`.
    """
    return await put_all(interrupt_questions(), partial(ask, make, timeout=timeout))
