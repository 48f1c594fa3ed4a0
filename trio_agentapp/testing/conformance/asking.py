"""Puts one question to an implementation. Every failure becomes an AssertionError with the name of the question."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from inspect import iscoroutinefunction
from typing import Any, TypeVar, cast

import trio

from ...protocol.exception_groups import leaves

__all__ = [
    "TIMEOUT",
    "NotApplicable",
    "expect",
    "expect_refused",
    "name_of",
    "offered",
    "opened_by",
    "present",
    "put",
    "put_all",
    "questions_in",
]

T = TypeVar("T")
Q = TypeVar("Q")

TIMEOUT = 20.0
"""Seconds for the answer to one question."""


class NotApplicable(Exception):
    """A question is about a part that the implementation does not offer."""


async def put(question: Callable[[Q], Awaitable[object]], asked: Q, kind: str, timeout: float) -> bool:
    """Ask a `kind`, such as "backend", one question. Return False if it is about a part that is not offered.

    Raises:
        AssertionError: the answer is wrong, is an exception, or did not come within `timeout` seconds.
    """
    wrong: BaseException | None = None
    with trio.move_on_after(timeout) as scope:
        try:
            await question(asked)
        except Exception as exc:
            wrong = next(leaves(exc))  # a question, and the caller, may have wrapped it with a nursery
    if isinstance(wrong, NotApplicable):
        return False
    if wrong is not None:
        sentence = str(wrong) if isinstance(wrong, AssertionError) else f"the {kind} raised {wrong!r}"
        raise AssertionError(f"{name_of(question)}: {sentence}") from wrong
    if scope.cancelled_caught:
        raise AssertionError(f"{name_of(question)}: no answer within {timeout:g} s")
    return True


async def put_all(questions: Sequence[Q], ask: Callable[[Q], Awaitable[bool]]) -> Sequence[str]:
    """Ask all questions. Return the names of those about parts that are not offered."""
    return [name_of(question) for question in questions if not await ask(question)]


def opened_by(make: Callable[[], AbstractAsyncContextManager[T]]) -> AbstractAsyncContextManager[T]:
    """Call `make`. Raises TypeError if it does not return an async context manager, as when it is a class."""
    given: Any = make
    manager: AbstractAsyncContextManager[T] = given() if callable(given) else given
    if not isinstance(manager, AbstractAsyncContextManager):
        raise TypeError(
            "give a function that returns an async context manager: an async generator function that yields the "
            f"object, decorated with @contextlib.asynccontextmanager; got {make!r:.100}"
        )
    return manager


def name_of(question: object) -> str:
    return getattr(question, "__name__", "question")


def offered(part: T | None) -> T:
    """Return an optional part; without it, end the question as not applicable."""
    if part is None:
        raise NotApplicable
    return part


def present(part: T | None, sentence: str) -> T:
    """Return a part that must be there."""
    expect(part is not None, sentence)
    return cast(T, part)


def expect(holds: object, sentence: str) -> None:
    """Like `assert`, which an optimised interpreter leaves out."""
    if not holds:
        raise AssertionError(sentence)


async def expect_refused(
    error: type[Exception], attempt: Callable[..., Awaitable[object]], *args: object, **options: object
) -> None:
    """Expect that the attempt raises `error`."""
    name = getattr(attempt, "__name__", "it")
    try:
        answer = await attempt(*args, **options)
    except error:
        return
    raise AssertionError(f"{name} returned {answer!r:.100}, and {error.__name__} was expected")


def questions_in(module: Mapping[str, Any]) -> Sequence[Callable[[Any], Awaitable[None]]]:
    """Return the questions of a module, given its `globals()`: its own public async functions, in order."""
    return [
        value
        for name, value in module.items()
        if iscoroutinefunction(value) and value.__module__ == module["__name__"] and not name.startswith("_")
    ]
