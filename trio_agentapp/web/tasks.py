"""The routes of tasks: submit, look up, cancel."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import attrs
import orjson
import trio
from quart import Response
from quart.wrappers import Request

from ..abc import TaskQueue
from ..errors import RunNotFound, TaskNotFound
from ..protocol.request import AgentRequest
from ..protocol.tasks import TaskRecord
from ..runs.runner import fill_ids
from ..tasks import NO_BODY
from ..tasks.background import timeout_of
from .identity import Action, Caller, Gate
from .parameters import flag, read_json, read_request
from .responses import json_response, link, shown_id

if TYPE_CHECKING:
    from ..endpoints.openapi import bodies

__all__ = ["BackgroundRoutes", "Begin", "FunctionRoutes", "task_body"]

WAIT_MARGIN = 5.0
"""Seconds beyond the cleanup budget that a cancel with `?wait=1` waits, as for runs."""

POLL_FIRST, POLL_LONGEST = 0.01, 0.25
"""Seconds between two lookups of a task that is being stopped. They are doubled each time."""


Begin: TypeAlias = Callable[[AgentRequest, Mapping[str, Any]], Awaitable[TaskRecord]]
"""Starts a run for a request with its ids filled in, and its JSON. Raises what `Runner.start` does."""


class Tasks(Protocol):
    """Tasks that can be looked up and cancelled."""

    async def status(self, task_id: str) -> TaskRecord | None:
        """See `TaskQueue.status`."""

    async def cancel(self, task_id: str) -> TaskRecord | None:
        """See `TaskQueue.cancel`."""


@attrs.frozen(kw_only=True)
class TaskRoutes:
    """The routes `{name}/{task_id}` and `{name}/{task_id}/cancel`; `name` is the path of the task."""

    name: str
    tasks: Tasks
    gate: Gate
    cleanup_budget: float

    async def status(self, request: Request, task_id: str) -> Response:
        """`GET {name}/{task_id}`."""
        return json_response(task_body(await self._visible(request, "read", task_id)))

    async def cancel(self, request: Request, task_id: str) -> Response:
        """`POST {name}/{task_id}/cancel`: 200 if the task has ended, else 202; `?wait=1` waits for its end."""
        record = await self._visible(request, "stop", task_id)
        wait = flag(request, "wait")
        latest = await self.tasks.cancel(record.task_id) or record
        if wait:
            with trio.move_on_after(self.cleanup_budget + WAIT_MARGIN):
                pause = POLL_FIRST
                while not latest.state.terminal:
                    await trio.sleep(pause)
                    pause = min(pause * 2, POLL_LONGEST)
                    latest = await self.tasks.status(record.task_id) or latest
        return json_response(task_body(latest), 200 if latest.state.terminal else 202)

    async def _visible(self, request: Request, action: Action, task_id: str) -> TaskRecord:
        """Look up a task of this path.

        Raises:
            TaskNotFound: unknown, of another path, or not for this caller. The three look the same to a client.
        """
        caller = Caller(await self.gate.identify(request))
        record = await self.tasks.status(task_id)
        known = record if record is not None and record.name == self.name else None
        try:
            await self.gate.may_see(caller, action, None if known is None else known.user_id, None, task_id)
        except RunNotFound:
            raise TaskNotFound from None
        if known is None:
            raise TaskNotFound
        return known


@attrs.frozen(kw_only=True)
class FunctionRoutes(TaskRoutes):
    """The routes of one `@app.task`."""

    tasks: TaskQueue

    async def submit(self, request: Request) -> Response:
        """`POST {name}`: 202 with the id of the task."""
        caller = Caller(await self.gate.identify(request))
        raw = await request.get_data(True, False, False)
        body = await read_json(request) if raw.strip() else NO_BODY
        await self.gate.may_submit(caller)
        return _accepted(request, await self.tasks.submit(self.name, body, user_id=caller.user_id))


@attrs.frozen(kw_only=True)
class BackgroundRoutes(TaskRoutes):
    """The routes of `{endpoint_path}/task`."""

    begin: Begin

    async def start(self, request: Request) -> Response:
        """`POST {endpoint_path}/task`: start a run of the query handler that needs no client to watch it."""
        principal = await self.gate.identify(request)
        asked = await read_request(request)
        timeout_of(asked)
        caller = Caller(principal, asked.user_id)
        key, run_id = fill_ids(asked, user_id=caller.user_id)
        await self.gate.may_start(caller, key, run_id)
        record = await self.begin(asked, cast(dict[str, Any], await read_json(request)))
        response = _accepted(request, record, session_id=key.session_id, user_id=key.user_id)
        response.headers["X-Run-Id"] = run_id
        response.headers["X-Session-Id"] = shown_id(key.session_id)
        return response


def _accepted(request: Request, record: TaskRecord, **more: str) -> Response:
    response = json_response({"task_id": record.task_id, "status": record.state.value, **more}, 202)
    response.headers["Location"] = link(request, f"{record.name}/{record.task_id}")
    return response


def task_body(record: TaskRecord) -> bodies.TaskInfo:
    """Return the body of a task. It has `result` or `error` when the task has ended."""
    body: bodies.TaskInfo = {
        "task_id": record.task_id,
        "status": record.state.value,
        "cancel_requested": record.cancel_requested,
        "created_at": record.created_at,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
    }
    if record.result is not None:
        body["result"] = orjson.Fragment(record.result)
    if record.error is not None:
        body["error"] = {"code": record.error.code, "message": record.error.message}
    return body
