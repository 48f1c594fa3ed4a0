"""An output item while it is being written, and the part of it that grows."""

from __future__ import annotations

from typing import Any

import attrs

from ..growing_call import GrowingCall
from .items import Item

__all__ = ["OpenItem", "Part"]


@attrs.define
class Part:
    """The part of a message that is being written."""

    index: int
    """Its place among the parts."""
    place: dict[str, Any]
    """The fields that name it in events: `item_id`, `output_index` and `content_index`."""
    head: bytes
    """The frame of a delta, up to its number."""
    shown: Item
    """The part as `content_part.added` has shown it."""
    pieces: list[str] = attrs.field(factory=list)

    def so_far(self) -> Item:
        return {**self.shown, "refusal" if "refusal" in self.shown else "text": "".join(self.pieces)}


@attrs.define
class OpenItem:
    kind: str
    """As `items.kind_of` gives it."""
    id: str
    place: int = -1
    """Its place in the output. Clients want places in turn, so it gets one when the client sees it begin."""
    item: Item | None = None
    """The item as `output_item.added` has shown it; None: it was not sent."""
    part: Part | None = None
    parts: list[Item] = attrs.field(factory=list)
    """Its completed parts."""
    call: GrowingCall = attrs.field(factory=GrowingCall)
    """If it is a tool call: what of it has arrived."""
