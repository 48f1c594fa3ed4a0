"""A process of a run, with all that it starts: a group that has ended when the block around it is left.

`trio.run_process` and `trio.lowlevel.open_process` end the process they started, and nobody ends what that started.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio

from .cleanup import Cleanup

__all__ = ["GRACE", "Command", "open_group"]

logger = logging.getLogger("trio_agentapp.runs")

GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL, less where the cleanup deadline comes before."""

KILLED_WITHIN = 1.0
"""Seconds in which the kernel takes away what was killed; they are kept free before the cleanup deadline."""

POLL = 0.01
"""Seconds between two looks at a group: no event tells of the end of other processes than our own children."""

Command = str | bytes | os.PathLike[str] | Sequence[str | bytes | os.PathLike[str]]


@asynccontextmanager
async def open_group(
    cleanup: Cleanup, command: Command, *, grace: float, **options: Any
) -> AsyncIterator[trio.Process]:
    """See `Run.open_process`; the options are those of `trio.lowlevel.open_process`."""
    # A group to signal as a whole. A session, too: without a terminal nothing in it can wait for one.
    process: trio.Process = await trio.lowlevel.open_process(
        command,
        start_new_session=True,
        **options,
    )
    try:
        yield process
    finally:
        await _end(process, cleanup, grace)


async def _end(process: trio.Process, cleanup: Cleanup, grace: float) -> None:
    gone = not _is_alive(process)
    try:
        if not gone:
            async with cleanup.open():
                until = cleanup.deadline() - KILLED_WITHIN
                with trio.move_on_at(min(trio.current_time() + grace, until)):
                    _signal(process, signal.SIGTERM)
                    # What is stopped, as by SIGTTIN, would not see it.
                    _signal(process, signal.SIGCONT)
                    await _wait_gone(process)
                    gone = True
    finally:
        if not gone:
            _signal(process, signal.SIGKILL)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + KILLED_WITHIN) as closing:
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    await pipe.aclose()
            if not gone:
                await _wait_gone(process)
        if closing.cancelled_caught:
            logger.error("processes of the group %d, started by %r, could not be ended", process.pid, process.args)


def _is_alive(process: trio.Process) -> bool:
    """Whether anything of the group is left; takes away the zombies that are this process's to take."""
    if process.poll() is not None:
        # Orphans come to process 1, which in a container is often this one. Its leader is Trio's to wait for.
        with suppress(ChildProcessError):
            while os.waitpid(-process.pid, os.WNOHANG)[0]:
                pass
    return _signal(process, 0)


async def _wait_gone(process: trio.Process) -> None:
    while _is_alive(process):  # noqa: ASYNC110  no event tells of grandchildren
        await trio.sleep(POLL)


def _signal(process: trio.Process, number: int) -> bool:
    """Send it to the group; False if that has no process any more."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # of another user, as after sudo
    return True
