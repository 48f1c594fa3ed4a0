"""Reads the messages of tool calls and of their outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..protocol.content import DataContent
from ..protocol.message import Message

__all__ = ["data_of", "object_of"]


def data_of(message: Message) -> Mapping[str, Any]:
    """Return the data of a tool call or its output: the last data content; empty if there is none."""
    for part in reversed(message.content):
        if isinstance(part, DataContent) and isinstance(part.data, Mapping):
            return part.data
    return {}


def object_of(arguments: Any) -> dict[str, Any]:
    """Return the arguments of a call as an object; empty if they are none."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError:
            return {}
    return dict(arguments) if isinstance(arguments, Mapping) else {}
