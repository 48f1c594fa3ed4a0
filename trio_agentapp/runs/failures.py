"""Exceptions of user code: what they are, whom they concern, and how to take text of them."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import trio

__all__ = ["is_cancelled", "is_ctrl_c", "leaves", "printable"]


def is_ctrl_c(error: BaseException) -> bool:
    """Whether an error may be Ctrl-C, which is meant for the program and not for one run.

    A server receives signals itself, and a KeyboardInterrupt was raised by user code then. It is Ctrl-C only where
    Python's or Trio's own handler of SIGINT is in place, as in a script that uses an app without a server.
    """
    if not any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves(error)):
        return False
    handler = signal.getsignal(signal.SIGINT)
    return handler is signal.default_int_handler or getattr(handler, "__module__", "") == "trio._core._ki"


def is_cancelled(error: BaseException) -> bool:
    """Whether a cancellation is in it that has to go on to its scope.

    User code can raise a Cancelled that it kept, or cancel the nursery that its task was started in. Nothing around
    the current task is cancelled then, and no scope would take the exception: it would end all that it passes.
    """
    if not any(isinstance(leaf, trio.Cancelled) for leaf in leaves(error)):
        return False
    return trio.current_effective_deadline() <= trio.current_time()


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions inside of groups, in their order; of one that is no group, itself."""
    pending = [error]
    while pending:
        each = pending.pop()
        if isinstance(each, BaseExceptionGroup):
            pending += reversed(each.exceptions)
        else:
            yield each


def printable(error: BaseException) -> BaseException:
    """The same exception, of which `repr` and `str` can be taken; another one only where it cannot be mended.

    The class of one whose `__repr__` or `__str__` raises becomes a subclass that has its own, so that `except` and
    `except*` find it all the same.
    """
    if _has_text(error):
        return error
    if isinstance(error, BaseExceptionGroup):
        members = [printable(leaf) for leaf in leaves(error)]
        return error if _has_text(error) else _like(BaseExceptionGroup("a group of exceptions", members), error)
    if not all(map(_has_text, error.args)):
        error.args = tuple(each if _has_text(each) else f"<{type(each).__name__}>" for each in error.args)
        if _has_text(error):
            return error
    kind = type(error)
    try:
        own = {"__module__": kind.__module__, "__repr__": _bare, "__str__": lambda _self: ""}
        mended = type(kind.__name__, (kind,), own)
        object.__setattr__(error, "__class__", mended)
    except Exception:  # a class that cannot have subclasses, or whose instances have a layout of their own
        return _like(RuntimeError(_bare(error)), error)
    return error


def _has_text(value: object) -> bool:
    try:
        repr(value)
        str(value)
    except BaseException:
        return False
    return True


def _bare(error: BaseException) -> str:
    return f"<{type(error).__name__}, which has no text>"


def _like(other: BaseException, error: BaseException) -> BaseException:
    other.__cause__, other.__context__ = error.__cause__, error.__context__
    return other.with_traceback(error.__traceback__)
