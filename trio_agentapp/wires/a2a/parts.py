"""Parts of A2A and content of this runtime, in both directions. The table: docs/reference/a2a.md."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...protocol.content import (
    AudioContent,
    Content,
    DataContent,
    FileContent,
    ImageContent,
    TextContent,
    VideoContent,
    payload_of,
)
from ...protocol.events import ContentEvent

__all__ = ["Part", "content_of", "part_of", "part_of_content"]

Part = dict[str, Any]
"""A part of A2A 1.0: one of `text`, `raw` (base64), `url` and `data`, with `mediaType`, `filename`, `metadata`."""

DATA_URL = re.compile(r"data:([^;,]*)((?:;[^;,]*)*?);base64,(.*)", re.DOTALL)
NAMED_AUDIO = {"mp3": "audio/mpeg", "pcm16": "audio/L16"}


def content_of(part: Part) -> Content:
    """Return the content of a part that was read and checked."""
    kind = part.get("mediaType", "")
    main = kind.split("/")[0]
    if "text" in part:
        return TextContent(part["text"])
    if "data" in part:
        return DataContent(part["data"])
    raw = part["raw"].translate(_STANDARD) if "raw" in part else None
    url = part["url"] if raw is None else f"data:{kind};base64,{raw}"
    if main == "image":
        return ImageContent(url)
    if main == "video":
        return VideoContent(url)
    if raw is None:
        return FileContent(file_url=url, filename=part.get("filename"))
    if main == "audio":
        return AudioContent(raw, format=kind.split("/")[-1])
    return FileContent(filename=part.get("filename"), file_data=url if kind else raw)


_STANDARD = str.maketrans("-_", "+/")


def part_of(event: ContentEvent) -> Part:
    """Return the part of a content event, as if it were complete."""
    if event.payload is None:
        return {"text": event.text}
    return _part(event.type, event.payload)


def part_of_content(content: Content) -> Part:
    """Return the part of a content object."""
    if isinstance(content, TextContent):
        return {"text": content.text}
    return _part(content.type, payload_of(content))


def parts_of(events: Sequence[ContentEvent]) -> list[Part]:
    return [part_of(event) for event in events]


def _part(kind: str, payload: Mapping[str, Any]) -> Part:
    match kind:
        case "text":
            return {"text": payload.get("text") or ""}
        case "data":
            return {"data": payload.get("data"), "mediaType": "application/json"}
        case "refusal":
            return {"text": payload.get("refusal") or "", "metadata": {"type": "refusal"}}
        case "audio":
            named = payload.get("format") or "wav"
            media = named if "/" in named else NAMED_AUDIO.get(named, f"audio/{named}")
            return {"raw": payload.get("data") or "", "mediaType": media}
        case "image":
            return _linked(payload.get("image_url") or "", "image/*")
        case "video":
            return _linked(payload.get("video_url") or "", "video/*")
    filename = payload.get("filename")
    named = {"filename": filename} if filename else {}
    if payload.get("file_data"):
        return {**_raw(payload["file_data"], filename), **named}
    if payload.get("file_url"):
        return {**_linked(payload["file_url"], "application/octet-stream", filename), **named}
    return {"data": {"fileId": payload.get("file_id")}, "mediaType": "application/json", **named}


def _raw(data: str, filename: str | None) -> Part:
    if found := DATA_URL.fullmatch(data):
        return {"raw": found[3], "mediaType": found[1] or "application/octet-stream"}
    return {"raw": data, "mediaType": _guessed(filename or "", "application/octet-stream")}


def _linked(url: str, unknown: str, filename: str | None = None) -> Part:
    if found := DATA_URL.fullmatch(url):
        return {"raw": found[3], "mediaType": found[1] or unknown}
    return {"url": url, "mediaType": _guessed(filename or url.split("?")[0].split("#")[0], unknown)}


def _guessed(name: str, unknown: str) -> str:
    return mimetypes.guess_type(name)[0] or unknown
