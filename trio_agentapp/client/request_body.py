"""The JSON bodies of requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ..errors import ItemError, ValidationError
from ..protocol.ids import new_run_id, new_session_id
from ..protocol.message import Message
from ..protocol.message_json import message_fields
from ..protocol.payload import json_bytes
from ..protocol.request import AgentRequest, CancelAfter, OnDisconnect

__all__ = ["answer_message", "body_of", "encoded"]


def body_of(
    request: AgentRequest | Mapping[str, Any] | str,
    session_id: str | None = None,
    user_id: str | None = None,
    on_disconnect: OnDisconnect | None = None,
) -> dict[str, Any]:
    """Build the JSON object of a request, with ids of its run and its session.

    The client makes missing ids itself. So it can look for a run if the answer to its start was lost, and start it
    again without the risk of a second run.
    """
    if isinstance(request, AgentRequest):
        fields: dict[str, Any] = attrs.asdict(request, recurse=False, filter=lambda _, value: value is not None)
        body: dict[str, Any] = {**fields.pop("extra"), **fields}
    elif isinstance(request, str):
        body = {"input": request}
    else:
        body = dict(request)
    if isinstance(messages := body.get("input"), str):
        body["input"] = [{"role": "user", "content": messages}]
    elif isinstance(messages, list | tuple):
        body["input"] = [message_fields(each) if isinstance(each, Message) else each for each in messages]
    if session_id is not None:
        body["session_id"] = session_id
    if user_id is not None:
        body["user_id"] = user_id
    if body.get("on_disconnect") is None and on_disconnect is not None:
        body["on_disconnect"] = on_disconnect
    if isinstance(policy := body.get("on_disconnect"), CancelAfter):
        body["on_disconnect"] = {"cancel_after": policy.seconds}
    for name, new_id in (("id", new_run_id), ("session_id", new_session_id)):
        if body.get(name) is None:
            body[name] = new_id()
    return body


def answer_message(question_id: str, value: Any) -> dict[str, Any]:
    """Build the message that answers a question of `run.ask`."""
    data = {"approval_request_id": question_id, "answer": value}
    if isinstance(value, bool):
        data["approve"] = value
    return {"role": "user", "type": "mcp_approval_response", "content": [{"type": "data", "data": data}]}


def encoded(body: Mapping[str, Any]) -> bytes:
    """Encode a body. A lone surrogate becomes U+FFFD, and two halves of a pair one character.

    Raises:
        ValidationError: a value has no exact form in JSON, such as an integer beyond 64 bits.
    """
    try:
        return json_bytes(body)
    except ItemError as error:
        raise ValidationError([("$", str(error))]) from error
