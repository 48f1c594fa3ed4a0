"""The built-in routes, described (WIRE, section 3). Each appears in a document only where it is served.

A route that is served and not described here appears by its path and method alone.
"""

from __future__ import annotations

from typing import Any

import attrs

from .models import IDENTIFIER, RUN_ID, Schema, ref

__all__ = ["JSON", "SOCKET", "SSE", "Operation", "frame_of", "operation_of"]

JSON = "application/json"
SSE = "text/event-stream"


@attrs.frozen(kw_only=True)
class Operation:
    """One route. `errors`: codes of the problems it may answer with, by status."""

    summary: str
    tag: str
    description: str = ""
    parameters: tuple[Schema, ...] = ()
    body: Schema | None = None
    body_required: bool = True
    answers: dict[str, Schema]
    errors: dict[str, tuple[str, ...]] = attrs.field(factory=dict)


def _answer(description: str, schema: Schema | None = None, media: str = JSON, **more: Any) -> Schema:
    answer: Schema = {"description": description, **more}
    if schema is not None:
        answer["content"] = {media: {"schema": schema}}
    return answer


def _query(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def _header(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": description}


def _text_header(description: str) -> Schema:
    return {"description": description, "schema": {"type": "string"}}


WAIT = _query("wait", {"enum": ["0", "1", "true", "false"]}, "1: answer when nothing of the run runs any more.")
USER = _query("user_id", IDENTIFIER, "Whose it is, where nobody is authenticated.")

BODY_ERRORS: dict[str, tuple[str, ...]] = {
    "400": ("malformed_body", "malformed_request"),
    "408": ("request_timeout",),
    "413": ("payload_too_large",),
    "415": ("unsupported_media_type",),
    "422": ("validation_error",),
}
WHO: dict[str, tuple[str, ...]] = {"401": ("unauthorized",), "403": ("forbidden",)}
BACKEND: dict[str, tuple[str, ...]] = {"503": ("backend_unavailable", "draining")}
NO_RUN: dict[str, tuple[str, ...]] = {"404": ("run_not_found",)}
NO_TASK: dict[str, tuple[str, ...]] = {"404": ("task_not_found",)}
BUSY: dict[str, tuple[str, ...]] = {
    "409": ("session_busy", "idempotency_conflict"),
    "429": ("rate_limited", "queue_full"),
}
FAULTY: dict[str, tuple[str, ...]] = {"422": ("validation_error",)}

RUN_HEADERS: Schema = {
    "X-Run-Id": _text_header("The run."),
    "X-Session-Id": _text_header("Its session, percent-encoded but for visible ASCII other than `%`."),
    "Location": _text_header("Where the run can be looked at."),
}


def frame_of(item: Schema, *, numbered: bool = False) -> Schema:
    """The schema of each frame of a stream, as a reader of server-sent events has it."""
    data = {"type": "string", "contentMediaType": JSON, "contentSchema": item}
    number = {"id": {"type": "string", "description": "The sequence number."}} if numbered else {}
    return {
        "type": "object",
        "properties": {"data": data, **number},
        "required": ["data"],
        "description": "One frame; comments between them keep the stream alive.",
    }


EVENTS = frame_of(ref("Event"), numbered=True)

_RUN_STREAM = {"description": "The events of the run.", "headers": RUN_HEADERS}

SOCKET = Operation(
    summary="Start, watch and stop runs over one WebSocket",
    tag="Runs",
    description=(
        "A WebSocket with the subprotocol `trio-agentapp.v1` and JSON text frames. The client sends `init`,"
        " `start`, `attach`, `stop`, `input`, `detach` and `ping`; in `event` frames it gets events of its runs."
    ),
    answers={"101": {"description": "The protocol is switched to WebSocket."}},
)

_START = Operation(
    summary="Start a run",
    tag="Runs",
    description="The handler is executed; its events are streamed, or answered as one response.",
    parameters=(_header("Idempotency-Key", {"type": "string"}, "Same key and body: same run. Another body: 409."),),
    body=ref("AgentRequest"),
    answers={
        "200": {
            **_RUN_STREAM,
            "content": {
                SSE: {"schema": EVENTS},
                JSON: {"schema": ref("ResponseEvent")},
            },
        },
        "202": _answer("It runs in the background.", ref("RunInfo"), headers=RUN_HEADERS),
    },
    errors={**BODY_ERRORS, **WHO, **BUSY, **BACKEND, "504": ("deadline_exceeded",)},
)

_TASK_ANSWERS = {
    "200": _answer("It has ended.", ref("TaskInfo")),
    "202": _answer("It is being stopped.", ref("TaskInfo")),
}

FIXED: dict[tuple[str, str], Operation] = {
    ("GET", "/"): Operation(
        summary="What is served here",
        tag="Health",
        answers={"200": _answer("Name, description and routes.", ref("Welcome"))},
    ),
    ("GET", "/health"): Operation(
        summary="Is the app alive",
        tag="Health",
        answers={"200": _answer("It is.", ref("Health"))},
    ),
    ("GET", "/liveness"): Operation(
        summary="Does the event loop turn",
        tag="Health",
        answers={"200": _answer("It does.", ref("Health"))},
    ),
    ("GET", "/readiness"): Operation(
        summary="Should new runs come here",
        tag="Health",
        answers={
            "200": _answer("Yes.", ref("Health")),
            "503": _answer("No, and the reason.", ref("Health"), headers={"Retry-After": _text_header("Seconds.")}),
        },
    ),
    ("POST", "/stop"): Operation(
        summary="Stop a run",
        tag="Runs",
        description="The running run of a session, or the one that is named, on whichever node it runs.",
        parameters=(WAIT,),
        body=ref("StopRequest"),
        answers={"200": _answer("What became of it, also where there was nothing to stop.", ref("StopReceipt"))},
        errors={**BODY_ERRORS, **WHO, **NO_RUN, **BACKEND},
    ),
    ("GET", "/runs"): Operation(
        summary="List runs",
        tag="Runs",
        parameters=(
            _query("status", ref("RunState"), "Only those in this state."),
            _query("session_id", IDENTIFIER, "Only those of this session."),
            USER,
            _query("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}, "At most so many."),
            _query("cursor", RUN_ID, "Where to go on: the `cursor` of the page before."),
        ),
        answers={"200": _answer("A page of runs.", ref("RunList"))},
        errors={**FAULTY, **WHO, **NO_RUN, **BACKEND},
    ),
    ("GET", "/runs/{run_id}"): Operation(
        summary="Look at a run",
        tag="Runs",
        parameters=(USER,),
        answers={"200": _answer("The run.", ref("RunInfo"))},
        errors={**FAULTY, **WHO, **NO_RUN, **BACKEND},
    ),
    ("GET", "/runs/{run_id}/stream"): Operation(
        summary="Attach to a run",
        tag="Runs",
        description="Events after a number, without a gap into the live ones; of an ended run the replay.",
        parameters=(
            _header("Last-Event-ID", {"type": "string"}, "The number of the last event that was seen."),
            _query("starting_after", {"type": "integer", "minimum": -1}, "The same."),
            USER,
        ),
        answers={
            "200": _answer("The events that follow; a frame named `gap` tells of lost ones.", EVENTS, SSE),
            "204": _answer("Everything has been seen."),
        },
        errors={**FAULTY, **WHO, **NO_RUN, **BACKEND, "409": ("elsewhere",), "410": ("stream_expired",)},
    ),
    ("GET", "/runs/{run_id}/wait"): Operation(
        summary="Wait for a run's end",
        tag="Runs",
        parameters=(USER,),
        answers={"200": _answer("The terminal response.", ref("ResponseEvent"))},
        errors={
            **FAULTY,
            **WHO,
            **NO_RUN,
            **BACKEND,
            "409": ("elsewhere",),
            "410": ("stream_expired",),
            "504": ("deadline_exceeded",),
        },
    ),
    ("POST", "/runs/{run_id}/cancel"): Operation(
        summary="Stop this run",
        tag="Runs",
        parameters=(WAIT, USER),
        answers={
            "200": _answer("It has ended.", ref("StopReceipt")),
            "202": _answer("It is being stopped, or will not start.", ref("StopReceipt")),
        },
        errors={**FAULTY, **WHO, **NO_RUN, **BACKEND},
    ),
    ("POST", "/runs/cancel"): Operation(
        summary="Stop several runs",
        tag="Runs",
        parameters=(USER,),
        body=ref("RunsToStop"),
        answers={"200": _answer("What became of each.", ref("RunsStopped"))},
        errors={**BODY_ERRORS, **WHO, **NO_RUN, **BACKEND},
    ),
    ("POST", "/runs/{run_id}/input"): Operation(
        summary="Put a message into a running run",
        tag="Runs",
        parameters=(USER,),
        body=ref("Message"),
        answers={"202": _answer("It is in the run's inbox.", ref("InputAccepted"))},
        errors={
            **BODY_ERRORS,
            **WHO,
            **NO_RUN,
            **BACKEND,
            "409": ("elsewhere", "run_ended"),
            "429": ("queue_full",),
        },
    ),
    ("GET", "/runs/{run_id}/tree"): Operation(
        summary="The live tasks of a run",
        tag="Runs",
        answers={"200": _answer("The tree of its nurseries and tasks.", {"type": "object"})},
        errors={**FAULTY, **WHO, **NO_RUN, **BACKEND, "409": ("elsewhere",)},
    ),
    ("GET", "/sessions/{session_id}"): Operation(
        summary="Look at a session",
        tag="Sessions",
        parameters=(USER,),
        answers={"200": _answer("The session.", ref("SessionInfo"))},
        errors={**FAULTY, **WHO, "404": ("not_found", "run_not_found"), **BACKEND},
    ),
    ("GET", "/sessions/{session_id}/history"): Operation(
        summary="What was said in a session",
        tag="Sessions",
        parameters=(
            USER,
            _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000}, "The last so many."),
        ),
        answers={"200": _answer("Its messages.", ref("History"))},
        errors={**FAULTY, **WHO, "404": ("not_found",), **BACKEND},
    ),
    ("GET", "/openapi.json"): Operation(
        summary="This document",
        tag="Documentation",
        answers={"200": _answer("OpenAPI 3.1.", {"type": "object"})},
    ),
    ("GET", "/docs"): Operation(
        summary="This document, to read and to try",
        tag="Documentation",
        answers={"200": _answer("A page that works offline.", {"type": "string"}, "text/html")},
    ),
    ("GET", "/metrics"): Operation(
        summary="Figures for Prometheus",
        tag="Health",
        answers={"200": _answer("In its text format.", {"type": "string"}, "text/plain")},
    ),
}

OF_ENDPOINT: dict[tuple[str, str], Operation] = {
    ("POST", ""): _START,
    ("POST", "/task"): Operation(
        summary="Start a run in the background",
        tag="Tasks",
        body=ref("AgentRequest"),
        answers={"202": _answer("It was taken.", ref("TaskAccepted"))},
        errors={**BODY_ERRORS, **WHO, **BUSY, **BACKEND},
    ),
}
"""Below the path of the query handler."""

OF_TASK: dict[tuple[str, str], Operation] = {
    ("POST", ""): Operation(
        summary="Submit a task",
        tag="Tasks",
        body={},
        body_required=False,
        answers={"202": _answer("It was taken.", ref("TaskAccepted"))},
        errors={**BODY_ERRORS, **WHO, "429": ("queue_full", "rate_limited"), **BACKEND},
    ),
    ("GET", "/{task_id}"): Operation(
        summary="Look at a task",
        tag="Tasks",
        answers={"200": _answer("Its state, and its result once it has one.", ref("TaskInfo"))},
        errors={**FAULTY, **WHO, **NO_TASK, **BACKEND},
    ),
    ("POST", "/{task_id}/cancel"): Operation(
        summary="Stop a task",
        tag="Tasks",
        parameters=(WAIT,),
        answers=_TASK_ANSWERS,
        errors={**FAULTY, **WHO, **NO_TASK, **BACKEND},
    ),
}
"""Below the path of a task, and of runs in the background."""

PATH_PARAMETERS: dict[str, Schema] = {"run_id": RUN_ID, "session_id": IDENTIFIER}


def operation_of(method: str, path: str, *, endpoint_path: str, task_path: str | None = None) -> Operation | None:
    """What is said of a built-in route; `task_path`: it belongs to the task of that path."""
    if task_path is not None:
        return OF_TASK.get((method, path.removeprefix(task_path)))
    rest = path.removeprefix(endpoint_path)
    if rest != path and (method, rest) in OF_ENDPOINT:
        return OF_ENDPOINT[method, rest]
    if rest != path and rest.startswith("/task/"):
        return OF_TASK.get((method, rest.removeprefix("/task")))
    return FIXED.get((method, path))
