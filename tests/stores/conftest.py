"""Places where things are kept, and stores over them; one Redis for all tests of the folder."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from trio_agentapp.stores import Stores, open_stores
from trio_agentapp.testing.redis_server import RedisServer

_numbers = itertools.count()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer("valkey")
    trio.run(server.__aenter__)
    try:
        yield server
    finally:
        trio.run(server.aclose)


@attrs.frozen
class Place:
    """One place, which several nodes may open."""

    kind: str
    url: str | None
    prefix: str

    @asynccontextmanager
    async def open(self, nodes: int = 1) -> AsyncIterator[list[Stores]]:
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(open_stores(self.url, prefix=self.prefix)) for _ in range(nodes)]


def place_of(kind: str, request: pytest.FixtureRequest, folder: Path) -> Place:
    number = next(_numbers)
    url = None
    if kind == "sqlite":
        url = f"sqlite:///{folder}/{number}.db"
    elif kind == "redis":
        url = request.getfixturevalue("redis_server").url
    return Place(kind, url, f"t{os.getpid()}-{number}")


@pytest.fixture(params=["memory", "sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return place_of(request.param, request, tmp_path)


@pytest.fixture(params=["sqlite", "redis"])
def shared_place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """One that several processes can share."""
    return place_of(request.param, request, tmp_path)


@pytest.fixture
async def stores(place: Place) -> AsyncIterator[Stores]:
    async with place.open() as [stores]:
        yield stores


class InTurn:
    """Two nodes as one store: each call goes to the other one."""

    def __init__(self, stores: list[Any]) -> None:
        self._stores = itertools.cycle(stores)

    def __getattr__(self, name: str) -> Any:
        return getattr(next(self._stores), name)
