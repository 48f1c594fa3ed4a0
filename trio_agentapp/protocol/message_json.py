"""Messages as JSON outside of events: in a chat history, in a request, in an answer.

The fields are those of a message in a request, so messages that were read from a history may be sent again.
"""

from __future__ import annotations

from typing import Any

import orjson

from ..errors import ValidationError
from .codec import decode_json
from .content import make_content, payload_of
from .message import MESSAGE_FIELDS, Message
from .payload import json_bytes
from .structure import Faults, message_from

__all__ = ["decode_message", "decode_messages", "encode_message", "message_fields", "message_of"]


def message_fields(message: Message) -> dict[str, Any]:
    """Return the fields of a message, those of `extra` among them."""
    fields: dict[str, Any] = {
        **{name: value for name, value in message.extra.items() if name not in MESSAGE_FIELDS},
        "id": message.id,
        "type": message.type,
        "role": message.role,
        "content": [{"type": part.type, **payload_of(part)} for part in message.content],
    }
    for name in ("code", "message", "usage", "metadata"):
        if (value := getattr(message, name)) is not None:
            fields[name] = value
    return fields


def encode_message(message: Message) -> bytes:
    """Return the compact JSON of a message. Raises ItemError, a TypeError, if a value has no form in JSON."""
    return json_bytes(message_fields(message))


def decode_messages(raw: bytes) -> list[Message]:
    """Return the messages of a JSON list that `encode_message` has written, so its integers fit into 64 bits."""
    return [_trusted(fields) for fields in orjson.loads(raw)]


def _trusted(fields: dict[str, Any]) -> Message:
    # The checks of a request do not apply: an agent may send what a client may not, such as an image without a URL.
    parts = [make_content(part.pop("type"), part) for part in fields.pop("content")]
    extra = {name: fields.pop(name) for name in [*fields] if name not in MESSAGE_FIELDS}
    return Message(content=parts, extra=extra, **fields)


def decode_message(raw: bytes) -> Message:
    """Return the message in a body. Raises MalformedBody and ValidationError as `decode_request` does."""
    return message_of(decode_json(raw), "$")


def message_of(value: object, path: str) -> Message:
    """Return the message in a JSON value. Raises ValidationError with every fault and its path."""
    faults = Faults()
    message = message_from(value, path, faults)
    faults.settle()
    if message is None:
        raise ValidationError([(path, "is not a message")])
    return message
