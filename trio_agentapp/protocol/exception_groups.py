"""What is inside an exception group."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["leaves", "unwrapped"]

# As Python keeps them, even if a subclass overrides the attribute.
_members = vars(BaseExceptionGroup)["exceptions"].__get__


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions inside of groups, in their order; the exception itself if it is not a group."""
    pending = [error]
    while pending:
        each = pending.pop()
        if isinstance(each, BaseExceptionGroup):
            pending += reversed(_members(each))
        else:
            yield each


def unwrapped(error: BaseException) -> BaseException:
    """The one exception in a group of one, at any depth; otherwise the error itself."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
