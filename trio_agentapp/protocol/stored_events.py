"""Events that are read from a store or received from another node."""

from __future__ import annotations

from typing import Any

import orjson

from .content import FIELDS
from .events import ContentEvent, Event, Failure, MessageEvent, ResponseEvent
from .message import MESSAGE_FIELDS

__all__ = ["decode_event"]


def decode_event(raw: bytes) -> Event:
    """Return the event that `encode_event` wrote as `raw`. It keeps `raw`, so every reader gets the same bytes.

    Its integers fit into 64 bits: the builder accepts no others. Raises ValueError if `raw` is not an event.
    """
    value = orjson.loads(raw)
    try:
        event = _event(value)
    except (KeyError, TypeError) as error:
        raise ValueError("not an event of a run") from error
    event.encoded = raw  # type: ignore[misc]  # only the type checker sees frozen classes
    return event


def _event(value: dict[str, Any]) -> Event:
    match value["object"]:
        case "content":
            return _content(value)
        case "message":
            return _message(value)
        case "response":
            return _response(value)
    raise KeyError("object")


def _content(value: dict[str, Any]) -> ContentEvent:
    text = value["type"] == "text"
    return ContentEvent(
        value["sequence_number"],
        value["status"],
        value["type"],
        value["index"],
        value["delta"],
        value["msg_id"],
        value["text"] if text else "",
        None if text else {name: value.get(name) for name in FIELDS[value["type"]]},
        _failure(value["error"]),
    )


def _message(value: dict[str, Any]) -> MessageEvent:
    content = value["content"]
    return MessageEvent(
        value["sequence_number"],
        value["status"],
        value["id"],
        value["type"],
        value["role"],
        None if content is None else tuple(map(_content, content)),
        value["code"],
        value["message"],
        value["usage"],
        value["metadata"],
        _failure(value["error"]),
        {name: item for name, item in value.items() if name not in MESSAGE_FIELDS} or None,
    )


def _response(value: dict[str, Any]) -> ResponseEvent:
    output = value["output"]
    return ResponseEvent(
        value["sequence_number"],
        value["status"],
        value["id"],
        value["created_at"],
        value["completed_at"],
        None if output is None else tuple(map(_message, output)),
        value["usage"],
        value["session_id"],
        _failure(value["error"]),
    )


def _failure(value: dict[str, str] | None) -> Failure | None:
    return None if value is None else Failure(value["code"], value["message"])
