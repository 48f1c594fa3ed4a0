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
    own_errors: bool = False
    """Its errors are not problem documents: it speaks the protocol of others."""


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


def _of_openai(summary: str, body: Schema | None = None, *, streamed: bool = False) -> Operation:
    """A route of OpenAI's clients. OpenAI's reference has the fields; the document has what every request needs."""
    content: Schema = {JSON: {"schema": {"type": "object"}}}
    if streamed:
        content[SSE] = {"schema": {"type": "string"}}
    responses: dict[str, str | Schema] = {"200": {"description": "As OpenAI's reference says.", "content": content}}
    if summary.startswith("Is refused"):
        responses = {"405": response({"type": "object"}, "The sentence says what to use.")}
    return Operation("OpenAI", summary, responses, body=body, own_errors=True)


A2A = "application/a2a+json"
A2A_VERSION: Schema = {
    "name": "A2A-Version",
    "in": "header",
    "required": True,
    "schema": {"enum": ["1.0"]},
    "description": "The version of the protocol.",
}
A2A_MESSAGE: Schema = {
    "type": "object",
    "properties": {
        "message": {
            "type": "object",
            "properties": {
                "messageId": IDENTIFIER,
                "role": {"const": "ROLE_USER"},
                "parts": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "properties": {"text": {"type": "string"}},
                        "required": ["text"],
                        "additionalProperties": False,
                    },
                },
            },
            "required": ["messageId", "role", "parts"],
            "additionalProperties": False,
        }
    },
    "required": ["message"],
}


def _of_a2a(
    summary: str, body: Schema | None = None, *parameters: Schema, media: str = A2A, body_required: bool = True
) -> Operation:
    """A route of A2A 1.0. The specification has the fields; the document has what every request needs."""
    schema = frame_of({"type": "object"}) if media == SSE else {"type": "object"}
    return Operation(
        "A2A",
        summary,
        {"200": response(schema, "As the specification says.", media)},
        parameters=(A2A_VERSION, *parameters),
        body=body,
        body_required=body_required,
        own_errors=True,
    )


_A2A_CARD = Operation(
    "A2A",
    "The agent card",
    {"200": response({"type": "object"}, "What this agent does, and where."), "304": {"description": "No change."}},
    own_errors=True,
)
_A2A_CALL = Operation(
    "A2A",
    "Call a method of A2A 1.0 or 0.3 by JSON-RPC 2.0",
    {
        "200": {
            "description": "The response object, or a stream of them.",
            "content": {JSON: {"schema": {"type": "object"}}, SSE: {"schema": frame_of({"type": "object"})}},
        }
    },
    parameters=({**A2A_VERSION, "required": False, "schema": {"enum": ["1.0", "0.3"]}},),
    body={
        "type": "object",
        "properties": {
            "jsonrpc": {"const": "2.0"},
            "id": {"type": ["string", "integer", "null"]},
            "method": {"type": "string"},
            "params": {"type": "object"},
        },
        "required": ["jsonrpc", "method"],
    },
    own_errors=True,
)

TEXT_ERROR = {"default": response({"type": "string"}, "Why the request was refused.", "text/plain")}

UI_FRAME: Schema = {
    "type": "object",
    "properties": {"data": {"type": "string", "description": "A chunk as JSON; at the end `[DONE]`."}},
    "required": ["data"],
}

TEXT_PART: Schema = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
}


