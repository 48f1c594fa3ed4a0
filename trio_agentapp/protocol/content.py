"""Content: the parts a message is made of. Types and fields: docs/reference/wire.md.

Handlers yield these objects. `delta=True` appends to the open part of the same type; `delta=False` is a complete
part.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeAlias, get_args

import attrs

__all__ = [
    "AudioContent",
    "CONTENT_TYPES",
    "Content",
    "ContentType",
    "DataContent",
    "FileContent",
    "ImageContent",
    "RefusalContent",
    "TextContent",
    "VideoContent",
    "make_content",
    "payload_of",
]

ContentType: TypeAlias = Literal["text", "data", "image", "audio", "video", "file", "refusal"]
CONTENT_TYPES: tuple[ContentType, ...] = get_args(ContentType)


def _text(value: str | None) -> str:
    # Model clients pass None for "no text yet".
    return "" if value is None else value


@attrs.frozen
class TextContent:
    """Text."""

    type: ClassVar[ContentType] = "text"
    text: str = attrs.field(default="", converter=_text)
    delta: bool = False


@attrs.frozen
class DataContent:
    """Any JSON value. Tool calls and their outputs are sent as data.

    Deltas of an object are merged key by key: a string is appended to a string, any other value replaces the
    earlier one, and None changes nothing. Each delta of a tool call may repeat `call_id` and `name`; the first
    value that is not empty stays.
    """

    type: ClassVar[ContentType] = "data"
    data: Any = None
    delta: bool = False


@attrs.frozen
class ImageContent:
    """An image, by URL (`https:` or `data:`)."""

    type: ClassVar[ContentType] = "image"
    delta: ClassVar[bool] = False
    image_url: str | None = None


@attrs.frozen
class AudioContent:
    """Audio as base64 text, and the name of its format, such as `wav`. Deltas append to `data`."""

    type: ClassVar[ContentType] = "audio"
    data: str = attrs.field(default="", converter=_text)
    format: str | None = None
    delta: bool = False


@attrs.frozen
class VideoContent:
    """A video, by URL."""

    type: ClassVar[ContentType] = "video"
    delta: ClassVar[bool] = False
    video_url: str | None = None


@attrs.frozen
class FileContent:
    """A file: by URL, by the id under which it is stored, or as base64 text."""

    type: ClassVar[ContentType] = "file"
    delta: ClassVar[bool] = False
    file_url: str | None = None
    file_id: str | None = None
    filename: str | None = None
    file_data: str | None = None


@attrs.frozen
class RefusalContent:
    """The agent's refusal to answer, as text."""

    type: ClassVar[ContentType] = "refusal"
    refusal: str = attrs.field(default="", converter=_text)
    delta: bool = False


Content: TypeAlias = (
    TextContent | DataContent | ImageContent | AudioContent | VideoContent | FileContent | RefusalContent
)

CLASSES: dict[ContentType, type[Content]] = {
    "text": TextContent,
    "data": DataContent,
    "image": ImageContent,
    "audio": AudioContent,
    "video": VideoContent,
    "file": FileContent,
    "refusal": RefusalContent,
}
FIELDS: dict[ContentType, tuple[str, ...]] = {
    kind: tuple(field.name for field in attrs.fields(cls) if field.name != "delta") for kind, cls in CLASSES.items()
}
"""The payload fields of each type, in the order in which they are sent."""


GROWING: frozenset[ContentType] = frozenset({"text", "data", "audio", "refusal"})
"""The types that may be sent in deltas."""


def payload_of(content: Content) -> dict[str, Any]:
    """Return the fields of a content object without `type` and `delta`, in the order in which they are sent."""
    return {name: getattr(content, name) for name in FIELDS[content.type]}


def make_content(kind: ContentType, payload: dict[str, Any]) -> Content:
    """Build a content object from its type and payload fields, the reverse of `payload_of`."""
    return CLASSES[kind](**payload)
