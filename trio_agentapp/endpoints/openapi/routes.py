"""The table of the built-in routes: summary, parameters, request, responses and errors of each.

A route appears in a document only where it is mounted. Names of schemas are those of the classes in `bodies`.
"""

from __future__ import annotations

from typing import Any

import attrs
import msgspec

from ... import errors as e
from .bodies import Identifier, RunId, Schema, ref

__all__ = [
    "BODY",
    "FAULTY",
    "JSON",
    "PATH_PARAMETERS",
    "ROUTES",
    "SSE",
    "Errors",
    "Operation",
    "frame_of",
    "operation_of",
    "response",
]

JSON = "application/json"
SSE = "text/event-stream"

Errors = tuple[type[e.RequestError], ...]

FAULTY: Errors = (e.ValidationError,)
BODY: Errors = (e.MalformedBody, e.RequestTimeout, e.PayloadTooLarge, e.UnsupportedMediaType, *FAULTY)
COMMON: Errors = (e.Unauthorized, e.Forbidden, e.BackendUnavailable, e.Draining, *FAULTY)
BUSY: Errors = (e.SessionBusy, e.IdempotencyConflict, e.TooManyRuns, e.QueueFull)
OF_RUN: Errors = (*COMMON, e.RunNotFound)
ADMIN: Errors = (e.Unauthorized,)
OF_TASK: Errors = (*COMMON, e.TaskNotFound)


@attrs.frozen
class Operation:
    """One route: a response is the name of a class in `bodies`, or a whole description."""

    tag: str
    summary: str
    responses: dict[str, str | Schema]
    errors: Errors = ()
    """The problems that clients should expect."""
    parameters: tuple[Schema, ...] = ()
    body: Schema | None = None
    body_required: bool = True
    description: str = ""


def response(schema: Schema, description: str, media: str = JSON, **more: Any) -> Schema:
    return {"description": description, **more, "content": {media: {"schema": schema}}}


def _query(name: str, schema: Schema, description: str, place: str = "query") -> Schema:
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

WAIT = _query("wait", {"enum": ["0", "1", "true", "false"]}, "1: respond when the run has ended.")
USER = _query("user_id", IDENTIFIER, "The owner, if the app does not authenticate its clients.")
KEY = _query("Idempotency-Key", {"type": "string"}, "The same key and body: the same run.", "header")
LAST_EVENT = _query("Last-Event-ID", {"type": "string"}, "The number of the last event received.", "header")

RUN_HEADERS = _headers(
    X_Run_Id="The run.",
    X_Session_Id="Its session, percent-encoded except for visible ASCII other than `%`.",
    Location="Where the run can be read.",
)
STOPPING = "200: it has ended. 202: it is being stopped."
EVENTS = frame_of(ref("Event"), numbered=True)


def _limit(most: int, **default: int) -> Schema:
    return _query("limit", {"type": "integer", "minimum": 1, "maximum": most, **default}, "How many at most.")


