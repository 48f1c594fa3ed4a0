"""Reads the task of a run: its state now, and what follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import trio

from ...errors import BackendUnavailable, Elsewhere, StreamExpired
from ...runs import Run
from ...runs.runner import Watched
from ...web.run_access import Known, RunAccess
from .asked import Asked
from .memory import TaskMemory
from .task import Task, stamp, task_of_record
from .task_states import changed_at

__all__ = ["TaskReader"]

CAUGHT_UP = 10.0
"""Seconds that the events of a run may take to be read up to the present."""


@attrs.frozen
class TaskReader:
    """Makes tasks of runs, from their events if these are at hand."""

    access: RunAccess
    memory: TaskMemory

    async def read(self, asked: Asked, known: Known) -> Task:
        task, watched = await self.snapshot(asked, known)
        if watched is not None:
            watched.subscriber.close()
        return task

    async def snapshot(self, asked: Asked, known: Known) -> tuple[Task, Watched | None]:
        """The task of a run as it is now, and a reader at the event after that.

        If its events are not at hand, there is no reader, and the task has its state only.
        """
        record = known.latest
        history = self.memory.asked(record.run_id)
        try:
            end = await self.access.viewing.end(record)
            watched = await self.access.attach(asked.caller, record.run_id)
        except (StreamExpired, Elsewhere):
            return task_of_record(record, history), None
        assert watched is not None  # noqa: S101  every run has a first event
        task = Task(record.run_id, record.key.session_id, history)
        try:
            with trio.move_on_after(CAUGHT_UP):
                while not task.terminal and watched.subscriber.position < end:
                    for event in await watched.subscriber.receive():
                        task.apply(event)
                if task.gap and known.run is not None and not task.terminal:
                    task = await self._recapped(known.run, watched, history)
        except (trio.EndOfChannel, trio.ClosedResourceError):
            watched.subscriber.close()
            raise BackendUnavailable("This task cannot be read at present.", retry_after=1.0) from None
        except BaseException:
            watched.subscriber.close()
            raise
        if task.terminal is record.state.terminal:
            # Events have whole seconds; the order of a listing needs more.
            task.timestamp = stamp(changed_at(record))
        return task, watched

    async def _recapped(self, run: Run, watched: Watched, history: Sequence[Mapping[str, Any]]) -> Task:
        """The task of a run on this node whose first events are not kept any more."""
        task = Task(run.run_id, run.session_id, history)
        task.begin()
        while watched.subscriber.ready:
            await watched.subscriber.receive()  # it has them, so nothing happens meanwhile
        for event in run.builder.recap():
            task.apply(event)
        return task
