"""JSON Schemas of what the built-in routes take and give (WIRE, sections 1 to 3). Tests hold them to the code."""

from __future__ import annotations

from typing import Any

from ...protocol.content import CONTENT_TYPES, FIELDS, ContentType
from ...protocol.lifecycle import CleanupResult, Phase, RunState
from ...protocol.message import MESSAGE_TYPES, ROLES

__all__ = ["MODELS", "Schema", "ref"]

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: Schema, required: list[str] | None = None, **more: Any) -> Schema:
    return {"type": "object", "properties": properties, **({"required": required} if required else {}), **more}


def _all(properties: Schema, **more: Any) -> Schema:
    """An answer of ours: every field is always there."""
    return _object(properties, list(properties), **more)


def _or_null(schema: Schema) -> Schema:
    if isinstance(schema.get("type"), str) and "enum" not in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def _listed(item: Schema) -> Schema:
    return {"type": "array", "items": item}


TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}
FREE: Schema = {"type": "object"}
IDENTIFIER: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": 256,
    "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$",
}
RUN_ID: Schema = {"type": "string", "pattern": "^[A-Za-z0-9_-]{8,64}$"}
SECONDS: Schema = {"type": "number", "exclusiveMinimum": 0}
EPOCH: Schema = {"type": "number", "description": "Seconds since 1970."}

_CONTENT_WORDS: dict[str, str] = {
    "text": "Words.",
    "data": "Any JSON value; tool calls and their outputs travel as one of these.",
    "image": "An image, by URL.",
    "audio": "Sound: base64 text and the name of its format.",
    "video": "A video, by URL.",
    "file": "A file: by URL, by the id it is stored under, or as base64 text.",
    "refusal": "Why the agent will not answer.",
}
_NEEDED: dict[ContentType, list[str]] = {
    "text": ["text"],
    "data": ["data"],
    "image": ["image_url"],
    "audio": ["data"],
    "video": ["video_url"],
    "refusal": ["refusal"],
}


def _content(kind: ContentType) -> Schema:
    needed = _NEEDED.get(kind, [])
    fields: Schema = {"type": {"const": kind}}
    for name in FIELDS[kind]:
        plain = {} if kind == "data" else TEXT
        fields[name] = plain if name in needed else _or_null(TEXT)
    fields["delta"] = _or_null(FLAG)
    schema = _object(fields, ["type", *needed], description=_CONTENT_WORDS[kind])
    if kind == "file":
        by = ("file_url", "file_id", "file_data")
        schema["anyOf"] = [{"properties": {name: TEXT}, "required": [name]} for name in by]
    return schema


def _speaking(fields: Schema, description: str) -> Schema:
    """A message; one of a type that says nothing without content has to have it."""
    types = {"properties": {"type": {"enum": ["message", "reasoning", None]}}}
    return {**_object(fields, description=description), "if": types, "then": {"required": ["content"]}}


def _content_name(kind: str) -> str:
    return f"{kind.capitalize()}Content"


_MESSAGE_TYPE: Schema = {
    **IDENTIFIER,
    "examples": list(MESSAGE_TYPES),
    "description": "One of the examples, or a word of the front end's own.",
}
_FAILURE = _or_null(ref("Failure"))
_NUMBERED: Schema = {"sequence_number": {"type": "integer", "minimum": 0}}


def _event_name(kind: str) -> str:
    return f"{_content_name(kind)}Event"


def _content_event(kind: ContentType) -> Schema:
    needed = _NEEDED.get(kind, [])
    plain: Schema = {} if kind == "data" else TEXT
    return _all(
        {
            **_NUMBERED,
            "object": {"const": "content"},
            "status": {"enum": ["in_progress", "completed", "incomplete"]},
            "error": _FAILURE,
            "type": {"const": kind},
            "index": {"type": "integer", "minimum": 0},
            "delta": FLAG,
            "msg_id": TEXT,
            **{name: plain if name in needed else _or_null(TEXT) for name in FIELDS[kind]},
        },
        description=_CONTENT_WORDS[kind],
    )


_RECEIPT: Schema = {
    "accepted": FLAG,
    "stopped": FLAG,
    "run_id": _or_null(TEXT),
    "state": ref("RunState"),
    "node": _or_null(TEXT),
    "latency_ms": NUMBER,
    "cleanup": {"enum": [each.value for each in CleanupResult]},
}

