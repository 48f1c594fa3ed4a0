"""Tracebacks that begin where the reader's own code does."""

from __future__ import annotations

import sysconfig
import traceback
from os import sep
from pathlib import Path

from ..errors import AgentAppError
from ..protocol.text import describe_exception, safe_text
from .asyncio_hint import asyncio_hint

__all__ = ["is_library", "traceback_text"]


def traceback_text(error: BaseException) -> str:
    """The traceback of an exception and of its causes, without the runtime's frames above the user's.

    An error of this package has the user's frames alone: its message says what to do. Any other without a frame of
    the user's, as a fault of the runtime, keeps all its frames. What comes of asyncio has a hint below it.
    """
    try:
        told = traceback.TracebackException(type(error), error, error.__traceback__, compact=True)
        _shorten(told, error)
        hint = asyncio_hint(error)
        return safe_text("".join([*told.format(), hint or ""])).rstrip("\n")
    except BaseException:  # the attributes of an exception are a user's, as its text is
        members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
        return "\n".join(map(describe_exception, (error, *members)))


def is_library(filename: str) -> bool:
    """Whether a line of this file is not the user's to change: Python's, this package's, or an installed one's."""
    paths = sysconfig.get_paths()
    folders = (str(Path(__file__).parents[1]), paths["stdlib"], paths["purelib"], paths["platlib"])
    return filename.startswith(("<frozen", *(folder + sep for folder in folders)))


def _shorten(told: traceback.TracebackException, error: BaseException) -> None:
    own = [place for place, frame in enumerate(told.stack) if not is_library(frame.filename)]
    if isinstance(error, AgentAppError):
        told.stack[:] = [told.stack[place] for place in own]
    elif own:
        del told.stack[: own[0]]
    for other, cause in ((told.__cause__, error.__cause__), (told.__context__, error.__context__)):
        if other is not None and cause is not None:
            _shorten(other, cause)
    if isinstance(error, BaseExceptionGroup):
        for other, member in zip(told.exceptions or (), error.exceptions, strict=False):
            _shorten(other, member)
