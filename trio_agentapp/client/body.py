"""A request as it goes over the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import orjson

from ..errors import ItemError, ValidationError
from ..protocol.content import payload_of
from ..protocol.ids import new_run_id, new_session_id
from ..protocol.message import Message
from ..protocol.payload import plain_json
from ..protocol.request import AgentRequest, CancelAfter, OnDisconnect

__all__ = ["body_of", "encoded", "message_body"]


def body_of(
    request: AgentRequest | Mapping[str, Any] | str,
    session_id: str | None = None,
    user_id: str | None = None,
    on_disconnect: OnDisconnect | None = None,
) -> dict[str, Any]:
    """The JSON object of a request, with an id for its run and its session.

    Both are made here and not by the server: so that a start whose answer was lost can be found, and repeated
    without a second run.
    """
    if isinstance(request, AgentRequest):
        body = _fields(request)
    elif isinstance(request, str):
        body = {"input": request}
    else:
        body = dict(request)
    if isinstance(words := body.get("input"), str):
        body["input"] = [{"role": "user", "content": words}]
    elif isinstance(words, list | tuple):
        body["input"] = [message_body(each) if isinstance(each, Message) else each for each in words]
    if session_id is not None:
        body["session_id"] = session_id
    if user_id is not None:
        body["user_id"] = user_id
    if body.get("on_disconnect") is None and on_disconnect is not None:
        body["on_disconnect"] = on_disconnect
    if isinstance(patience := body.get("on_disconnect"), CancelAfter):
        body["on_disconnect"] = {"cancel_after": patience.seconds}
    for name, fresh in (("id", new_run_id), ("session_id", new_session_id)):
        if body.get(name) is None:
            body[name] = fresh()
    return body


def encoded(body: Mapping[str, Any]) -> bytes:
    """The JSON of a body. Half a character becomes U+FFFD, or a whole one with the half beside it.

    Raises:
        ValidationError: something in it has no JSON, or not exactly, as an integer beyond 64 bits.
    """
    try:
        return orjson.dumps(body)
    except TypeError:
        # With its place; or it was only text that UTF-8 cannot spell.
        try:
            return orjson.dumps(plain_json(body))
        except ItemError as error:
            raise ValidationError([("$", str(error))]) from error


def _fields(request: AgentRequest) -> dict[str, Any]:
    body = dict(request.extra)
    for field in attrs.fields(AgentRequest):
        value = getattr(request, field.name)
        if field.name != "extra" and value is not None:
            body[field.name] = value
    return body


def message_body(message: Message) -> dict[str, Any]:
    """The JSON object of a message."""
    body: dict[str, Any] = {"role": message.role, "type": message.type}
    body |= message.extra
    body["content"] = [{"type": part.type, **payload_of(part)} for part in message.content]
    for name in ("id", "code", "message", "usage", "metadata"):
        if (value := getattr(message, name)) is not None:
            body[name] = value
    return body
