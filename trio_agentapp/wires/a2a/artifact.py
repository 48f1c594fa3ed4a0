"""An artifact of a task: one message of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from ...protocol.events import MessageEvent
from .parts import Part

__all__ = ["Artifact"]


@attrs.define
class Artifact:
    """What is known of one message of the answer."""

    id: str
    name: str | None = None
    description: str | None = None
    metadata: dict[str, Any] | None = None
    extensions: list[str] | None = None
    parts: dict[int, Part] = attrs.field(factory=dict)
    """By their places in the message. Empty if the task does not keep them."""
    pieces: dict[int, list[str]] = attrs.field(factory=dict)
    """The text of parts that are not complete."""
    streamed: set[int] = attrs.field(factory=set)
    """The places of parts that were sent in deltas."""
    sent: bool = False
    """Whether something of it was sent."""

    def describe(self, event: MessageEvent) -> None:
        """Take name, description, extensions and metadata from the message."""
        rest = dict(event.metadata or {})
        named = {**(event.extra or {}), **rest}
        for field in ("name", "description"):
            if isinstance(named.get(field), str):
                setattr(self, field, named[field])
                rest.pop(field, None)
        extensions = rest.get("extensions")
        if isinstance(extensions, list) and all(isinstance(each, str) for each in extensions):
            self.extensions = rest.pop("extensions")
        if event.status == "incomplete":
            rest["status"] = "incomplete"
        self.metadata = rest or None

    def whole(self) -> dict[str, Any] | None:
        """The artifact with all of its parts; None if it has none."""
        parts = {**self.parts, **{place: {"text": "".join(text)} for place, text in self.pieces.items()}}
        return self.with_parts([parts[place] for place in sorted(parts)]) if parts else None

    def with_parts(self, parts: Sequence[Part]) -> dict[str, Any]:
        found: dict[str, Any] = {"artifactId": self.id}
        for name in ("name", "description", "metadata", "extensions"):
            if (value := getattr(self, name)) is not None:
                found[name] = value
        found["parts"] = list(parts)
        return found
