"""A Celery worker as a subprocess of the app: restarted if it dies, and ended with the app."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio

from ...nursery import nursery_around
from ...restarts import keep_running
from ...runs.grace import grace_period
from ...runs.process import signal_group

__all__ = ["EmbeddedWorker"]

logger = logging.getLogger("trio_agentapp.tasks")

LEAVE_MARGIN = 4.0
"""Seconds beyond the cleanup budget in which a worker may end after its tasks were stopped; then it is killed."""


class EmbeddedWorker:
    """Supervises the worker that `command` starts. `--life=N` is added to it; N is the descriptor of a pipe.

    When the app closes the pipe, or dies, the worker stops its tasks, with their cleanup, and ends.
    """

    def __init__(self, command: Sequence[str], *, cleanup_budget: float) -> None:
        self._command = command
        self._cleanup_budget = cleanup_budget
        self._process: trio.Process | None = None
        self._stopping = trio.Event()
        self._ended = trio.Event()
        self._life: tuple[int, int] | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Keep a worker running inside this block. The end of the block waits for the end of the worker."""
        self._life = os.pipe()
        self._stopping, self._ended = trio.Event(), trio.Event()
        try:
            async with nursery_around() as nursery:
                nursery.start_soon(self._keep, name="embedded worker")
                try:
                    yield
                finally:
                    with trio.CancelScope(shield=True):
                        await self._end()
        finally:
            self._close_pipe()
            os.close(self._life[0])

    async def drain(self, timeout: float, hurry: trio.Event | None = None) -> None:
        """Take no new tasks; let running ones end for `timeout` seconds or until `hurry`; then stop the worker."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        await grace_period(self._ended.wait, timeout, hurry)
        await self._end()

    async def _end(self) -> None:
        self._stopping.set()
        self._close_pipe()
        with trio.move_on_after(self._cleanup_budget + LEAVE_MARGIN):
            await self._ended.wait()
        if not self._ended.is_set():
            logger.error("the embedded worker has not ended within the cleanup budget and is killed")
            self._kill()
            await self._ended.wait()

    def _close_pipe(self) -> None:
        if self._life is not None and self._life[1] >= 0:
            os.close(self._life[1])
            self._life = (self._life[0], -1)

    async def _keep(self) -> None:
        """Run the worker, and restart it, until the app stops it."""
        died = partial(logger.error, "the embedded worker ended with code %d and is restarted in %g s")
        try:
            await keep_running(self._run_one, self._stopping, died)
        finally:
            self._ended.set()

    async def _run_one(self) -> int:
        assert self._life is not None  # noqa: S101  made in open
        process = self._process = await trio.lowlevel.open_process(
            [*self._command, f"--life={self._life[0]}"],
            pass_fds=(self._life[0],),
            stdin=subprocess.DEVNULL,
            # The worker must import the same modules as this process.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(place or os.getcwd() for place in sys.path)},
            # In its own process group Ctrl-C does not reach the worker, and a kill also ends its children.
            process_group=0,
        )
        try:
            if self._stopping.is_set():
                self._signal(signal.SIGTERM)
            return await process.wait()
        finally:
            if process.returncode is None:
                self._kill()
            self._process = None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    def _kill(self) -> None:
        """Kill the worker and its children."""
        if self._process is not None:
            signal_group(self._process.pid, signal.SIGKILL)
