"""Parts of messages that front ends send, as content: texts, data, images, files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ItemError
from ..protocol.content import (
    AudioContent,
    Content,
    DataContent,
    FileContent,
    ImageContent,
    TextContent,
    VideoContent,
)
from ..protocol.payload import clean_text, plain_json
from ..protocol.structure import Faults, is_string

__all__ = ["data_in", "medium_in", "text_in"]


def text_in(part: Mapping[str, Any], path: str, faults: Faults) -> TextContent | None:
    """Return the text of a part; None after noting that it has none."""
    text = part.get("text", "")
    return TextContent(clean_text(text)) if faults.check(f"{path}.text", text, is_string) else None


def data_in(value: Any, path: str, faults: Faults) -> DataContent | None:
    """Return a JSON value as content; None after noting that it cannot be kept."""
    try:
        return DataContent(plain_json(value))
    except ItemError as error:
        faults.add(path, str(error))
        return None


def medium_in(
    kind: str, media_type: str, *, url: str | None = None, data: str | None = None, filename: Any = None
) -> Content:
    """Return an image, a video, audio, or else a file, by its URL or by its bytes as base64 text."""
    address = url if data is None else f"data:{media_type or 'application/octet-stream'};base64,{data}"
    if kind == "image":
        return ImageContent(address)
    if kind == "video":
        return VideoContent(address)
    if kind == "audio" and data is not None:
        return AudioContent(data, media_type.partition("/")[2] or None)
    name = filename if isinstance(filename, str) else None
    return FileContent(file_data=data, filename=name) if data is not None else FileContent(url, filename=name)
