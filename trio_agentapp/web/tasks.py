"""The routes of tasks: send one, look at it, stop it (WIRE, sections 2 and 3)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

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
from .identity import Action, Gate, Principal
from .links import link, shown_id
from .reading import flag, read_json, read_request
from .responses import json_response

if TYPE_CHECKING:
    from ..endpoints.openapi import bodies

__all__ = ["Background", "BackgroundRoutes", "TaskRoutes", "task_body"]

WAIT_MARGIN = 5.0
"""Seconds beyond the cleanup budget that a waiting cancel waits, as for runs."""

POLL_AT_FIRST, POLL_AT_LAST = 0.01, 0.25
"""Seconds between looks at a task that is being stopped: doubled each time."""


@attrs.frozen(kw_only=True)
class TaskRoutes:
    """The views of every `@app.task`; `name` is the path it was registered with."""

    queue: TaskQueue
    gate: Gate
    cleanup_budget: float

    async def submit(self, request: Request, name: str) -> Response:
        """`POST path`: 202 with the id by which the task can be asked for."""
        principal = await self.gate.identify(request)
        body = await _read_body(request)
        user_id = self.gate.user_of(principal, None)
        await self.gate.may_submit(principal, user_id)
        record = await self.queue.submit(name, body, user_id=user_id)
        return accepted(request, record)

    async def status(self, request: Request, name: str, task_id: str) -> Response:
        """`GET path/{task_id}`."""
        principal = await self.gate.identify(request)
        record = await _visible(self.gate, principal, "read", name, task_id, await self.queue.status(task_id))
        return json_response(task_body(record))

    async def cancel(self, request: Request, name: str, task_id: str) -> Response:
        """`POST path/{task_id}/cancel`: 202, or 200 once it has ended; with `?wait=1` answer when it has."""
        principal = await self.gate.identify(request)
        record = await _visible(self.gate, principal, "stop", name, task_id, await self.queue.status(task_id))
        return await _cancelled(request, record, self.queue, self.cleanup_budget)


class Background(Protocol):
    """Where runs of the query handler go on without a watcher."""

    async def start(self, request: AgentRequest, body: Mapping[str, Any]) -> TaskRecord:
        """Start a run for a request with its ids filled in, and its JSON. Raises what `Runner.start` does."""

    async def status(self, task_id: str) -> TaskRecord | None:
        """As `TaskQueue.status`."""

    async def cancel(self, task_id: str) -> TaskRecord | None:
        """As `TaskQueue.cancel`."""


@attrs.frozen(kw_only=True)
class BackgroundRoutes:
    """The views of `{endpoint_path}/task`."""

    background: Background
    gate: Gate
    name: str
    cleanup_budget: float

    async def start(self, request: Request) -> Response:
        """`POST {endpoint_path}/task`: the query handler, as a run that goes on by itself."""
        principal = await self.gate.identify(request)
        asked = await read_request(request)
        timeout_of(asked)
        key, run_id = fill_ids(asked, user_id=self.gate.user_of(principal, asked.user_id))
        await self.gate.may_start(principal, key, run_id)
        record = await self.background.start(asked, cast(dict[str, Any], await read_json(request)))
        response = accepted(request, record, session_id=key.session_id, user_id=key.user_id)
        response.headers["X-Run-Id"] = run_id
        response.headers["X-Session-Id"] = shown_id(key.session_id)
        return response

    async def status(self, request: Request, task_id: str) -> Response:
        """`GET {endpoint_path}/task/{task_id}`."""
        principal = await self.gate.identify(request)
        record = await self.background.status(task_id)
        record = await _visible(self.gate, principal, "read", self.name, task_id, record)
        return json_response(task_body(record))

    async def cancel(self, request: Request, task_id: str) -> Response:
        """`POST {endpoint_path}/task/{task_id}/cancel`."""
        principal = await self.gate.identify(request)
        record = await self.background.status(task_id)
        record = await _visible(self.gate, principal, "stop", self.name, task_id, record)
        return await _cancelled(request, record, self.background, self.cleanup_budget)


async def _read_body(request: Request) -> object:
    raw = await request.get_data(True, False, False)
    return await read_json(request) if raw.strip() else NO_BODY


def accepted(request: Request, record: TaskRecord, **more: str) -> Response:
    response = json_response({"task_id": record.task_id, "status": record.state.value, **more}, 202)
    response.headers["Location"] = link(request, f"{record.name}/{record.task_id}")
    return response


def task_body(record: TaskRecord) -> bodies.TaskInfo:
    """A task as its routes show it; `result` or `error` once it has ended."""
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


async def _visible(
    gate: Gate, principal: Principal | None, action: Action, name: str, task_id: str, record: TaskRecord | None
) -> TaskRecord:
    """The record, if it is of this path and the principal may ask for it.

    Raises:
        TaskNotFound: in every other case, and never more than that.
    """
    known = record if record is not None and record.name == name else None
    try:
        await gate.may_see(principal, action, None if known is None else known.user_id, None, task_id)
    except RunNotFound:
        raise TaskNotFound from None
    if known is None:
        raise TaskNotFound
    return known


async def _cancelled(
    request: Request, record: TaskRecord, tasks: TaskQueue | Background, cleanup_budget: float
) -> Response:
    wait = flag(request, "wait")
    latest = await tasks.cancel(record.task_id) or record
    if wait and not latest.state.terminal:
        with trio.move_on_after(cleanup_budget + WAIT_MARGIN):
            latest = await _wait_ended(tasks.status, latest)
    return json_response(task_body(latest), 200 if latest.state.terminal else 202)


async def _wait_ended(status: Callable[[str], Awaitable[TaskRecord | None]], record: TaskRecord) -> TaskRecord:
    pause = POLL_AT_FIRST
    while not record.state.terminal:
        await trio.sleep(pause)
        pause = min(pause * 2, POLL_AT_LAST)
        record = await status(record.task_id) or record
    return record
