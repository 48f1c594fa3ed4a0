"""The request of the app: quart-trio's, without what most requests never wait for."""

from __future__ import annotations

from typing import Any

from quart_trio.wrappers import TrioRequest
from quart_trio.wrappers.request import TrioBody

from ..late import LateEvent, LateLock

__all__ = ["LeanRequest"]


class _Body(TrioBody):
    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        super().__init__(expected_content_length, max_content_length)
        late: Any = self
        late._complete, late._has_data = LateEvent(), LateEvent()


class LeanRequest(TrioRequest):
    """The `request_class` of the app. It lives as long as its stream."""

    body_class = _Body
    lock_class = LateLock  # type: ignore[assignment]
