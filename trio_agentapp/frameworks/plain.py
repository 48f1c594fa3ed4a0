"""Handlers written for asyncio, without a framework: `framework="asyncio"`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..abc.frameworks import FrameworkAdapter, ItemReader
from ..protocol.message import Message

__all__ = ["AsyncioAdapter"]


class _Reader(ItemReader):
    def read(self, item: object) -> Iterable[object]:
        return (item,)


class AsyncioAdapter(FrameworkAdapter):
    """Passes messages and items as they are."""

    name = "asyncio"

    def messages(self, messages: Sequence[Message]) -> Sequence[Message]:
        return messages

    def reader(self) -> ItemReader:
        return _Reader()
