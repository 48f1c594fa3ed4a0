"""Restarts of a subprocess that has died, with pauses that grow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

__all__ = ["FIRST_PAUSE", "LONGEST_PAUSE", "keep_running"]

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a restart. The pause doubles each time, until a process has lived for longer than the longest."""


async def keep_running(
    run_one: Callable[[], Awaitable[int]], stopping: trio.Event, report_death: Callable[[int, float], object]
) -> int:
    """Run a process again and again, until `stopping` is set and the process has ended.

    Args:
        run_one: runs the process to its end, and returns its exit code. It stops it when `stopping` is set.
        report_death: called with the exit code and the seconds until the restart, for each process that ended
            without a stop. It may set `stopping`; then there is no restart.

    Returns:
        The exit code of the process that was stopped; 0 if none was running.
    """
    pause = FIRST_PAUSE
    while not stopping.is_set():
        began = trio.current_time()
        code = await run_one()
        if stopping.is_set():
            return code
        if trio.current_time() - began > LONGEST_PAUSE:
            pause = FIRST_PAUSE
        report_death(code, pause)
        with trio.move_on_after(pause):
            await stopping.wait()
        pause = min(pause * 2, LONGEST_PAUSE)
    return 0
