"""A Celery worker as a subprocess of the app: started again when it dies, ended with it, whatever ends it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import trio

from ...runs.grace import grace_period
from ...runs.nursery import nursery_around

__all__ = ["EmbeddedWorker"]

logger = logging.getLogger("trio_agentapp.tasks")

RESTART_AT_FIRST, RESTART_AT_LAST = 0.5, 30.0
"""Seconds before a worker that died is started again: doubled each time, until one has lived for the longer."""

LEAVE_MARGIN = 4.0
"""Seconds beyond the cleanup budget in which a worker whose tasks were stopped may leave; then it is killed."""


class EmbeddedWorker:
    """Supervises the worker that `command` starts; `--life=N` is added to it, for the descriptor of a pipe.

    The worker has a pipe from the app: it ends when the app closes it, or dies in any way. Then the worker stops
    its tasks, with their cleanup, and leaves.
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
        """Keep a worker running inside this block; it has ended when the block has."""
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
            self._hang_up()
            os.close(self._life[0])

    async def drain(self, timeout: float, hurry: trio.Event | None = None) -> None:
        """Have it take no new tasks; those it has may end for `timeout` seconds or until `hurry`; then stop."""
        self._stopping.set()
        self._tell(signal.SIGTERM)
        await grace_period(self._ended.wait, timeout, hurry)
        await self._end()

    async def _end(self) -> None:
        self._stopping.set()
        self._hang_up()
        with trio.move_on_after(self._cleanup_budget + LEAVE_MARGIN):
            await self._ended.wait()
        if not self._ended.is_set():
            logger.error("the embedded worker has not ended within the cleanup budget, and is killed")
            self._kill()
            await self._ended.wait()

    def _hang_up(self) -> None:
        if self._life is not None and self._life[1] >= 0:
            os.close(self._life[1])
            self._life = (self._life[0], -1)

    async def _keep(self) -> None:
        """One worker and its successors."""
        pause = RESTART_AT_FIRST
        try:
            while not self._stopping.is_set():
                began = trio.current_time()
                code = await self._run_one()
                if self._stopping.is_set():
                    break
                if trio.current_time() - began > RESTART_AT_LAST:
                    pause = RESTART_AT_FIRST
                logger.error("the embedded worker ended with code %d and is started again in %g s", code, pause)
                with trio.move_on_after(pause):
                    await self._stopping.wait()
                pause = min(pause * 2, RESTART_AT_LAST)
        finally:
            self._ended.set()

    async def _run_one(self) -> int:
        assert self._life is not None  # noqa: S101  made in open
        process = self._process = await trio.lowlevel.open_process(
            [*self._command, f"--life={self._life[0]}"],
            pass_fds=(self._life[0],),
            stdin=subprocess.DEVNULL,
            # It finds what this process finds.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(place or os.getcwd() for place in sys.path)},
            # A group of its own: Ctrl-C in a terminal reaches the app only, and a kill reaches its children, too.
            process_group=0,
        )
        try:
            if self._stopping.is_set():
                self._tell(signal.SIGTERM)
            return await process.wait()
        finally:
            if process.returncode is None:
                self._kill()
            self._process = None

    def _tell(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    def _kill(self) -> None:
        """The worker and whatever is left of its children."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