ROUTES: dict[str, Operation] = {
    "GET /": Operation("Health", "The routes of this app", {"200": "Welcome"}),
    "GET /health": Operation("Health", "Is the app alive", {"200": "Health"}),
    "GET /liveness": Operation("Health", "Does the event loop run", {"200": "Health"}),
    "GET /readiness": Operation(
        "Health",
        "Does this node take new runs",
        {"200": "Health", "503": response(ref("Health"), "No.", headers=_headers(Retry_After="Seconds."))},
    ),
    "GET /metrics": Operation(
        "Health",
        "Figures for Prometheus",
        {"200": response({"type": "string"}, "With `metrics`; OpenMetrics if asked for.", "text/plain")},
    ),
    "GET /admin/status": Operation("Admin", "The state of this node", {"200": "NodeStatus"}, ADMIN),
    "GET /admin/runs": Operation(
        "Admin",
        "The live runs of this node",
        {"200": "NodeRuns"},
        (*ADMIN, e.ValidationError),
        (_limit(1000, default=100),),
    ),
    "GET /admin/config": Operation("Admin", "The settings, without secrets", {"200": "NodeSettings"}, ADMIN),
    "POST /admin/drain": Operation(
        "Admin", "Refuse new runs and drain the live ones", {"202": "NodeEnding"}, ADMIN
    ),
    "POST /admin/shutdown": Operation(
        "Admin", "Drain and end the server, as SIGTERM does", {"202": "NodeEnding"}, (*ADMIN, e.NotOffered)
    ),
    "GET /openapi.json": Operation(
        "Documentation", "This document", {"200": response({"type": "object"}, "OpenAPI 3.1.")}
    ),
    "GET /docs": Operation(
        "Documentation",
        "This document as a page on which requests can be tried",
        {"200": response({"type": "string"}, "A page that needs no other server.", "text/html")},
    ),
    "GET /chat": Operation(
        "Documentation", "The chat page", {"200": response({"type": "string"}, "With `web_ui`.", "text/html")}
    ),
    "GET /chat/{name}": Operation(
        "Documentation",
        "A script or a style of the chat page",
        {"200": response({"type": "string"}, "The file.", "text/javascript")},
        (e.NotFound,),
    ),
    "POST {endpoint}": Operation(
        "Runs",
        "Start a run",
        {
            "200": {
                "description": "The events of the run, or its terminal response.",
                "headers": RUN_HEADERS,
                "content": {SSE: {"schema": EVENTS}, JSON: {"schema": ref("ResponseEvent")}},
            },
            "202": response(ref("RunInfo"), "The run continues in the background.", headers=RUN_HEADERS),
        },
        (*BODY, *COMMON, *BUSY),
        (KEY,),
        ref("AgentRequest"),
        description="The handler is executed. Its events are streamed, or returned as one response.",
    ),
    "POST {endpoint}/task": Operation(
        "Tasks",
        "Start a run in the background",
        {"202": "TaskAccepted"},
        (*BODY, *COMMON, *BUSY),
        body=ref("AgentRequest"),
    ),
    "POST {task}": Operation(
        "Tasks",
        "Submit a task",
        {"202": "TaskAccepted"},
        (*BODY, *COMMON, e.QueueFull, e.TooManyRuns),
        body={},
        body_required=False,
    ),
    "GET {task}/{task_id}": Operation("Tasks", "Read a task", {"200": "TaskInfo"}, OF_TASK),
    "POST {task}/{task_id}/cancel": Operation(
        "Tasks", "Stop a task", {"200": "TaskInfo", "202": "TaskInfo"}, OF_TASK, (WAIT,), description=STOPPING
    ),
    "POST /stop": Operation(
        "Runs",
        "Stop a run",
        {"200": "StopReceipt"},
        (*BODY, *OF_RUN),
        (WAIT,),
        ref("StopRequest"),
        description="The running run of a session, or a named run, on any node.",
    ),
    "GET /runs": Operation(
        "Runs",
        "List runs",
        {"200": "RunList"},
        (*OF_RUN, e.NotOffered),
        (
            _query("status", ref("RunState"), "Only runs in this state."),
            _query("session_id", IDENTIFIER, "Only runs of this session."),
            USER,
            _limit(100, default=20),
            _query("cursor", RUN_ID, "The `cursor` of the previous page."),
        ),
    ),
    "GET /runs/{run_id}": Operation("Runs", "Read a run", {"200": "RunInfo"}, OF_RUN, (USER,)),
    "GET /runs/{run_id}/stream": Operation(
        "Runs",
        "Attach to a run",
        {
            "200": response(EVENTS, "The events that follow. A frame named `gap` reports lost ones.", SSE),
            "204": {"description": "The run has ended, and the client has its last event."},
        },
        (*OF_RUN, e.Elsewhere, e.StreamExpired),
        (LAST_EVENT, _query("starting_after", {"type": "integer", "minimum": -1}, "The same."), USER),
        description="The events after a number, then the live ones without a gap; of an ended run the replay.",
    ),
    "GET /runs/{run_id}/tree": Operation(
        "Runs",
        "Read the tasks of a live run, and where each waits",
        {"200": "RunTree"},
        (*OF_RUN, e.Elsewhere),
        (USER,),
    ),
    "GET /runs/{run_id}/wait": Operation(
        "Runs", "Wait until a run ends", {"200": "ResponseEvent"}, (*OF_RUN, e.Elsewhere, e.StreamExpired), (USER,)
    ),
    "POST /runs/{run_id}/cancel": Operation(
        "Runs",
        "Stop this run",
        {"200": "StopReceipt", "202": "StopReceipt"},
        OF_RUN,
        (WAIT, USER),
        description=STOPPING,
    ),
    "POST /runs/cancel": Operation(
        "Runs", "Stop several runs", {"200": "RunsStopped"}, (*BODY, *OF_RUN), (USER,), ref("RunsToStop")
    ),
    "POST /runs/{run_id}/input": Operation(
        "Runs",
        "Send a message to a running run",
        {"202": "InputAccepted"},
        (*BODY, *OF_RUN, e.Elsewhere, e.RunEnded, e.QueueFull, e.NotOffered),
        (USER,),
        ref("Message"),
    ),
    "GET /sessions/{session_id}": Operation(
        "Sessions", "Read a session", {"200": "SessionInfo"}, (*OF_RUN, e.NotFound), (USER,)
    ),
    "GET /sessions/{session_id}/history": Operation(
        "Sessions",
        "Read the messages of a session",
        {"200": "History"},
        (*COMMON, e.NotFound),
        (USER, _limit(1000)),
    ),
    "WS /ws": Operation(
        "Runs",
        "Start, watch and stop runs over one WebSocket",
        {"101": {"description": "The protocol is switched to WebSocket."}},
        description=(
            "A WebSocket with the subprotocol `trio-agentapp.v1` and JSON text frames. The client sends `init`,"
            " `start`, `attach`, `stop`, `input`, `detach` and `ping`; `event` frames carry the events of its runs."
        ),
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
