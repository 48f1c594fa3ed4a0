"""The table of the built-in routes: summary, parameters, request, responses and errors of each.

A route appears in a document only where it is mounted. Names of schemas are those of the classes in `bodies`.
"""

from __future__ import annotations

from typing import Any

import attrs
import msgspec

from ...errors import (
    BackendUnavailable,
    Draining,
    Elsewhere,
    Forbidden,
    IdempotencyConflict,
    MalformedBody,
    NotFound,
    NotOffered,
    PayloadTooLarge,
    QueueFull,
    RequestError,
    RequestTimeout,
    RunEnded,
    RunNotFound,
    SessionBusy,
    StreamExpired,
    TaskNotFound,
    TooManyRuns,
    Unauthorized,
    UnsupportedMediaType,
    ValidationError,
)
from .bodies import Identifier, RunId, Schema, ref

__all__ = ["JSON", "PATH_PARAMETERS", "ROUTES", "SOCKET", "SSE", "Errors", "Operation", "frame_of", "operation_of"]

JSON = "application/json"
SSE = "text/event-stream"

Errors = tuple[type[RequestError], ...]

FAULTY: Errors = (ValidationError,)
BODY: Errors = (MalformedBody, RequestTimeout, PayloadTooLarge, UnsupportedMediaType, ValidationError)
COMMON: Errors = (Unauthorized, Forbidden, BackendUnavailable, Draining)
OF_RUN: Errors = (*COMMON, ValidationError, RunNotFound)
BUSY: Errors = (SessionBusy, IdempotencyConflict, TooManyRuns, QueueFull)


@attrs.frozen(kw_only=True)
class Operation:
    """One route. `responses` are by status; `errors` are the problems that clients should expect."""

    summary: str
    tag: str
    description: str = ""
    parameters: tuple[Schema, ...] = ()
    body: Schema | None = None
    body_required: bool = True
    responses: dict[str, Schema]
    errors: Errors = ()


def _response(description: str, schema: str | Schema | None = None, media: str = JSON, **more: Any) -> Schema:
    """Describe a response; `schema` is a schema, or the name of one."""
    if schema is None:
        return {"description": description, **more}
    content = {media: {"schema": ref(schema) if isinstance(schema, str) else schema}}
    return {"description": description, **more, "content": content}


