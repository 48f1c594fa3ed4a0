"""The contract of an interrupt backend as questions: what follows from `abc` and INTERRUPT-PROTOCOL, and no more.

    async def test_my_backend():
        await check_interrupt_backend(my_backend)       # `async with my_backend() as backend:` gives a fresh one

or one test for each question:

    @pytest.mark.parametrize("question", interrupt_questions(), ids=lambda question: question.__name__)
    async def test_my_backend(question):
        await ask(my_backend, question)

No question waits for time to pass, so they are the same on a real clock and on a virtual one; and each uses ids of
its own, so a server that keeps what earlier questions left there serves as well as an empty one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

import trio

from ...abc import BaseInterruptBackend
from . import claims, endings, offers, signals, stops

__all__ = ["PATIENCE", "MakeBackend", "Question", "ask", "check_interrupt_backend", "interrupt_questions"]

MakeBackend: TypeAlias = Callable[[], AbstractAsyncContextManager[BaseInterruptBackend]]
"""Gives a context manager around a fresh backend, which it closes; while a question is asked, its `serve` runs."""

Question: TypeAlias = Callable[[BaseInterruptBackend], Awaitable[None]]

PATIENCE = 20.0
"""Seconds for the answer to one question."""


def interrupt_questions() -> Sequence[Question]:
    """All questions, the simple ones first."""
    return [*claims.QUESTIONS, *endings.QUESTIONS, *stops.QUESTIONS, *signals.QUESTIONS, *offers.QUESTIONS]


async def ask(make: MakeBackend, question: Question, *, patience: float = PATIENCE) -> None:
    """Put one question to a fresh backend.

    Raises:
        AssertionError: the answer is wrong, is an exception, or did not come within `patience` seconds. The
            message begins with the name of the question.
    """
    name = getattr(question, "__name__", "question")
    wrong: Exception | None = None
    async with make() as backend:
        with trio.move_on_after(patience) as scope:
            try:
                async with trio.open_nursery() as nursery:
                    await nursery.start(backend.serve)
                    try:
                        await question(backend)
                    except Exception as exc:
                        wrong = exc
                    nursery.cancel_scope.cancel(reason="the question was answered")
            except Exception as exc:
                wrong = wrong or exc
    if wrong is not None:
        sentence = str(wrong) if isinstance(wrong, AssertionError) else f"the backend raised {wrong!r}"
        raise AssertionError(f"{name}: {sentence}") from wrong
    if scope.cancelled_caught:
        raise AssertionError(f"{name}: no answer within {patience:g} s")


async def check_interrupt_backend(make: MakeBackend, *, patience: float = PATIENCE) -> None:
    """Put every question to a backend of its own; the first wrong answer is raised.

    Raises:
        AssertionError: see `ask`.
    """
    for question in interrupt_questions():
        await ask(make, question, patience=patience)
