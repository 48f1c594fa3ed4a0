"""What this process remembers of tasks: bounded by number, by size, and by time."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import attrs

from ..protocol.tasks import TaskRecord

__all__ = ["MAX_RECORDS", "MAX_TOTAL_BYTES", "RETENTION", "TaskTable"]

RETENTION = 24 * 3600.0
"""Seconds that a record is kept after the task's end."""

MAX_RECORDS = 10_000
"""Ended tasks that are remembered."""

MAX_TOTAL_BYTES = 64 * 1024 * 1024
"""Of all results together; the oldest are forgotten first."""


class TaskTable:
    """Records by task id. Live ones stay; ended ones go after `retention`, or sooner if there are too many."""

    def __init__(
        self,
        *,
        retention: float = RETENTION,
        max_records: int = MAX_RECORDS,
        max_bytes: int = MAX_TOTAL_BYTES,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._retention = retention
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._now = now
        self._live: dict[str, TaskRecord] = {}
        # Oldest end first; the time is not Trio's, whose clock is another in each run.
        self._ended: OrderedDict[str, tuple[float, TaskRecord]] = OrderedDict()
        self._bytes = 0

    def put(self, record: TaskRecord) -> None:
        self._live[record.task_id] = record

    def get(self, task_id: str) -> TaskRecord | None:
        self._forget_old()
        if (record := self._live.get(task_id)) is not None:
            return record
        ended = self._ended.get(task_id)
        return None if ended is None else ended[1]

    def change(self, task_id: str, **changes: Any) -> TaskRecord:
        """Change a live record; one whose state is terminal then is ended for good."""
        record = self._live[task_id] = attrs.evolve(self._live[task_id], **changes)
        if record.state.terminal:
            del self._live[task_id]
            self._ended[task_id] = (self._now(), record)
            self._bytes += len(record.result or b"")
            self._forget_old()
        return record

    def _forget_old(self) -> None:
        too_old = self._now() - self._retention
        while self._ended:
            task_id, (ended_at, record) = next(iter(self._ended.items()))
            if ended_at > too_old and len(self._ended) <= self._max_records and self._bytes <= self._max_bytes:
                return
            del self._ended[task_id]
            self._bytes -= len(record.result or b"")
