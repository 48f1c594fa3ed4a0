"""Parts of A2A messages and artifacts, to and from content objects."""

from __future__ import annotations

import base64
import binascii
import mimetypes
from collections.abc import Mapping
from typing import Any

from ...errors import ItemError
from ...protocol.content import (
    AudioContent,
    Content,
    DataContent,
    FileContent,
    ImageContent,
    RefusalContent,
    TextContent,
    VideoContent,
)
from ..content_in import medium_in

__all__ = ["content_of_part", "part_of_content"]

Json = dict[str, Any]

WRAPPED = "data_part_compat"
"""The SDKs mark data of 0.3 that is no object in 1.0 so, and write it as `{"value": data}`."""


def part_of_content(content: Content, *, old: bool) -> Json:
    """Convert a content object into a part of an A2A message. `old`: in the form of version 0.3.

    Raises ItemError for a file that is named by an id of this app: the other agent cannot read it.
    """
    if isinstance(content, TextContent):
        return _spelled({"text": content.text}, old=old)
    if isinstance(content, RefusalContent):
        return _spelled({"text": content.refusal}, old=old)
    if isinstance(content, DataContent):
        return _spelled({"data": content.data}, old=old)
    if isinstance(content, ImageContent):
        return _spelled(_located(content.image_url, "image"), old=old)
    if isinstance(content, VideoContent):
        return _spelled(_located(content.video_url, "video"), old=old)
    if isinstance(content, AudioContent):
        return _spelled({"raw": content.data, "mediaType": f"audio/{content.format or 'wav'}"}, old=old)
    return _spelled(_file(content), old=old)


def _file(content: FileContent) -> Json:
    if content.file_data is not None:
        part: Json = {"raw": content.file_data}
    elif content.file_url is not None:
        part = {"url": content.file_url}
    else:
        raise ItemError("a file can be sent to another agent by its URL or its data, not by file_id")
    if content.filename is not None:
        part["filename"] = content.filename
    kind, _ = mimetypes.guess_type(content.filename or content.file_url or "")
    return {**part, "mediaType": kind} if kind is not None else part


def _located(url: str | None, family: str) -> Json:
    """A part with the content at a URL. The content of a `data:` URL is sent itself."""
    if not url:
        raise ItemError(f"the {family} has no URL")
    if url.startswith("data:"):
        head, _, data = url[5:].partition(",")
        kind, _, encoding = head.partition(";")
        if encoding == "base64":
            return {"raw": data, "mediaType": kind or f"{family}/*"}
    kind_of_name, _ = mimetypes.guess_type(url.partition("?")[0])
    return {"url": url, "mediaType": kind_of_name or f"{family}/*"}


def _spelled(part: Json, *, old: bool) -> Json:
    if not old:
        return part
    if "text" in part:
        return {"kind": "text", **part}
    if "data" in part:
        # 0.3 allows objects only.
        data = part["data"]
        if isinstance(data, Mapping):
            return {"kind": "data", "data": dict(data)}
        return {"kind": "data", "data": {"value": data}, "metadata": {WRAPPED: True}}
    names = {"raw": "bytes", "url": "uri", "filename": "name", "mediaType": "mimeType"}
    return {"kind": "file", "file": {names[name]: value for name, value in part.items()}}


def content_of_part(part: Mapping[str, Any]) -> Content | None:
    """Return the content object of a part of either version; None for a part of an unknown kind."""
    if isinstance(text := part.get("text"), str):
        return TextContent(text)
    if "data" in part:
        data, metadata = part["data"], part.get("metadata")
        if isinstance(data, Mapping) and isinstance(metadata, Mapping) and metadata.get(WRAPPED) is True:
            data = data.get("value")
        return DataContent(data)
    file = part.get("file")
    if isinstance(file, Mapping):
        return _stored(file.get("bytes"), file.get("uri"), file.get("name"), file.get("mimeType"))
    return _stored(part.get("raw"), part.get("url"), part.get("filename"), part.get("mediaType"))


def _stored(raw: object, url: object, filename: object, kind: object) -> Content | None:
    data = _standard_base64(raw) if isinstance(raw, str) else None
    at = url if isinstance(url, str) else None
    if data is None and at is None:
        return None
    kind = kind if isinstance(kind, str) else ""
    return medium_in(kind.partition("/")[0], kind, url=at, data=data, filename=filename)


def _standard_base64(text: str) -> str | None:
    """The same bytes in the standard alphabet; Protobuf's JSON also has the URL-safe one. None: not base64."""
    if "-" in text or "_" in text:
        text = text.replace("-", "+").replace("_", "/")
    text += "=" * (-len(text) % 4)
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return text
