"""Parts of route descriptions: `Operation`, and the parameters, errors and responses that routes share."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec

from ... import errors as e
from .bodies import Identifier, RunId
from .components import Schema, ref

__all__ = [
    "ADMIN",
    "BODY",
    "BUSY",
    "COMMON",
    "EVENTS",
    "Errors",
    "FAULTY",
    "IDENTIFIER",
    "JSON",
    "KEY",
    "LAST_EVENT",
    "OF_RUN",
    "OF_TASK",
    "Operation",
    "PATH_PARAMETERS",
    "RUN_HEADERS",
    "RUN_ID",
    "SSE",
    "STOPPING",
    "USER",
    "WAIT",
    "frame_of",
    "headers",
    "limit",
    "query",
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
    """The description of one route. A response is the name of a class in `bodies`, or a complete description."""

    tag: str
    summary: str
    responses: dict[str, str | Schema]
    errors: Errors = ()
    """The problem documents that clients should expect."""
    parameters: tuple[Schema, ...] = ()
    body: Schema | None = None
    body_required: bool = True
    description: str = ""
    own_errors: bool = False
    """Whether its errors have the shape of another protocol, and not of problem documents."""


def response(schema: Schema, description: str, media: str = JSON, **more: Any) -> Schema:
    return {"description": description, **more, "content": {media: {"schema": schema}}}


def query(name: str, schema: Schema, description: str, place: str = "query") -> Schema:
    return {"name": name, "in": place, "required": False, "schema": schema, "description": description}


def headers(**descriptions: str) -> Schema:
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

WAIT = query("wait", {"enum": ["0", "1", "true", "false"]}, "1: respond when the run has ended.")
USER = query("user_id", IDENTIFIER, "The owner, if the app does not authenticate its clients.")
KEY = query("Idempotency-Key", {"type": "string"}, "The same key and body: the same run.", "header")
LAST_EVENT = query("Last-Event-ID", {"type": "string"}, "The number of the last event received.", "header")

RUN_HEADERS = headers(
    X_Run_Id="The run.",
    X_Session_Id="Its session, percent-encoded except for visible ASCII other than `%`.",
    Location="Where the run can be read.",
)
STOPPING = "200: it has ended. 202: it is being stopped."
EVENTS = frame_of(ref("Event"), numbered=True)


def limit(most: int, **default: int) -> Schema:
    return query("limit", {"type": "integer", "minimum": 1, "maximum": most, **default}, "How many at most.")
