"""Events that are read from a store or received from another node."""

from __future__ import annotations

from typing import Any

import orjson

from .content import FIELDS
from .events import ContentEvent, Event, Failure, MessageEvent, ResponseEvent, StateEvent

__all__ = ["decode_event"]

_MESSAGE = ("sequence_number", "status", "id", "type", "role", "code", "message", "usage", "metadata")


def decode_event(raw: bytes) -> Event:
    """Return the event that `encode_event` wrote as `raw`. It keeps `raw`, so every reader gets the same bytes.

    Its integers fit into 64 bits: the builder accepts no others. Raises ValueError if `raw` is not an event.
    """
    fields = orjson.loads(raw)
    try:
        event = _event(fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("not an event of a run") from error
    event.encoded = raw  # type: ignore[misc]  # only the type checker sees frozen classes
    return event


def _event(fields: dict[str, Any]) -> Event:
    """Build an event of the fields of its JSON, and remove those from `fields` that it knows."""
    kind, failure = fields.pop("object"), fields.pop("error")
    error = None if failure is None else Failure(**failure)
    if kind == "content":
        return _content(fields, error)
    if kind == "message":
        known = {name: fields.pop(name) for name in _MESSAGE}
        return MessageEvent(**known, content=_nested(fields.pop("content")), error=error, extra=fields or None)
    if kind == "response":
        return ResponseEvent(**(fields | {"output": _nested(fields["output"])}), error=error)
    if kind == "state":
        return StateEvent(fields["sequence_number"], fields["delta"], fields["state"], fields["patch"])
    raise KeyError("object")


def _content(fields: dict[str, Any], error: Failure | None) -> ContentEvent:
    kind = fields["type"]
    text = kind == "text"
    return ContentEvent(
        fields["sequence_number"],
        fields["status"],
        kind,
        fields["index"],
        fields["delta"],
        fields["msg_id"],
        fields["text"] if text else "",
        None if text else {name: fields.get(name) for name in FIELDS[kind]},
        error,
    )


def _nested(values: list[dict[str, Any]] | None) -> Any:
    return None if values is None else tuple(map(_event, values))
