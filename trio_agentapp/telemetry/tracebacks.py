"""Shortens tracebacks so that they begin with the user's code."""

from __future__ import annotations

import sysconfig
import traceback
from os import sep
from pathlib import Path

from ..errors import AgentAppError
from ..protocol.text import describe_exception, safe_text
from .asyncio_hint import asyncio_hint

__all__ = ["is_library", "traceback_text"]

_FOLDERS = (str(Path(__file__).parents[1]), *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")))
# Read this at import: Python reads a file for it, and later an error may occur when no file can be opened.
_LIBRARIES = ("<frozen", *(folder + sep for folder in _FOLDERS))


def traceback_text(error: BaseException) -> str:
    """Format an exception and its causes, without the frames of the runtime that come before the user's.

    An error of this package keeps only the user's frames, because its message says what to do. An error without any
    frame of the user's is a fault of the runtime, and keeps all frames. An error from asyncio gets a hint.
    """
    try:
        shown = traceback.TracebackException(type(error), error, error.__traceback__, compact=True)
        _shorten(shown, error)
        hint = asyncio_hint(error)
        return safe_text("".join([*shown.format(), hint or ""])).rstrip("\n")
    except BaseException:  # user code that makes the text of an exception may raise
        members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
        return "\n".join(map(describe_exception, (error, *members)))


def is_library(filename: str) -> bool:
    """Return whether a file belongs to Python, to this package or to an installed one; False for user code."""
    return filename.startswith(_LIBRARIES)


def _shorten(shown: traceback.TracebackException, error: BaseException) -> None:
    own = [place for place, frame in enumerate(shown.stack) if not is_library(frame.filename)]
    if isinstance(error, AgentAppError):
        shown.stack[:] = [shown.stack[place] for place in own]
    elif own:
        del shown.stack[: own[0]]
    for other, cause in ((shown.__cause__, error.__cause__), (shown.__context__, error.__context__)):
        if other is not None and cause is not None:
            _shorten(other, cause)
    if isinstance(error, BaseExceptionGroup):
        for other, member in zip(shown.exceptions or (), error.exceptions, strict=False):
            _shorten(other, member)
