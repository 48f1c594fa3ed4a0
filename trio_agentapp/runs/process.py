"""Process groups of a run: a process and all its descendants have ended when the block around them is left.

`trio.run_process` and `trio.lowlevel.open_process` end the process that they started, but not its descendants.
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

__all__ = [
    "GRACE",
    "KILLED_WITHIN",
    "POLL",
    "Command",
    "group_is_alive",
    "open_group",
    "signal_group",
    "terminate_group",
]

logger = logging.getLogger("trio_agentapp.runs")

GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL; less if the cleanup deadline comes first."""

KILLED_WITHIN = 1.0
"""Seconds that killed processes may take to disappear. SIGKILL is sent this long before the cleanup deadline."""

POLL = 0.01
"""Seconds between two checks of a group.

The system reports the end of child processes only, not of their descendants.
"""

Command = str | bytes | os.PathLike[str] | Sequence[str | bytes | os.PathLike[str]]


@asynccontextmanager
async def open_group(
    cleanup: Cleanup, command: Command, *, grace: float, **options: Any
) -> AsyncIterator[trio.Process]:
    """Open a process group; see `Run.open_process`. The options are those of `trio.lowlevel.open_process`."""
    # A new session is also a new group, which can be signalled as a whole. It has no terminal to wait for.
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
                    terminate_group(process.pid)
                    await _wait_gone(process)
                    gone = True
    finally:
        if not gone:
            signal_group(process.pid, signal.SIGKILL)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + KILLED_WITHIN) as closing:
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    await pipe.aclose()
            if not gone:
                await _wait_gone(process)
        if closing.cancelled_caught:
            logger.error("processes of the group %d, started by %r, could not be ended", process.pid, process.args)


def _is_alive(process: trio.Process) -> bool:
    return group_is_alive(process.pid, leader_ended=process.poll() is not None)


def group_is_alive(pid: int, *, leader_ended: bool) -> bool:
    """Whether a process is left of the group that process `pid` leads.

    Reaps the zombies of the group that are children of this process. Process 1 inherits orphans, and in a container
    that is often this process. `leader_ended`: the caller has reaped the leader itself.
    """
    if leader_ended:
        with suppress(ChildProcessError):
            while os.waitpid(-pid, os.WNOHANG)[0]:
                pass
    return signal_group(pid, 0)


async def _wait_gone(process: trio.Process) -> None:
    while _is_alive(process):  # noqa: ASYNC110  there is no event for grandchildren
        await trio.sleep(POLL)


def terminate_group(pid: int) -> None:
    """Ask the group that process `pid` leads to end."""
    signal_group(pid, signal.SIGTERM)
    # A process that is stopped, as by SIGTTIN, would not handle SIGTERM.
    signal_group(pid, signal.SIGCONT)


def signal_group(pid: int, number: int) -> bool:
    """Send a signal to the group that process `pid` leads. Returns False if the group has no process left."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # of another user, as after sudo
    return True
