"""Items: what a handler may yield, checked and copied before any of it becomes an event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ItemError, ValidationError
from .content import CONTENT_TYPES, Content, TextContent, make_content, payload_of
from .events import mass
from .message import MESSAGE_TYPES, Message
from .payload import clean_text, is_half, plain_json
from .structure import Faults, content_from, is_identifier, message_from

__all__ = ["mass_of", "plain_content", "plain_item", "plain_message"]


def plain_item(item: Any, *, growing: bool = False) -> str | Content | Message | None:
    """Return a copy of an item that can be sent; a dict becomes the content or message that it describes.

    `growing`: more of the text may follow, so half of a surrogate pair at its end is left out until then. The
    result shares nothing mutable with the item. Raises ItemError, which names the type or place at fault.
    """
    if item is None:
        return None
    if isinstance(item, str):
        return clean_text(item)
    if isinstance(item, Content):
        return plain_content(item)
    if isinstance(item, Message):
        return plain_message(item, growing=growing)
    if isinstance(item, Mapping):
        return _from_dict(dict(item), growing=growing)
    raise ItemError(
        "a handler may yield str, (msg, last), Message, content objects or dicts, not " + type(item).__name__
    )


def mass_of(item: str | Content | Message | None) -> int:
    """Estimate the bytes of the payload of an item, without the JSON around it."""
    if item is None:
        return 0
    if isinstance(item, str):
        return len(item) if item.isascii() else len(item.encode())
    if isinstance(item, TextContent):
        return mass_of(item.text)
    if isinstance(item, Message):
        own = (item.message, item.usage, item.metadata, item.extra)
        return sum(map(mass_of, item.content)) + sum(mass(each) for each in own if each is not None)
    return mass(payload_of(item))


def plain_content(content: Any, *, growing: bool = False) -> Content:
    """Return a copy of a content object that can be sent. Raises ItemError if a field cannot."""
    if not isinstance(content, Content):
        raise ItemError(f"the content of a message must be content objects, not {type(content).__name__}")
    payload: dict[str, Any] = {}
    for name, value in payload_of(content).items():
        if content.type == "data":
            payload[name] = plain_json(value, "$.data")
        else:
            whole = not (growing and isinstance(value, str) and is_half(value))
            payload[name] = _plain_text(value if whole else value[:-1], f"{type(content).__name__}.{name}")
    if content.delta:
        payload["delta"] = True
    return make_content(content.type, payload)


def plain_message(message: Message, *, growing: bool = False) -> Message:
    """Return a copy of a message that can be sent. Raises ItemError if a field cannot."""
    if message.id is not None and is_identifier(message.id):
        raise ItemError("Message.id must be a str of 1 to 256 characters without control characters")
    return Message(
        role=message.role,
        type=message.type,
        content=[plain_content(part, growing=growing) for part in message.content],
        id=message.id,
        code=_plain_text(message.code, "Message.code"),
        message=_plain_text(message.message, "Message.message"),
        usage=_plain_object(message.usage, "usage"),
        metadata=_plain_object(message.metadata, "metadata"),
        extra=_plain_object(message.extra, "extra") or {},
    )


def _plain_text(value: Any, what: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ItemError(f"{what} must be a str, not {type(value).__name__}")
    return clean_text(value)


def _plain_object(value: Any, what: str) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ItemError(f"Message.{what} must be a mapping, not {type(value).__name__}")
    copy: dict[str, Any] = plain_json(value, f"$.{what}")
    return copy


def _from_dict(item: dict[str, Any], *, growing: bool) -> Content | Message:
    faults = Faults()
    kind = item.get("type")
    found: Content | Message | None = None
    try:
        if kind in CONTENT_TYPES and "role" not in item:
            found = content_from(item, "$", faults)
        elif kind in MESSAGE_TYPES or "role" in item or (isinstance(kind, str) and "content" in item):
            found = message_from(item, "$", faults, speaker="assistant")
        else:
            faults.add("$", 'a dict needs a "role", or the "type" of a message or content')
        faults.settle()
    except ValidationError as error:
        raise ItemError(f"a handler yielded a dict that is neither a message nor content: {error.detail}") from None
    return plain_message(found, growing=growing) if isinstance(found, Message) else plain_content(found)
