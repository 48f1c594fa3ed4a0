"""Images, audio, video and files: by URL, or as base64 text."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Source", "source_of"]


class Source(NamedTuple):
    """Where a medium is: `url`, or `data`, which is base64 text. The other one is empty."""

    url: str
    data: str
    media_type: str


def source_of(value: str | None, media_type: str) -> Source:
    """Read a URL, a `data:` URL or base64 text; `media_type` is used for data without a type of its own."""
    value = value or ""
    if value.startswith("data:"):
        head, _, data = value.partition(",")
        return Source("", data, head[5:].partition(";")[0] or media_type)
    return Source(value, "", media_type) if "://" in value else Source("", value, media_type)
