"""A Redis that the tests of records and messages share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import trio

from trio_agentapp.testing.redis_server import RedisServer

_numbers = itertools.count()


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    server = RedisServer("valkey")
    trio.run(server.__aenter__)
    yield server
    trio.run(server.aclose)


@pytest.fixture
def prefix() -> str:
    return f"t{next(_numbers)}"
