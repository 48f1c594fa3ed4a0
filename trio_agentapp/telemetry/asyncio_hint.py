"""Adds a hint to exceptions of asyncio code that runs under Trio."""

from __future__ import annotations

import traceback

__all__ = ["asyncio_hint"]

HINT = (
    "Hint: this code runs on Trio, where asyncio has no event loop. Use trio.sleep for asyncio.sleep, "
    "run.start_soon or trio.open_nursery for asyncio.create_task and gather, trio.fail_after for asyncio.timeout. "
    "A library that needs asyncio goes into a thread: await trio.to_thread.run_sync(asyncio.run, main())"
)

SIGNS = (
    "no running event loop",
    "There is no current event loop",
    "trio.run received unrecognized yield message",
)
"""The beginnings of the messages of asyncio and Trio."""

KINDS = (RuntimeError, TypeError, AttributeError)
"""The classes that asyncio raises without a loop. Subclasses do not count: their text may be made by user code."""


def asyncio_hint(error: BaseException) -> str | None:
    """Return a hint if this exception, or one in its group, comes from asyncio under Trio."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(asyncio_hint, error.exceptions)), None)
    return HINT if _is_from_asyncio(error) else None


def _is_from_asyncio(error: BaseException) -> bool:
    if type(error) not in KINDS or not error.args or not isinstance(error.args[0], str):
        return False
    if error.args[0].startswith(SIGNS):
        return True
    places = [frame for frame, _line in traceback.walk_tb(error.__traceback__)]
    # asyncio.Queue and others use None as their loop.
    return (
        type(error) is AttributeError
        and bool(places)
        and str(places[-1].f_globals.get("__name__")).startswith("asyncio.")
    )
