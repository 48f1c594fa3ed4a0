"""Messages as JSON outside of events: how a history is kept, and how it is shown.

The format is that of docs/reference/wire.md, without the fields of a stream. What was read may be sent again as
the `input` of a request.
"""

from __future__ import annotations

from typing import Any

import orjson

from .content import make_content, payload_of
from .message import Message

__all__ = ["decode_messages", "encode_message"]


def encode_message(message: Message) -> bytes:
    """The compact JSON of a message. Raises TypeError for one around something that is not JSON."""
    spelled: dict[str, Any] = {
        "id": message.id,
        "type": message.type,
        "role": message.role,
        "content": [{"type": part.type, **payload_of(part)} for part in message.content],
    }
    for name in ("code", "message", "usage", "metadata"):
        if (value := getattr(message, name)) is not None:
            spelled[name] = value
    return orjson.dumps(spelled)


def decode_messages(raw: bytes) -> list[Message]:
    """The messages of a JSON list that `encode_message` has spelled."""
    return [_message_from(spelled) for spelled in orjson.loads(raw)]


def _message_from(spelled: dict[str, Any]) -> Message:
    # Not checked as a request is: what an agent could send can be kept, also an image without an address.
    parts = [make_content(part.pop("type"), part) for part in spelled.pop("content")]
    return Message(content=parts, **spelled)
