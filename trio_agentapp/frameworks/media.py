"""Where images, audio, videos and files are: at a URL, or in base64 text."""

from __future__ import annotations

import attrs

from ..protocol.content import AudioContent, Content, FileContent, ImageContent, VideoContent

__all__ = ["Media", "Source", "content_of", "source_of"]

Media = ImageContent | AudioContent | VideoContent | FileContent


@attrs.frozen
class Source:
    """A URL or base64 text, and the media type of the text."""

    url: str | None = None
    data: str | None = None
    media_type: str = ""


def source_of(part: Media) -> Source:
    """Return where a part of a message is. A `data:` URL is taken apart; other text without a scheme is base64."""
    match part:
        case ImageContent(image_url=value):
            media_type = "image/png"
        case VideoContent(video_url=value):
            media_type = "video/mp4"
        case AudioContent(data=value, format=form):
            media_type = f"audio/{form or 'wav'}"
        case FileContent():
            value, media_type = part.file_url or part.file_data, "application/octet-stream"
    value = value or ""
    if value.startswith("data:"):
        head, _, data = value.partition(",")
        return Source(data=data, media_type=head[5:].partition(";")[0] or media_type)
    return Source(url=value) if "://" in value else Source(data=value, media_type=media_type)


def content_of(kind: str, source: Source, filename: str | None = None) -> Content:
    """Return the content of the type `kind`: image, video, audio, or else a file."""
    url = source.url or f"data:{source.media_type};base64,{source.data or ''}"
    match kind:
        case "image":
            return ImageContent(url)
        case "video":
            return VideoContent(url)
        case "audio":
            return AudioContent(source.data or url, source.media_type.rpartition("/")[2] or None)
        case _:
            return FileContent(file_url=source.url, file_data=source.data, filename=filename)
