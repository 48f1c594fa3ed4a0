"""Parts of messages as both protocols of OpenAI's clients show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...protocol.events import ContentEvent, MessageEvent
from ...protocol.payload import json_text

__all__ = ["call_data", "part_text"]


def part_text(event: ContentEvent) -> str:
    """Return a part as text. Pictures and files become links in Markdown, data becomes JSON."""
    if event.payload is None:
        return event.text
    payload = event.payload
    match event.type:
        case "image":
            return f"![image]({payload.get('image_url')})"
        case "video":
            return f"[video]({payload.get('video_url')})"
        case "file":
            name = payload.get("filename") or payload.get("file_id") or "file"
            return f"[{name}]({payload.get('file_url') or payload.get('file_data') or payload.get('file_id')})"
        case "audio":
            return f"[audio](data:audio/{payload.get('format') or 'wav'};base64,{payload.get('data')})"
        case "refusal":
            return str(payload.get("refusal") or "")
    return json_text(payload.get("data"))


def call_data(event: MessageEvent) -> Mapping[str, Any]:
    """Return the data of a tool call, of an output, or of another message that is made of data."""
    for part in event.content or ():
        if part.type == "data" and isinstance(part.data, Mapping):
            return part.data
    return {}
