"""The components of the OpenAPI document that do not depend on the app.

Components of responses come from `bodies`. Components of requests and events are derived from the attrs classes of
the protocol, field by field. Constraints that the types do not express are added by hand.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, Union

import attrs
import msgspec
from msgspec import Meta

from ...protocol.content import CLASSES, CONTENT_TYPES, FIELDS, ContentType
from ...protocol.events import Failure, MessageEvent, ResponseEvent, StateEvent
from ...protocol.message import MESSAGE_TYPES, Message
from ...protocol.request import AgentRequest
from ...protocol.structure import FILE_BY, NEEDED
from . import bodies
from .bodies import AnyMessage, CancelAfter, Component, Identifier, Number, RunId

__all__ = ["TEMPLATE", "Schema", "built_in", "ref"]

Schema = dict[str, Any]

TEMPLATE = "#/components/schemas/{name}"


AnyContent: Any = Component("Content", (), {})
AnyMessageEvent: Any = Component("MessageEvent", (), {})
AnyContentEvent: Any = Component("ContentEvent", (), {})


def ref(name: str) -> Schema:
    return {"$ref": TEMPLATE.format(name=name)}


def _fields(cls: type, narrowed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the types of an attrs class's JSON by field. `narrowed` replaces or adds fields."""
    hints = typing.get_type_hints(cls, include_extras=True)
    left_out = ("extra", "encoded", "payload")
    own = {field.name: hints[field.name] for field in attrs.fields(cls) if field.name not in left_out}
    return {**own, **narrowed}


def _struct(
    name: str, doc: str, fields: Mapping[str, Any], optional: Mapping[str, Any] = {}, **options: Any
) -> Any:
    """Return the class of a JSON object. An `optional` field may be left out, or be null."""
    # UNSET and not None: generated clients assume that a field with a default is always present.
    more = [(field, kind | None | msgspec.UnsetType, msgspec.UNSET) for field, kind in optional.items()]
    return msgspec.defstruct(name, [*fields.items(), *more], kw_only=True, namespace={"__doc__": doc}, **options)


def _event(cls: type, doc: str, **narrowed: Any) -> Any:
    return _struct(cls.__name__, doc, _fields(cls, {**_EVENT, **narrowed}))


def _payload(kind: ContentType) -> dict[str, Any]:
    needed = NEEDED.get(kind)
    return {field: Any if kind == "data" else str if field == needed else str | None for field in FIELDS[kind]}


def _content(kind: ContentType) -> Any:
    fields = _payload(kind)
    needed = {field: fields.pop(field) for field in [*fields] if field == NEEDED.get(kind)}
    cls = CLASSES[kind]
    return _struct(
        cls.__name__, inspect.getdoc(cls) or "", needed, {**fields, "delta": bool}, tag_field="type", tag=kind
    )


def _content_event(kind: ContentType) -> Any:
    fields = {
        **_EVENT,
        "object": Literal["content"],
        "index": Number,
        "delta": bool,
        "msg_id": str,
        **_payload(kind),
    }
    cls = CLASSES[kind]
    return _struct(f"{cls.__name__}Event", inspect.getdoc(cls) or "", fields, tag_field="type", tag=kind)


MessageType = Annotated[
    Identifier, Meta(examples=[*MESSAGE_TYPES], description="One of the examples, or any word.")
]
_EVENT: dict[str, Any] = {
    "sequence_number": Number,
    "status": Literal["in_progress", "completed", "incomplete"],
    "error": Failure | None,
}


@cache
def built_in() -> dict[str, Schema]:
    """Return the components of the built-in routes, by name."""
    asked = _fields(
        AgentRequest,
        {
            **dict.fromkeys(("session_id", "user_id"), Identifier),
            **dict.fromkeys(("id", "run_id"), RunId),
            "timeout_s": Annotated[float, Meta(gt=0)],
            "tools": list[dict[str, Any]],
            "on_disconnect": CancelAfter | Literal["cancel", "continue"],
        },
    )
    del asked["input"]
    said = _fields(Message, {"type": MessageType, "id": Identifier, "content": str | list[AnyContent]})
    contents = [_content(kind) for kind in CONTENT_TYPES]
    events = [_content_event(kind) for kind in CONTENT_TYPES]
    roots: dict[str, Any] = {
        "Content": Union[tuple(contents)],  # noqa: UP007
        "ContentEvent": Union[tuple(events)],  # noqa: UP007
        "MessageEvent": _event(
            MessageEvent,
            "A message begins, or ends with its content.",
            object=Literal["message"],
            type=MessageType,
            content=list[AnyContentEvent] | None,
        ),
        "ResponseEvent": _event(
            ResponseEvent,
            "The response as a whole; the last event of a run is a terminal one.",
            object=Literal["response"],
            status=Literal["created", "in_progress", "completed", "failed", "canceled", "rejected"],
            output=list[AnyMessageEvent] | None,
        ),
        "StateEvent": _event(
            StateEvent,
            "The state of the run: the whole of it, or what has changed (JSON Patch).",
            object=Literal["state"],
            status=Literal["in_progress"],
            state=dict[str, Any] | None,
            patch=list[dict[str, Any]] | None,
        ),
        "AgentRequest": _struct(
            "AgentRequest",
            "One request to the agent. Unknown fields are handed to the handler.",
            {"input": str | Annotated[list[AnyMessage], Meta(min_length=1)]},
            asked,
        ),
        "Message": _struct(
            "Message", "One message of a conversation. Unknown fields are handed to the handler.", {}, said
        ),
        **{name: cls for name, cls in vars(bodies).items() if typing.is_typeddict(cls)},
    }
    schemas, components = msgspec.json.schema_components(
        list(roots.values()), schema_hook=lambda kind: ref(kind.__name__), ref_template=TEMPLATE
    )
    found = {name: schema for name, schema in zip(roots, schemas, strict=True) if schema != ref(name)}
    found |= {name: {**schema, **_RULES.get(name, {})} for name, schema in components.items()}
    found["Event"] = {
        "oneOf": [ref("ResponseEvent"), ref("MessageEvent"), ref("ContentEvent"), ref("StateEvent")],
        "description": "The data of one frame of a stream. Numbers begin at 0 and have no holes.",
    }
    return found


_RULES: dict[str, Schema] = {
    # A file needs one of these. Messages of these types need content.
    "FileContent": {"anyOf": [{"properties": {name: {"type": "string"}}, "required": [name]} for name in FILE_BY]},
    "Message": {
        "if": {"properties": {"type": {"enum": ["message", "reasoning", None]}}},
        "then": {"required": ["content"]},
    },
    "StopRequest": {
        "anyOf": [
            {"properties": {name: {"type": "string"}}, "required": [name]} for name in ("session_id", "run_id")
        ]
    },
    "RunsToStop": {"oneOf": [{"required": ["run_ids"]}, {"required": ["status"]}]},
}
"""Constraints that types cannot express: which fields must occur together."""
