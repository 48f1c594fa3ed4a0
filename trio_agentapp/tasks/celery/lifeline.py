"""A pipe that stops a worker's tasks at its shutdown. Only the worker's main process has the writing end.

Celery's warm shutdown waits without limit for running tasks. Here it waits for `grace` seconds. Then the main
process closes its end of the pipe, and every task that still runs is stopped with its cleanup.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import trio
from celery import signals

__all__ = ["Lifeline"]


class Lifeline:
    """The pipe of a worker. Install it once for a Celery application; other processes are not affected."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._reading: int | None = None
        self._writing: int | None = None
        self._lock = threading.Lock()
        self._main: int | None = None

    def install(self) -> None:
        # Celery keeps weak references to receivers by default.
        signals.worker_init.connect(self._make, weak=False)
        signals.worker_process_init.connect(self._leave_to_main, weak=False)
        signals.worker_shutting_down.connect(self._shutting_down, weak=False)

    async def wait_shutdown(self) -> None:
        """Wait until tasks must stop; forever in a process that is not a worker."""
        if self._reading is None:
            await trio.sleep_forever()
        else:
            await trio.lowlevel.wait_readable(self._reading)

    def cut(self) -> None:
        """Stop every task of this worker. It may be repeated, from any thread of the main process."""
        with self._lock:
            writing, self._writing = self._writing, None
        if writing is not None:
            os.close(writing)

    def _make(self, **_: Any) -> None:
        if self._reading is None:
            self._reading, self._writing = os.pipe()
            self._main = os.getpid()

    def _leave_to_main(self, **_: Any) -> None:
        """Close the writing end in a forked child, which would keep the pipe open. Thread pools do not fork."""
        if os.getpid() != self._main:
            self._lock = threading.Lock()
            self.cut()

    def _shutting_down(self, **_: Any) -> None:
        # This is a signal handler, so it does nothing but start a timer.
        timer = threading.Timer(self._grace, self.cut)
        timer.daemon = True
        timer.start()
