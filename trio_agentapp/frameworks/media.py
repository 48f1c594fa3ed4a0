"""Images, sounds, videos and files, between our content and the blocks of frameworks."""

from __future__ import annotations

import mimetypes
from typing import Literal, TypeAlias

import attrs

from ..protocol.content import AudioContent, Content, FileContent, ImageContent, VideoContent

__all__ = ["Kind", "Media"]

Kind: TypeAlias = Literal["image", "audio", "video", "file"]


@attrs.frozen
class Media:
    """One medium: by URL, or as base64 text."""

    kind: Kind
    media_type: str
    url: str | None = None
    data: str | None = None
    name: str | None = None

    @classmethod
    def of(cls, part: Content) -> Media:
        """Read content. A `data:` URL becomes base64 text, and text that is no URL is base64 text."""
        match part:
            case ImageContent(image_url=value):
                return cls._read("image", value, "image/png")
            case VideoContent(video_url=value):
                return cls._read("video", value, "video/mp4")
            case AudioContent(data=value, format=form):
                return cls._read("audio", value, f"audio/{form or 'wav'}")
            case FileContent(file_url=url, file_data=data, filename=name):
                return cls._read("file", url or data, "application/octet-stream", name)
        raise TypeError(f"{type(part).__name__} is not a medium")

    @classmethod
    def _read(cls, kind: Kind, value: str | None, media_type: str, name: str | None = None) -> Media:
        value = value or ""
        if value.startswith("data:"):
            head, _, data = value.partition(",")
            return cls(kind, head[5:].partition(";")[0] or media_type, data=data, name=name)
        if "://" in value:
            return cls(kind, mimetypes.guess_type(value)[0] or media_type, url=value, name=name)
        return cls(kind, media_type, data=value, name=name)

    @property
    def content(self) -> Content:
        url = self.url or f"data:{self.media_type};base64,{self.data or ''}"
        match self.kind:
            case "image":
                return ImageContent(url)
            case "video":
                return VideoContent(url)
            case "audio":
                return AudioContent(self.url or self.data or "", self.media_type.rpartition("/")[2] or None)
            case "file":
                return FileContent(file_url=self.url, file_data=None if self.url else self.data, filename=self.name)
