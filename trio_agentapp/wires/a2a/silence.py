"""Ends tasks that send nothing for too long: `task_event_timeout`."""

from __future__ import annotations

import trio

from ...protocol.lifecycle import Cause, Phase
from ...runs import Run

__all__ = ["SilenceWatch"]

LOOKS = 8
"""Looks at a run in the time that it may be silent."""


class SilenceWatch:
    """Watches the runs of one node. Runs in the nursery of the adapter."""

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._runs: dict[Run, tuple[int, float]] = {}
        """The number of the next event of each run, and when that number was first seen."""
        self._arrived = trio.Event()

    def watch(self, run: Run) -> None:
        self._runs[run] = (run.log.end, trio.current_time())
        self._arrived.set()

    async def serve(self) -> None:
        """Watch, until this is cancelled."""
        if self._timeout is None:
            return
        while True:
            if not self._runs:
                self._arrived = trio.Event()
                await self._arrived.wait()
            for run in tuple(self._runs):
                self._look(run, self._timeout)
            await trio.sleep(self._timeout / LOOKS)

    def _look(self, run: Run, timeout: float) -> None:
        number, since = self._runs[run]
        now = trio.current_time()
        phase = run.lifecycle.phase
        if run.ended.is_set() or phase in (Phase.STOPPING, Phase.ENDED):
            del self._runs[run]
        elif run.log.end != number or run.input.questions or phase is not Phase.RUNNING:
            self._runs[run] = (run.log.end, now)
        elif now - since >= timeout:
            run.scope.stop(Cause.DEADLINE_EXCEEDED)
            del self._runs[run]
