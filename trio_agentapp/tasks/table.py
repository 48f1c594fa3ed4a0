"""The task records of this process, bounded by number, size and age."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import attrs

from ..protocol.tasks import TaskRecord

__all__ = ["MAX_RECORDS", "MAX_TOTAL_BYTES", "RETENTION", "TaskTable"]

RETENTION = 24 * 3600.0
"""Seconds for which a record is kept after the end of its task."""

MAX_RECORDS = 10_000
"""Limit of records of ended tasks."""

MAX_TOTAL_BYTES = 64 * 1024 * 1024
"""Limit of all results together; the oldest are dropped first."""


class TaskTable:
    """Records by task id. Those of ended tasks are dropped after `retention`, or sooner if there are too many."""

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
        # Ordered by the time of the end. Trio's clock is not used, because each call of trio.run has another one.
        self._ended: OrderedDict[str, tuple[float, TaskRecord]] = OrderedDict()
        self._bytes = 0

    def put(self, record: TaskRecord) -> None:
        self._live[record.task_id] = record

    def get(self, task_id: str) -> TaskRecord | None:
        self._remove_old()
        if (record := self._live.get(task_id)) is not None:
            return record
        ended = self._ended.get(task_id)
        return None if ended is None else ended[1]

    def change(self, task_id: str, **changes: Any) -> TaskRecord:
        """Change the record of a task that has not ended. A terminal state makes the record final."""
        record = self._live[task_id] = attrs.evolve(self._live[task_id], **changes)
        if record.state.terminal:
            del self._live[task_id]
            self._ended[task_id] = (self._now(), record)
            self._bytes += len(record.result or b"")
            self._remove_old()
        return record

    def _remove_old(self) -> None:
        too_old = self._now() - self._retention
        while self._ended:
            task_id, (ended_at, record) = next(iter(self._ended.items()))
            if ended_at > too_old and len(self._ended) <= self._max_records and self._bytes <= self._max_bytes:
                return
            del self._ended[task_id]
            self._bytes -= len(record.result or b"")
