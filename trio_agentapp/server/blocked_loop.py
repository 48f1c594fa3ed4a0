"""Logs the line of a call that blocks the event loop, such as `time.sleep` in an async handler.

While the loop is blocked, no task in it can look at a clock. A thread asks the loop for an answer every `TICK`;
when `TICKS` requests in a row have no answer, it reads the stack of the loop's thread. It counts ticks and does not
measure time, so that a process that was suspended does not count as blocked. It cannot see a call that holds
Python's global lock (the GIL), because then the watching thread is blocked, too.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import trio

from ..runs.log_fields import log_fields_of
from ..telemetry.tracebacks import is_library

__all__ = ["log_blocking_calls"]

log = logging.getLogger("trio_agentapp.server")

TICK = 0.25
"""Seconds between two requests to the loop. Four wake-ups a second cost an idle process next to nothing."""

TICKS = 4
"""Requests without an answer before a call counts as blocking: together one second."""

QUIET = 240
"""Ticks for which a line that was logged is not logged again: a minute."""

MAX_LINES = 64
"""Lines that are remembered as logged."""

RUNTIME = {"trio_agentapp", "trio", "outcome", "quart", "quart_trio", "werkzeug", "hypercorn"}
"""Packages that are on every stack, because user code runs on them."""


@contextmanager
def log_blocking_calls() -> Iterator[None]:
    """Inside this block, log a warning for each call that blocks the current Trio loop for more than a second."""
    watch = _Watch(trio.lowlevel.current_trio_token(), threading.get_ident())
    thread = threading.Thread(target=watch.run, name="watch of the event loop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        watch.over.set()
        thread.join()


class _Watch:
    def __init__(self, token: trio.lowlevel.TrioToken, loop: int) -> None:
        self.over = threading.Event()
        self._token = token
        self._loop = loop
        self._unanswered = 0
        self._tick = 0
        self._logged: dict[tuple[str, int], int] = {}

    def run(self) -> None:
        while not self.over.wait(TICK):
            self._tick += 1
            self._unanswered += 1
            if self._unanswered == TICKS + 1:
                self._log(sys._current_frames().get(self._loop))
            try:
                self._token.run_sync_soon(self._answer, idempotent=True)
            except trio.RunFinishedError:
                # Trio itself has failed, and the end of the block was not reached.
                return

    def _answer(self) -> None:
        self._unanswered = 0

    def _log(self, frame: FrameType | None) -> None:
        task = _task_of(frame)
        frame = _blocking_frame(frame)
        if frame is None:
            return
        place = (frame.f_code.co_filename, frame.f_lineno)
        if self._tick - self._logged.get(place, -QUIET) < QUIET:
            return
        if len(self._logged) >= MAX_LINES:
            self._logged.clear()
        self._logged[place] = self._tick
        log.warning(
            'a call has blocked the event loop for more than a second: File "%s", line %d, in %s%s. All other runs '
            "and requests wait for it. Call it in a thread, `await trio.to_thread.run_sync(fn)`, or make the "
            "handler a plain `def`, which runs in one",
            *place,
            frame.f_code.co_name,
            "" if task is None else f", task {task.name!r}",
            extra={} if task is None else dict(log_fields_of(task.context)),
        )


def _task_of(frame: FrameType | None) -> trio.lowlevel.Task | None:
    """Find the task that is running: it is a local variable of Trio's loop."""
    while frame is not None and frame.f_code.co_name != "unrolled_run":
        frame = frame.f_back
    task = None if frame is None else frame.f_locals.get("task")
    return task if isinstance(task, trio.lowlevel.Task) else None


def _blocking_frame(frame: FrameType | None) -> FrameType | None:
    """Find the innermost frame of user code, or else of an installed package that is not in `RUNTIME`."""
    installed: FrameType | None = None
    # Stop at the loop: the frames below it started the loop, and are user code, too.
    while frame is not None and frame.f_code.co_name != "unrolled_run":
        if not is_library(frame.f_code.co_filename):
            return frame
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if installed is None and package not in RUNTIME | sys.stdlib_module_names:
            installed = frame
        frame = frame.f_back
    return installed