def _parameter(place: str, name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": place, "required": False, "schema": schema, "description": description}


def _headers(**descriptions: str) -> Schema:
    return {
        name.replace("_", "-"): {"description": description, "schema": {"type": "string"}}
        for name, description in descriptions.items()
    }


def frame_of(item: Schema, *, numbered: bool = False) -> Schema:
    """Return the schema of each frame of a stream, as a reader of Server-Sent Events has it."""
    data = {"type": "string", "contentMediaType": JSON, "contentSchema": item}
    number = {"id": {"type": "string", "description": "The sequence number."}} if numbered else {}
    return {
        "type": "object",
        "properties": {"data": data, **number},
        "required": ["data"],
        "description": "One frame; comments between them keep the stream alive.",
    }


IDENTIFIER: Schema = msgspec.json.schema(Identifier)
RUN_ID: Schema = msgspec.json.schema(RunId)
PATH_PARAMETERS: dict[str, Schema] = {"run_id": RUN_ID, "session_id": IDENTIFIER}

WAIT = _parameter("query", "wait", {"enum": ["0", "1", "true", "false"]}, "1: respond when the run has ended.")
USER = _parameter("query", "user_id", IDENTIFIER, "The owner, if the app does not authenticate its clients.")

RUN_HEADERS = _headers(
    X_Run_Id="The run.",
    X_Session_Id="Its session, percent-encoded except for visible ASCII other than `%`.",
    Location="Where the run can be read.",
)
EVENTS = frame_of(ref("Event"), numbered=True)

SOCKET = Operation(
    summary="Start, watch and stop runs over one WebSocket",
    tag="Runs",
    description=(
        "A WebSocket with the subprotocol `trio-agentapp.v1` and JSON text frames. The client sends `init`,"
        " `start`, `attach`, `stop`, `input`, `detach` and `ping`; in `event` frames it gets events of its runs."
    ),
    responses={"101": _response("The protocol is switched to WebSocket.")},
)

ROUTES: dict[str, Operation] = {
    "GET /": Operation(
        summary="The routes of this app",
        tag="Health",
        responses={"200": _response("Name, description and routes.", "Welcome")},
    ),
    "GET /health": Operation(
        summary="Is the app alive",
        tag="Health",
        responses={"200": _response("It is alive.", "Health")},
    ),
    "GET /liveness": Operation(
        summary="Does the event loop run",
        tag="Health",
        responses={"200": _response("It runs.", "Health")},
    ),
    "GET /readiness": Operation(
        summary="Does this node take new runs",
        tag="Health",
        responses={
            "200": _response("Yes.", "Health"),
            "503": _response("No, and the reason.", "Health", headers=_headers(Retry_After="Seconds.")),
        },
    ),
    "GET /openapi.json": Operation(
        summary="This document",
        tag="Documentation",
        responses={"200": _response("OpenAPI 3.1.", {"type": "object"})},
    ),
    "GET /docs": Operation(
        summary="This document as a page on which requests can be tried",
        tag="Documentation",
        responses={"200": _response("A page that needs no other server.", {"type": "string"}, "text/html")},
    ),
    "POST {endpoint}": Operation(
        summary="Start a run",
        tag="Runs",
        description="The handler is executed. Its events are streamed, or returned as one response.",
        parameters=(
            _parameter("header", "Idempotency-Key", {"type": "string"}, "The same key and body: the same run."),
        ),
        body=ref("AgentRequest"),
        responses={
            "200": {
                "description": "The events of the run, or its terminal response.",
                "headers": RUN_HEADERS,
                "content": {SSE: {"schema": EVENTS}, JSON: {"schema": ref("ResponseEvent")}},
            },
            "202": _response("The run continues in the background.", "RunInfo", headers=RUN_HEADERS),
        },
        errors=(*BODY, *COMMON, *BUSY),
    ),
    "POST {endpoint}/task": Operation(
        summary="Start a run in the background",
        tag="Tasks",
        body=ref("AgentRequest"),
        responses={"202": _response("The run is accepted.", "TaskAccepted")},
        errors=(*BODY, *COMMON, *BUSY),
    ),
    "POST {task}": Operation(
        summary="Submit a task",
        tag="Tasks",
        body={},
        body_required=False,
        responses={"202": _response("The task is accepted.", "TaskAccepted")},
        errors=(*BODY, *COMMON, QueueFull, TooManyRuns),
    ),
    "GET {task}/{task_id}": Operation(
        summary="Read a task",
        tag="Tasks",
        responses={"200": _response("Its state, and its result once it has one.", "TaskInfo")},
        errors=(*COMMON, ValidationError, TaskNotFound),
    ),
    "POST {task}/{task_id}/cancel": Operation(
        summary="Stop a task",
        tag="Tasks",
        parameters=(WAIT,),
        responses={
            "200": _response("It has ended.", "TaskInfo"),
            "202": _response("It is being stopped.", "TaskInfo"),
        },
        errors=(*COMMON, ValidationError, TaskNotFound),
    ),
    "POST /stop": Operation(
        summary="Stop a run",
        tag="Runs",
        description="The running run of a session, or the one that is named, on any node.",
        parameters=(WAIT,),
        body=ref("StopRequest"),
        responses={"200": _response("The receipt, also if there was nothing to stop.", "StopReceipt")},
        errors=(*BODY, *COMMON, RunNotFound),
    ),
    "GET /runs": Operation(
        summary="List runs",
        tag="Runs",
        parameters=(
            _parameter("query", "status", ref("RunState"), "Only runs in this state."),
            _parameter("query", "session_id", IDENTIFIER, "Only runs of this session."),
            USER,
            _parameter("query", "limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}, "Per page."),
            _parameter("query", "cursor", RUN_ID, "The `cursor` of the previous page."),
        ),
        responses={"200": _response("A page of runs.", "RunList")},
        errors=(*OF_RUN, NotOffered),
    ),
    "GET /runs/{run_id}": Operation(
        summary="Read a run",
        tag="Runs",
        parameters=(USER,),
        responses={"200": _response("The run.", "RunInfo")},
        errors=OF_RUN,
    ),
    "GET /runs/{run_id}/stream": Operation(
        summary="Attach to a run",
        tag="Runs",
        description="The events after a number, then the live ones without a gap; of an ended run the replay.",
        parameters=(
            _parameter("header", "Last-Event-ID", {"type": "string"}, "The number of the last event received."),
            _parameter("query", "starting_after", {"type": "integer", "minimum": -1}, "The same."),
            USER,
        ),
        responses={
            "200": _response("The events that follow. A frame named `gap` reports lost ones.", EVENTS, SSE),
            "204": _response("The run has ended, and the client has its last event."),
        },
        errors=(*OF_RUN, Elsewhere, StreamExpired),
    ),
    "GET /runs/{run_id}/wait": Operation(
        summary="Wait until a run ends",
        tag="Runs",
        parameters=(USER,),
        responses={"200": _response("The terminal response.", "ResponseEvent")},
        errors=(*OF_RUN, Elsewhere, StreamExpired),
    ),
    "POST /runs/{run_id}/cancel": Operation(
        summary="Stop this run",
        tag="Runs",
        parameters=(WAIT, USER),
        responses={
            "200": _response("It has ended.", "StopReceipt"),
            "202": _response("It is being stopped, or will not start.", "StopReceipt"),
        },
        errors=OF_RUN,
    ),
    "POST /runs/cancel": Operation(
        summary="Stop several runs",
        tag="Runs",
        parameters=(USER,),
        body=ref("RunsToStop"),
        responses={"200": _response("One result for each run.", "RunsStopped")},
        errors=(*BODY, *COMMON, RunNotFound),
    ),
    "POST /runs/{run_id}/input": Operation(
        summary="Send a message to a running run",
        tag="Runs",
        parameters=(USER,),
        body=ref("Message"),
        responses={"202": _response("The message is in the run's inbox.", "InputAccepted")},
        errors=(*BODY, *COMMON, RunNotFound, Elsewhere, RunEnded, QueueFull, NotOffered),
    ),
    "GET /sessions/{session_id}": Operation(
        summary="Read a session",
        tag="Sessions",
        parameters=(USER,),
        responses={"200": _response("The session.", "SessionInfo")},
        errors=(*OF_RUN, NotFound),
    ),
    "GET /sessions/{session_id}/history": Operation(
        summary="Read the messages of a session",
        tag="Sessions",
        parameters=(
            USER,
            _parameter("query", "limit", {"type": "integer", "minimum": 1, "maximum": 1000}, "Only the last ones."),
        ),
        responses={"200": _response("Its messages.", "History")},
        errors=(*COMMON, ValidationError, NotFound),
    ),
}
"""`{endpoint}` is the path of the query handler. `{task}` is that of a task, or of runs in the background."""


def operation_of(method: str, path: str, *, endpoint_path: str, task_path: str | None = None) -> Operation | None:
    """Return the description of a built-in route; `task_path` is the path of the task that it belongs to."""
    candidates = [path]
    if path.startswith(endpoint_path):
        rest = path.removeprefix(endpoint_path)
        candidates += [f"{{endpoint}}{rest}", "{task}" + rest.removeprefix("/task")]
    if task_path is not None:
        candidates = ["{task}" + path.removeprefix(task_path)]
    return next((ROUTES[key] for each in candidates if (key := f"{method} {each}") in ROUTES), None)
