"""Reads and makes messages of tool calls and of their outputs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ..protocol.content import Content, DataContent
from ..protocol.message import Message

__all__ = ["call_message", "data_message", "data_of", "object_of", "origin_of", "output_message", "text_of"]

Data = Mapping[str, Any]


def data_of(message: Message) -> Data:
    """Return the data of a tool call or its output: its last data content, or an empty mapping."""
    for part in reversed(message.content):
        if isinstance(part, DataContent) and isinstance(part.data, Mapping):
            return part.data
    return {}


def object_of(arguments: Any) -> dict[str, Any]:
    """Return the arguments of a call as a JSON object; empty if they are not an object."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError:
            return {}
    return dict(arguments) if isinstance(arguments, Mapping) else {}


def text_of(value: Any) -> str:
    """Return a text as it is, and any other value as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def data_message(data: Any, metadata: Data | None = None) -> Message:
    return Message(content=[DataContent(data)], metadata=metadata)


def call_message(
    call_id: str | None,
    name: str | None,
    arguments: str | None,
    metadata: Data | None = None,
    *,
    kind: str = "plugin_call",
    id: str | None = None,
    **more: Any,
) -> Message:
    """Return the message of a tool call. `arguments` is JSON or empty; `more` has further members of its data."""
    data = {"call_id": call_id, "name": name, "arguments": arguments or "{}", **more}
    return Message("assistant", kind, [DataContent(data)], id, metadata=metadata)


def output_message(
    call_id: str | None,
    name: str | None,
    output: Any,
    metadata: Data | None = None,
    *,
    kind: str = "plugin_call_output",
    id: str | None = None,
    files: Iterable[Content] = (),
) -> Message:
    """Return the message with the output of a tool call, and with its files."""
    data = {"call_id": call_id, "name": name, "output": output}
    return Message("tool", kind, [DataContent(data), *files], id, metadata=metadata)


def origin_of(id: str | None, name: str | None) -> dict[str, str]:
    """Return metadata with the message's id and its author's name in the framework, if they are known."""
    given = {"original_id": id, "original_name": name}
    return {key: value for key, value in given.items() if value}