MODELS: dict[str, Schema] = {
    # What is asked.
    "AgentRequest": _object(
        {
            "input": {
                "anyOf": [TEXT, {**_listed(ref("Message")), "minItems": 1}],
                "description": "Messages; a string is one message of the user.",
            },
            "session_id": _or_null(IDENTIFIER),
            "user_id": _or_null(IDENTIFIER),
            "id": {**_or_null(RUN_ID), "description": "The run's id, chosen by the client."},
            "stream": _or_null(FLAG),
            "on_disconnect": {
                "anyOf": [
                    {"enum": ["cancel", "continue", None]},
                    _object({"cancel_after": SECONDS}, ["cancel_after"], additionalProperties=False),
                ]
            },
            "multitask_strategy": {"enum": ["reject", "enqueue", "interrupt", "rollback", None]},
            "background": _or_null(FLAG),
            "timeout_s": _or_null(SECONDS),
            "model": _or_null(TEXT),
            "top_p": _or_null(NUMBER),
            "temperature": _or_null(NUMBER),
            "frequency_penalty": _or_null(NUMBER),
            "presence_penalty": _or_null(NUMBER),
            "max_tokens": _or_null(WHOLE),
            "stop": {"anyOf": [TEXT, _listed(TEXT), {"type": "null"}]},
            "n": _or_null(WHOLE),
            "seed": _or_null(WHOLE),
            "tools": {"type": ["array", "null"], "items": FREE},
            "run_id": _or_null(RUN_ID),
        },
        ["input"],
        description="One request to the agent. Fields that are not known are handed to the handler.",
    ),
    "Message": _speaking(
        {
            "role": {"enum": [*ROLES, None]},
            "type": _or_null(_MESSAGE_TYPE),
            "content": {"anyOf": [TEXT, _listed(ref("Content")), {"type": "null"}]},
            "id": _or_null(IDENTIFIER),
            "code": _or_null(TEXT),
            "message": _or_null(TEXT),
            "usage": _or_null(FREE),
            "metadata": _or_null(FREE),
        },
        description="One message of a conversation. Fields that are not known are handed to the handler.",
    ),
    "Content": {
        "oneOf": [ref(_content_name(kind)) for kind in CONTENT_TYPES],
        "discriminator": {
            "propertyName": "type",
            "mapping": {kind: ref(_content_name(kind))["$ref"] for kind in CONTENT_TYPES},
        },
    },
    **{_content_name(kind): _content(kind) for kind in CONTENT_TYPES},
    "StopRequest": _object(
        {
            "session_id": _or_null(IDENTIFIER),
            "user_id": _or_null(IDENTIFIER),
            "run_id": _or_null(RUN_ID),
            "input": {"type": ["array", "null"], "items": ref("Message")},
        },
        anyOf=[
            {"properties": {"session_id": IDENTIFIER}, "required": ["session_id"]},
            {"properties": {"run_id": RUN_ID}, "required": ["run_id"]},
        ],
        description="Which run to stop: that of a session, a run by its id, or both.",
    ),
    # What happens.
    "Event": {
        "oneOf": [ref("ResponseEvent"), ref("MessageEvent"), ref("ContentEvent")],
        "description": "The data of one frame of a stream. Numbers begin at 0 and have no holes.",
    },
    "ResponseEvent": _all(
        {
            **_NUMBERED,
            "object": {"const": "response"},
            "status": {"enum": ["created", "in_progress", "completed", "failed", "canceled", "rejected"]},
            "error": _FAILURE,
            "id": TEXT,
            "created_at": WHOLE,
            "completed_at": _or_null(WHOLE),
            "output": _or_null(_listed(ref("MessageEvent"))),
            "usage": _or_null(FREE),
            "session_id": _or_null(TEXT),
        },
        description="The response as a whole; the last event of a run is a terminal one.",
    ),
    "MessageEvent": _all(
        {
            **_NUMBERED,
            "object": {"const": "message"},
            "status": {"enum": ["in_progress", "completed", "incomplete"]},
            "error": _FAILURE,
            "id": TEXT,
            "type": _MESSAGE_TYPE,
            "role": {"enum": list(ROLES)},
            "content": _or_null(_listed(ref("ContentEvent"))),
            "code": _or_null(TEXT),
            "message": _or_null(TEXT),
            "usage": _or_null(FREE),
            "metadata": _or_null(FREE),
        },
        description="A message begins, or ends with its content.",
    ),
    "ContentEvent": {
        "oneOf": [ref(_event_name(kind)) for kind in CONTENT_TYPES],
        "description": "A piece of a content part, or the whole part at its end; and the fields of its type.",
    },
    **{_event_name(kind): _content_event(kind) for kind in CONTENT_TYPES},
    "Failure": _all({"code": TEXT, "message": TEXT}, description="Why a response did not complete."),
    "EndpointFailure": _all(
        {"error": TEXT, "error_type": TEXT, "message": TEXT},
        description="The last event of an endpoint's stream that failed or was cut.",
    ),
    # What is told.
    "RunState": {"enum": [each.value for each in RunState]},
    "StopReceipt": _all(
        {"status": {"const": "success"}, "message": TEXT, **_RECEIPT}, description="What a stop did."
    ),
    "RunInfo": _object(
        {
            "run_id": TEXT,
            "user_id": TEXT,
            "session_id": TEXT,
            "state": ref("RunState"),
            "phase": {"enum": [each.value for each in Phase if each is not Phase.CLAIMING]},
            "reason": _or_null(TEXT),
            "stop_requested": FLAG,
            "stuck": FLAG,
            "started_at": _or_null(EPOCH),
            "ended_at": _or_null(EPOCH),
            "cleanup": {"enum": [each.value for each in CleanupResult]},
            "cleanup_interrupted": FLAG,
            "node": _or_null(TEXT),
        },
        ["run_id", "user_id", "session_id", "state"],
        description="One run.",
    ),
    "RunList": _all({"runs": _listed(ref("RunInfo")), "cursor": _or_null(TEXT)}, description="A page of runs."),
    "RunsToStop": _object(
        {
            "run_ids": {"type": "array", "items": RUN_ID, "maxItems": 100},
            "status": ref("RunState"),
            "user_id": _or_null(IDENTIFIER),
        },
        oneOf=[{"required": ["run_ids"]}, {"required": ["status"]}],
        description="Runs by their ids, or all that are in a state.",
    ),
    "RunsStopped": _all(
        {"results": _listed(_object({"run_id": TEXT, "accepted": FLAG, "code": TEXT}, ["run_id", "accepted"]))},
        description="For each run its receipt, or the code of what was wrong.",
    ),
    "InputAccepted": _all({"status": {"const": "accepted"}, "run_id": TEXT}),
    "SessionInfo": _object(
        {
            "session_id": TEXT,
            "user_id": TEXT,
            "state": ref("RunState"),
            "active_run_id": _or_null(TEXT),
            "last_run_id": _or_null(TEXT),
            "node": _or_null(TEXT),
            "last_activity": _or_null(EPOCH),
        },
        ["session_id", "user_id", "state"],
        description="A session, and the run that is active in it.",
    ),
    "History": _object(
        {"session_id": TEXT, "user_id": TEXT, "messages": _listed(ref("Message"))},
        ["messages"],
        description="The messages of a session, oldest first.",
    ),
    "TaskAccepted": _object(
        {"task_id": TEXT, "status": TEXT, "session_id": TEXT, "user_id": TEXT}, ["task_id", "status"]
    ),
    "TaskInfo": _object(
        {
            "task_id": TEXT,
            "status": TEXT,
            "cancel_requested": FLAG,
            "created_at": _or_null(EPOCH),
            "started_at": _or_null(EPOCH),
            "ended_at": _or_null(EPOCH),
            "result": {},
            "error": ref("Failure"),
        },
        ["task_id", "status"],
        description="One task; `result` or `error` once it has ended.",
    ),
    "Welcome": _all(
        {
            "name": TEXT,
            "description": TEXT,
            "routes": {"type": "object", "additionalProperties": _listed(TEXT)},
        },
        description="What is served here.",
    ),
    "Health": _object(
        {"status": TEXT, "timestamp": EPOCH, "service": TEXT, "node": TEXT, "reason": TEXT}, ["status", "timestamp"]
    ),
    "Problem": _all(
        {
            "type": TEXT,
            "title": TEXT,
            "status": WHOLE,
            "detail": TEXT,
            "instance": TEXT,
            "code": {**TEXT, "description": "Stable; rely on this."},
            "request_id": TEXT,
            "retryable": FLAG,
        },
        description="Why a request was refused (RFC 9457).",
    ),
    "Fault": _all(
        {
            "loc": {**TEXT, "description": "A JSON path, `query.<name>` or `path.<name>`."},
            "msg": TEXT,
        }
    ),
}
