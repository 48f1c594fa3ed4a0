"""The request class of the app: quart-trio's, made cheaper for requests whose body has arrived already."""

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

    @property
    def is_whole(self) -> bool:
        """Whether the whole body has arrived and is not too large."""
        return self._must_raise is None and self._complete.is_set()

    @property
    def so_far(self) -> bytes:
        return bytes(self._data)


class LeanRequest(TrioRequest):
    """The `request_class` of the app. A request lives as long as the stream of its response."""

    body_class = _Body
    lock_class = LateLock  # type: ignore[assignment]

    async def get_whole(self) -> bytes:
        """Return the body as `get_data` does. A body that came with the head needs no scope and no checkpoint."""
        body = self.body
        if isinstance(body, _Body) and body.is_whole:
            return body.so_far
        return await self.get_data(True, False, False)
