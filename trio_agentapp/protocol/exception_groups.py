"""The exceptions inside an exception group."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["leaves", "unwrapped"]

# Reads the members that Python stores, even if a subclass overrides the attribute `exceptions`.
_members = vars(BaseExceptionGroup)["exceptions"].__get__


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in a group and its inner groups, in order; or `error` itself if it is no group."""
    pending = [error]
    while pending:
        each = pending.pop()
        if isinstance(each, BaseExceptionGroup):
            pending += reversed(_members(each))
        else:
            yield each


def unwrapped(error: BaseException) -> BaseException:
    """Return the only exception in a group of one, at any depth; otherwise `error` itself."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
