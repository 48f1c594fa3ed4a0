"""The table of the built-in routes: summary, parameters, request, responses and errors of each.

A route appears in a document only where it is mounted. Names of schemas are those of the classes in `bodies`.
"""

from __future__ import annotations

from ... import errors as e
from .components import ref
from .operations import (
    ADMIN,
    BODY,
    BUSY,
    COMMON,
    EVENTS,
    IDENTIFIER,
    JSON,
    KEY,
    LAST_EVENT,
    OF_RUN,
    OF_TASK,
    RUN_HEADERS,
    RUN_ID,
    SSE,
    STOPPING,
    USER,
    WAIT,
    Operation,
    headers,
    limit,
    query,
    response,
)
from .protocol_routes import PROTOCOL_ROUTES

__all__ = ["ROUTES", "operation_of"]

PAGE = (USER, limit(100, default=20), query("cursor", RUN_ID, "The `cursor` of the previous page."))

ROUTES: dict[str, Operation] = {
    "GET /": Operation("Health", "The routes of this app", {"200": "Welcome"}),
    "GET /health": Operation("Health", "Is the app alive", {"200": "Health"}),
    "GET /liveness": Operation("Health", "Does the event loop run", {"200": "Health"}),
    "GET /readiness": Operation(
        "Health",
        "Does this node take new runs",
        {"200": "Health", "503": response(ref("Health"), "No.", headers=headers(Retry_After="Seconds."))},
    ),
    "GET /metrics": Operation(
        "Health",
        "Figures for Prometheus",
        {"200": response({"type": "string"}, "With `metrics`; OpenMetrics if asked for.", "text/plain")},
        (e.Unauthorized, e.Forbidden, e.BackendUnavailable),
    ),
    "GET /admin/status": Operation("Admin", "The state of this node", {"200": "NodeStatus"}, ADMIN),
    "GET /admin/runs": Operation(
        "Admin",
        "The live runs of this node",
        {"200": "NodeRuns"},
        (*ADMIN, e.ValidationError),
        (limit(1000, default=100),),
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
            query("status", ref("RunState"), "Only runs in this state."),
            query("session_id", IDENTIFIER, "Only runs of this session."),
            *PAGE,
        ),
    ),
    "GET /questions": Operation(
        "Runs",
        "List the open questions of a user's runs",
        {"200": "QuestionList"},
        (*OF_RUN, e.NotOffered),
        (query("session_id", IDENTIFIER, "Only questions of this session."), *PAGE),
        description="What `run.ask` waits for, on any node. `limit` counts runs.",
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
        (LAST_EVENT, query("starting_after", {"type": "integer", "minimum": -1}, "The same."), USER),
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
        (USER, limit(1000)),
    ),
    **PROTOCOL_ROUTES,
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
"""`{endpoint}` is the path of the query handler. `{task}` is the path of a task, or of background runs."""


def operation_of(method: str, path: str, *, endpoint_path: str, task_path: str | None = None) -> Operation | None:
    """Return the description of a built-in route; `task_path` is the path of the task that it belongs to."""
    candidates = [path]
    if path.startswith(endpoint_path):
        rest = path.removeprefix(endpoint_path)
        candidates += [f"{{endpoint}}{rest}", "{task}" + rest.removeprefix("/task")]
    if task_path is not None:
        candidates = ["{task}" + path.removeprefix(task_path)]
    # Other servers have the same API under this path.
    candidates.append(path.removeprefix("/compatible-mode"))
    return next((ROUTES[key] for each in candidates if (key := f"{method} {each}") in ROUTES), None)
