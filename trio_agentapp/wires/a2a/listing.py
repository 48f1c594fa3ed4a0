"""The tasks that a client may list, page by page."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from ...errors import RunNotFound, ValidationError
from ...protocol.events import mass
from ...protocol.lifecycle import RunRecord, RunState
from ...web.identity import Caller
from ...web.run_access import Known, RunAccess
from .asked import Asked
from .memory import TaskMemory
from .task import Task
from .task_reader import TaskReader
from .task_states import changed_at, state_of_record

__all__ = ["TaskListing"]

PAGE = 50
"""Tasks on a page if the client names no size: specification 1.0, ListTasksRequest."""

MAX_PAGE = 16 * 1024 * 1024
"""Estimated bytes of a page. It ends with the task that reaches them, so it may have fewer tasks than asked for."""

MAX_LISTED = 10_000
"""Tasks that a listing looks at: the latest of the client."""


@attrs.frozen
class TaskListing:
    """Lists the tasks of a client, the latest first."""

    access: RunAccess
    memory: TaskMemory
    reader: TaskReader

    async def page(self, asked: Asked, params: Mapping[str, Any]) -> dict[str, Any]:
        records = await self._records(asked, params.get("contextId"))
        if (after := params.get("statusTimestampAfter")) is not None:
            since = datetime.fromisoformat(after).timestamp()
            # Both times have milliseconds.
            records = [record for record in records if round(changed_at(record), 3) >= since]
        tasks: dict[str, Task] = {}
        if (status := params.get("status")) is not None:
            records = [record for record in records if await self._has_state(asked, record, status, tasks)]
        records.sort(key=lambda record: (changed_at(record), record.run_id), reverse=True)
        size = params.get("pageSize") or PAGE
        begin = _place_after(records, params["pageToken"]) if params.get("pageToken") else 0
        artifacts = bool(params.get("includeArtifacts"))
        found: list[dict[str, Any]] = []
        weight = 0
        for record in records[begin : begin + size]:
            task = tasks.get(record.run_id) or await self._listed(asked, record)
            found.append(task.as_object(history_length=params.get("historyLength"), artifacts=artifacts))
            weight += mass(found[-1])
            if weight >= MAX_PAGE:
                break
        end = begin + len(found)
        return {
            "tasks": found,
            "nextPageToken": _token(records[end - 1]) if end < len(records) and found else "",
            "pageSize": size,
            "totalSize": len(records),
        }

    async def _records(self, asked: Asked, context_id: str | None) -> list[RunRecord]:
        """The runs that the client may list, the latest first."""
        caller = asked.caller
        if caller.user_id is not None:
            owners = [(caller, context_id)]
        else:
            # Without authentication each session has an owner of its own, which is named like it.
            seen = [key for key in self.memory.anonymous() if context_id in (None, key.session_id)]
            owners = [(attrs.evolve(caller, named_user=key.user_id), key.session_id) for key in seen]
            if context_id is not None and not owners:
                owners = [(attrs.evolve(caller, named_user=context_id), context_id)]
        found: list[RunRecord] = []
        for owner, session_id in owners:
            before = None
            while len(found) < MAX_LISTED:
                records, before = await self._page_of_records(owner, session_id, before)
                found += records
                if before is None:
                    break
        return found[:MAX_LISTED]

    async def _page_of_records(
        self, owner: Caller, session_id: str | None, before: str | None
    ) -> tuple[Sequence[RunRecord], str | None]:
        try:
            return await self.access.list_runs(owner, session_id=session_id, before=before)
        except RunNotFound:
            return [], None

    async def _has_state(self, asked: Asked, record: RunRecord, status: str, tasks: dict[str, Task]) -> bool:
        state = state_of_record(record)
        if record.state is RunState.RUNNING:
            task = tasks[record.run_id] = await self._listed(asked, record)
            state = task.state
        return state == status

    async def _listed(self, asked: Asked, record: RunRecord) -> Task:
        known = Known(record.key, self.access.registry.find(record.run_id), record)
        return await self.reader.read(asked, known)


def _token(record: RunRecord) -> str:
    """The cursor after a task: when it changed, and its id."""
    return base64.urlsafe_b64encode(f"{changed_at(record)!r} {record.run_id}".encode()).decode()


def _place_after(records: Sequence[RunRecord], token: str) -> int:
    try:
        at, run_id = base64.b64decode(token.encode(), b"-_", validate=True).decode().split(" ")
        cursor = (float(at), run_id)
    except (ValueError, binascii.Error):
        raise ValidationError([("pageToken", "is none that a listing has returned")]) from None
    for place, record in enumerate(records):
        if (changed_at(record), record.run_id) < cursor:
            return place
    return len(records)
