"""Content for frameworks: text, or an image, audio, a video or a file with a URL or base64 text."""

from __future__ import annotations

import base64
import mimetypes
from typing import Literal, TypeAlias
from urllib.parse import unquote_to_bytes

import attrs

from ..protocol.content import (
    AudioContent,
    Content,
    DataContent,
    FileContent,
    ImageContent,
    RefusalContent,
    TextContent,
    VideoContent,
)
from .tool_messages import text_of

__all__ = ["Kind", "Media", "text_or_media"]

Kind: TypeAlias = Literal["image", "audio", "video", "file"]


@attrs.frozen
class Media:
    """An image, a sound, a video or a file. It has a URL, or data as base64 text."""

    kind: Kind
    url: str | None = None
    data: str | None = None
    media_type: str = ""
    filename: str | None = None

    def content(self) -> Content:
        """Return the medium as a content part of a message."""
        url = self.url or f"data:{self.media_type};base64,{self.data or ''}"
        match self.kind:
            case "image":
                return ImageContent(url)
            case "video":
                return VideoContent(url)
            case "audio":
                return AudioContent(self.url or self.data, self.media_type.rpartition("/")[2] or None)
            case "file":
                data = None if self.url else self.data
                return FileContent(file_url=self.url, file_data=data, filename=self.filename)


def text_or_media(part: Content) -> str | Media:
    """Return the text or the medium of a content part.

    Data content becomes JSON text. A `data:` URL is split into media type and base64 data. A value that is not a
    URL is taken as base64 data.
    """
    match part:
        case TextContent(text=text) | RefusalContent(refusal=text):
            return text
        case DataContent(data=data):
            return text_of(data)
        case ImageContent(image_url=url):
            return _media("image", url, "image/png")
        case VideoContent(video_url=url):
            return _media("video", url, "video/mp4")
        case AudioContent(data=data, format=form):
            return _media("audio", data, f"audio/{form or 'wav'}")
        case FileContent(file_url=url, file_data=data, filename=name):
            return _media("file", url or data, "application/octet-stream", name)


def _media(kind: Kind, value: str | None, media_type: str, name: str | None = None) -> Media:
    value = value or ""
    if value.startswith("data:"):
        head, _, data = value[5:].partition(",")
        if not head.endswith(";base64"):
            data = base64.b64encode(unquote_to_bytes(data)).decode()
        return Media(kind, data=data, media_type=head.partition(";")[0] or media_type, filename=name)
    if "://" in value:
        return Media(kind, url=value, media_type=mimetypes.guess_type(value)[0] or media_type, filename=name)
    return Media(kind, data=value, media_type=media_type, filename=name)
