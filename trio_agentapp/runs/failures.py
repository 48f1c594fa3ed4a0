"""Exceptions of user code: what is in a group, whether they concern the process, and how to print them safely."""

from __future__ import annotations

import signal
import types
import weakref
from abc import ABCMeta
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import trio

from ..protocol.text import type_name

__all__ = ["ctrl_c_in", "is_cancelled", "leaves", "printable", "unwrapped"]

MAX_TEXT = 10_000
"""Characters of an exception's text, and of each text in it. Clients are never shown more of one."""


def ctrl_c_in(error: BaseException) -> KeyboardInterrupt | None:
    """Return the KeyboardInterrupt in an error if it may be Ctrl-C, which is meant for the whole program.

    A server handles signals itself; there, user code has raised it. It is Ctrl-C only if Python's or Trio's own
    handler of SIGINT is in place, as in a script that uses an app without a server.
    """
    found = next((leaf for leaf in leaves(error) if isinstance(leaf, KeyboardInterrupt)), None)
    if found is None:
        return None
    handler = signal.getsignal(signal.SIGINT)
    mine = handler is signal.default_int_handler or getattr(handler, "__module__", "") == "trio._core._ki"
    return found if mine else None


def is_cancelled(error: BaseException) -> bool:
    """Whether an error contains a cancellation that has to propagate to its scope.

    User code can raise a Cancelled that it kept, or cancel the nursery that its task was started in. Then nothing
    around the current task is cancelled, and no scope would catch the exception: it would end every task it
    reaches.
    """
    if not any(isinstance(leaf, trio.Cancelled) for leaf in leaves(error)):
        return False
    return trio.current_effective_deadline() <= trio.current_time()


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


def printable(error: BaseException) -> BaseException:
    """The same exception, made safe for `repr` and `str`; or another one in its place, if that is not possible.

    A class with its own `__repr__` or `__str__` is replaced by a subclass in which these are guarded, since one
    that works now may raise the next time. `except` and `except*` still find the exception. Texts are cut at
    `MAX_TEXT` characters.
    """
    if isinstance(error, BaseExceptionGroup):
        members = [printable(leaf) for leaf in leaves(error)]
        if _is_plain(type(error)) and _has_text(error):
            return error
        return _like(BaseExceptionGroup("a group of exceptions", members), error)
    args = _args(error)
    if not all(map(_is_short, args)):
        _set_args(error, tuple(each if _is_short(each) else _shortened(each) for each in args))
    if not isinstance(error, trio.Cancelled) and not _is_plain(type(error)):
        # It fails for a class without subclasses, or whose instances have a layout of their own.
        with suppress(BaseException):
            object.__setattr__(error, "__class__", _guarded(type(error)))
    return error if _has_text(error) else _like(RuntimeError(f"<{type_name(error)}, which has no text>"), error)


# The attributes of an exception as Python keeps them, even if its class overrides them.
_args = BaseException.args.__get__  # type: ignore[attr-defined]
_set_args = BaseException.args.__set__  # type: ignore[attr-defined]
_members = vars(BaseExceptionGroup)["exceptions"].__get__

_guards: weakref.WeakKeyDictionary[type, type] = weakref.WeakKeyDictionary()
"""The guarded subclass of each class seen so far."""


def _is_plain(kind: type) -> bool:
    """Whether only Python's own code makes its text."""
    return type(kind) in (type, ABCMeta) and not any(
        isinstance(vars(base).get(name), types.FunctionType) for base in kind.__mro__ for name in _TEXTUAL
    )


_TEXTUAL = ("__repr__", "__str__", "__format__", "__getattribute__")


def _is_short(value: object) -> bool:
    if isinstance(value, str | bytes):
        return len(value) <= MAX_TEXT
    return isinstance(value, int | float | None) or _has_text(value)


def _shortened(value: object) -> object:
    return value[:MAX_TEXT] if isinstance(value, str | bytes) else f"<{type_name(value)}>"


def _guarded(kind: type) -> type:
    known = _guards.get(kind)
    if known is None:
        own = {
            "__module__": str(kind.__module__),
            "__repr__": _guarding(kind.__repr__, f"<{kind.__name__}, which has no text>"),
            "__str__": _guarding(kind.__str__, ""),
            "__format__": object.__format__,
        }
        known = _guards[kind] = type(str(kind.__name__), (kind,), own)
    return known


def _guarding(method: Any, instead: str) -> Callable[[BaseException], str]:
    def text(error: BaseException) -> str:
        try:
            result: object = method(error)
        except BaseException:
            return instead
        return result[:MAX_TEXT] if isinstance(result, str) else instead

    return text


def _has_text(value: object) -> bool:
    kind = type(value)
    try:
        _ = repr(value), str(value), kind.__name__ + kind.__qualname__ + kind.__module__
    except BaseException:
        return False
    return True


def _like(other: BaseException, error: BaseException) -> BaseException:
    other.__cause__, other.__context__ = error.__cause__, error.__context__
    return other.with_traceback(error.__traceback__)
