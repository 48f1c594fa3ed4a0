"""Reads the task of a run: its state now, and what follows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import trio

from ...errors import BackendUnavailable, Elsewhere, StreamExpired
from ...protocol.lifecycle import RunRecord
from ...runs import Run
from ...runs.runner import Watched
from ...web.run_access import Known, RunAccess
from .asked import Asked
from .memory import TaskMemory
from .task import Task, stamp
from .task_states import CANCELED, FAILED, REJECTED, changed_at, state_of_record

__all__ = ["TaskReader"]

CAUGHT_UP = 10.0
"""Seconds that the events of a run may take to be read up to the present."""


@attrs.frozen
class TaskReader:
    """Makes tasks of runs, from their events if these are at hand."""

    access: RunAccess
    memory: TaskMemory

    def begin(self, task_id: str, context_id: str) -> Task:
        """A task before the first event of its run."""
        return Task(task_id, context_id, self.memory.asked(task_id), seen=self.memory.seen)

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
        try:
            end = await self.access.viewing.end(record)
            watched = await self.access.attach(asked.caller, record.run_id)
        except (StreamExpired, Elsewhere):
            return _task_of_record(record, self.memory.asked(record.run_id)), None
        assert watched is not None  # noqa: S101  every run has a first event
        task = self.begin(record.run_id, record.key.session_id)
        try:
            with trio.move_on_after(CAUGHT_UP):
                while not task.terminal and watched.subscriber.position < end:
                    for event in await watched.subscriber.receive():
                        task.apply(event)
                if task.gap and known.run is not None and not task.terminal:
                    task = await self._recapped(known.run, watched)
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

    async def _recapped(self, run: Run, watched: Watched) -> Task:
        """The task of a run on this node whose first events are not kept any more."""
        task = self.begin(run.run_id, run.session_id)
        task.begin()
        while watched.subscriber.ready:
            await watched.subscriber.receive()  # it has them, so nothing happens meanwhile
        for event in run.builder.recap():
            task.apply(event)
        return task


def _task_of_record(record: RunRecord, asked: Iterable[Mapping[str, Any]]) -> Task:
    """The task of a run whose events are not at hand: its state, without artifacts."""
    task = Task(record.run_id, record.key.session_id, asked)
    task.state = state_of_record(record)
    task.timestamp = stamp(changed_at(record))
    if task.state in (FAILED, REJECTED, CANCELED) and record.reason:
        task.metadata["reason"] = record.reason
    return task