def _said(content: Schema) -> Schema:
    """Messages of a user; the specifications of the protocols have all others."""
    item = {
        "type": "object",
        "properties": {"id": IDENTIFIER, "role": {"const": "user"}, **content},
        "required": ["id", "role", *content],
    }
    return {"type": "array", "minItems": 1, "items": item}


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
        (e.Unauthorized, e.Forbidden, e.BackendUnavailable),
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
    "GET /questions": Operation(
        "Runs",
        "List the open questions of a user's runs",
        {"200": "QuestionList"},
        (*OF_RUN, e.NotOffered),
        (
            _query("session_id", IDENTIFIER, "Only questions of this session."),
            USER,
            _limit(100, default=20),
            _query("cursor", RUN_ID, "The `cursor` of the previous page."),
        ),
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
    "POST /v1/responses": _of_openai(
        "Create a response",
        {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]},
        streamed=True,
    ),
    "GET /v1/responses/{response_id}": _of_openai("Read a response, or its events", streamed=True),
    "POST /v1/responses/{response_id}/cancel": _of_openai("Stop the run of a response"),
    "DELETE /v1/responses/{response_id}": _of_openai("Is refused: responses are forgotten by themselves"),
    "GET /v1/responses/{response_id}/input_items": _of_openai("Is refused: the input is not kept as items"),
    "POST /v1/chat/completions": _of_openai(
        "Create a chat completion",
        {
            "type": "object",
            "properties": {
                "messages": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "properties": {"role": {"const": "user"}, "content": {"type": "string"}},
                        "required": ["role", "content"],
                    },
                }
            },
            "required": ["messages"],
        },
        streamed=True,
    ),
    "GET /v1/models": _of_openai("List this app as a model"),
    "GET /v1/models/{model}": _of_openai("Read this app as a model"),
    "GET /.well-known/agent-card.json": _A2A_CARD,
    "GET /.well-known/agent.json": _A2A_CARD,
    "POST /a2a": _A2A_CALL,
    "POST /a2a/": _A2A_CALL,
    "POST /message:send": _of_a2a("Send a message, and wait for the end of its task", A2A_MESSAGE),
    "POST /message:stream": _of_a2a("Send a message, and stream its task", A2A_MESSAGE, media=SSE),
    "GET /tasks": _of_a2a(
        "List tasks",
        None,
        _query("contextId", {"type": "string"}, "Tasks of this context only."),
        _query("pageSize", {"type": "integer", "minimum": 1, "maximum": 100}, "How many at most."),
    ),
    "GET /tasks/{task_id}": _of_a2a("Read a task"),
    "POST /tasks/{task_id}:cancel": _of_a2a("Cancel a task", {"type": "object"}, body_required=False),
    "GET /tasks/{task_id}:subscribe": _of_a2a("Stream a task from its present state on", media=SSE),
    "POST /tasks/{task_id}:subscribe": _of_a2a(
        "Stream a task from its present state on", {"type": "object"}, media=SSE, body_required=False
    ),
    "GET /tasks/{task_id}/pushNotificationConfigs": _of_a2a("List the push notification configs of a task"),
    "POST /tasks/{task_id}/pushNotificationConfigs": _of_a2a(
        "Have the updates of a task sent to a URL",
        {"type": "object", "properties": {"url": {"type": "string", "format": "uri"}}, "required": ["url"]},
    ),
    "GET /tasks/{task_id}/pushNotificationConfigs/{config_id}": _of_a2a("Read such a config"),
    "DELETE /tasks/{task_id}/pushNotificationConfigs/{config_id}": _of_a2a("Delete such a config"),
    "GET /extendedAgentCard": _of_a2a("The agent card for authenticated clients"),
    "POST /ag-ui": Operation(
        "Front ends",
        "Run the agent for an AG-UI client",
        {"200": response(frame_of({"type": "object"}), "The events of AG-UI.", SSE, headers=RUN_HEADERS)},
        body={
            "type": "object",
            "description": "`RunAgentInput` of AG-UI 1.0.",
            "properties": {
                "threadId": IDENTIFIER,
                "runId": {"type": "string"},
                "messages": _said({"content": {"type": "string"}}),
            },
            "required": ["threadId", "runId", "messages"],
        },
        own_errors=True,
    ),
    "POST /ai-sdk/chat": Operation(
        "Front ends",
        "Run the agent for a `useChat` of the AI SDK",
        {"200": response(UI_FRAME, "A UI message stream, version v1.", SSE, headers=RUN_HEADERS), **TEXT_ERROR},
        body={
            "type": "object",
            "description": "What `DefaultChatTransport` of `ai` 7 sends.",
            "properties": {"id": IDENTIFIER, "messages": _said({"parts": {"type": "array", "items": TEXT_PART}})},
            "required": ["id", "messages"],
        },
        own_errors=True,
    ),
    "GET /ai-sdk/chat/{chat_id}/stream": Operation(
        "Front ends",
        "Resume the stream of a chat",
        {
            "200": response(UI_FRAME, "The stream of the live run, from its beginning.", SSE),
            "204": {"description": "The chat has no live run."},
            **TEXT_ERROR,
        },
        (),
        (USER,),
        own_errors=True,
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
    # The path under which other servers have the same API.
    candidates.append(path.removeprefix("/compatible-mode"))
    return next((ROUTES[key] for each in candidates if (key := f"{method} {each}") in ROUTES), None)
