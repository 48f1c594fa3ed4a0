"""Classifies exceptions of user code (Ctrl-C, cancellation), and makes them safe to print."""

from __future__ import annotations

import signal
import types
import weakref
from abc import ABCMeta
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import trio

from ..protocol.exception_groups import leaves
from ..protocol.text import type_name

__all__ = ["ctrl_c_in", "is_cancelled", "printable"]

MAX_TEXT = 10_000
"""The limit, in characters, of an exception's text and of each string in its arguments."""


def ctrl_c_in(error: BaseException) -> KeyboardInterrupt | None:
    """Return the KeyboardInterrupt in `error` (or in its group) if Ctrl-C has caused it; else None.

    Ctrl-C raises KeyboardInterrupt only if Python's or Trio's handler of SIGINT is installed, as in a script that
    uses an app without a server. A server installs its own handler. There user code has raised the exception, and
    it ends only its run.
    """
    found = next((leaf for leaf in leaves(error) if isinstance(leaf, KeyboardInterrupt)), None)
    if found is None:
        return None
    handler = signal.getsignal(signal.SIGINT)
    mine = handler is signal.default_int_handler or getattr(handler, "__module__", "") == "trio._core._ki"
    return found if mine else None


def is_cancelled(error: BaseException) -> bool:
    """Whether `error` contains a `trio.Cancelled` of a cancelled scope around the current task.

    If so, raise it again. False for a Cancelled that user code has stored and raised again, or that comes from the
    nursery of another task. No scope around the current task is cancelled then, so none would catch it: if
    reraised, it would end one task after the other. Treat it as an error of the user code.
    """
    if not any(isinstance(leaf, trio.Cancelled) for leaf in leaves(error)):
        return False
    return trio.current_effective_deadline() <= trio.current_time()


def printable(error: BaseException) -> BaseException:
    """Make `error` safe for `repr`, `str` and logging, and return it.

    User classes may have a `__repr__` or `__str__` that raises, now or at the next call. The class of such an
    exception is changed to a subclass that catches this; `except` and `except*` still match. Arguments are cut at
    `MAX_TEXT` characters. If the class cannot be changed, a RuntimeError (a BaseExceptionGroup for a group) with
    the same traceback is returned instead.
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
        # It fails for a class that cannot be subclassed, and for one whose instances have another memory layout.
        with suppress(BaseException):
            object.__setattr__(error, "__class__", _guarded(type(error)))
    return error if _has_text(error) else _like(RuntimeError(f"<{type_name(error)}, which has no text>"), error)


# These read and write the attributes of BaseException itself, even if a subclass overrides them.
_args = BaseException.args.__get__  # type: ignore[attr-defined]
_set_args = BaseException.args.__set__  # type: ignore[attr-defined]

_guards: weakref.WeakKeyDictionary[type, type] = weakref.WeakKeyDictionary()
"""The guarded subclass of each class seen so far."""


def _is_plain(kind: type) -> bool:
    """Return whether neither the class nor a base defines a method of `_TEXTUAL` in Python, which could raise."""
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
    """Return a subclass of an exception class whose `repr` and `str` cannot raise."""
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
    """Wrap `__repr__` or `__str__` so that it returns `instead` if it raises or does not return a str."""

    def text(error: BaseException) -> str:
        try:
            result: object = method(error)
        except BaseException:
            return instead
        return result[:MAX_TEXT] if isinstance(result, str) else instead

    return text


def _has_text(value: object) -> bool:
    """Return whether `repr`, `str` and the names of its class can be read without an exception."""
    kind = type(value)
    try:
        _ = repr(value), str(value), kind.__name__ + kind.__qualname__ + kind.__module__
    except BaseException:
        return False
    return True


def _like(other: BaseException, error: BaseException) -> BaseException:
    """Give `other` the traceback, cause and context of `error`."""
    other.__cause__, other.__context__ = error.__cause__, error.__context__
    return other.with_traceback(error.__traceback__)
