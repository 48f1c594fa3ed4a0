"""Content: the parts a message is made of. Types and fields: docs/reference/wire.md.

Handlers yield these objects. `delta=True` appends to the open part of the same type; `delta=False` is a whole
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
    # Model clients hand over None for "no text yet"; it means the same as the empty string.
    return "" if value is None else value


@attrs.frozen
class TextContent:
    """Words."""

    type: ClassVar[ContentType] = "text"
    text: str = attrs.field(default="", converter=_text)
    delta: bool = False


@attrs.frozen
class DataContent:
    """Any JSON value; a tool call and its output travel as one of these.

    Deltas of an object fold key by key: a string is appended to a string, anything else replaces what was
    there, None replaces nothing. `call_id` and `name` say which call it is in every delta; the first that is
    not empty stays.
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
    """Sound: base64 text and the name of its format, for instance `wav`. Deltas append to `data`."""

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
    """A file: by URL, by the id it is stored under, or as base64 text."""

    type: ClassVar[ContentType] = "file"
    delta: ClassVar[bool] = False
    file_url: str | None = None
    file_id: str | None = None
    filename: str | None = None
    file_data: str | None = None


@attrs.frozen
class RefusalContent:
    """Why the agent will not answer."""

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
"""The payload fields of each type, in the order of the wire."""


GROWING: frozenset[ContentType] = frozenset({"text", "data", "audio", "refusal"})
"""The types that know deltas; the others are whole or not at all."""


def payload_of(content: Content) -> dict[str, Any]:
    """The fields of a content object beside `type` and `delta`, in the order of the wire."""
    return {name: getattr(content, name) for name in FIELDS[content.type]}


def make_content(kind: ContentType, payload: dict[str, Any]) -> Content:
    """The whole content object of a type and its payload fields, the reverse of `payload_of`."""
    return CLASSES[kind](**payload)
