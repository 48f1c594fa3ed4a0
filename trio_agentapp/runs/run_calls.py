"""Calls the backend for runs, outside of their cancel scopes. `inbox` and `question_poster` build on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from ..abc import Lease
from .run import Run

__all__ = ["RunCalls"]


class RunCalls:
    """A service that executes at most one call for each run at a time. A stop of the run does not cancel it."""

    def __init__(self) -> None:
        self._nursery: trio.Nursery | None = None
        self._busy: set[str] = set()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the nursery of the calls open until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def call_soon(self, run: Run, fn: Callable[[Run, Lease], Awaitable[None]]) -> None:
        """Start to await `fn(run, lease)`. Does not block.

        Nothing is started if a call for this run is in progress, or if the run does not own its session.
        """
        if self._nursery is not None and run.lease is not None and run.run_id not in self._busy:
            self._busy.add(run.run_id)
            self._nursery.start_soon(self._call, run, run.lease, fn)

    async def _call(self, run: Run, lease: Lease, fn: Callable[[Run, Lease], Awaitable[None]]) -> None:
        try:
            await fn(run, lease)
        finally:
            self._busy.discard(run.run_id)
