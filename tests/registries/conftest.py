"""Real places for agents: one Redis for all tests, a Nacos of our own for each test, mDNS on the loopback."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import pytest
import trio

from trio_agentapp.abc import A2ATransportsProperties, RegisteredAgent
from trio_agentapp.registries import DnsSdRegistry, NacosRegistry, RedisRegistry
from trio_agentapp.testing.redis_server import RedisServer

from .nacos_server import NacosServer, nacos_server

WITHIN = 20.0
"""Seconds that a condition may take to come true; far more than it should."""

NAME = "Friday"
CARD = {"name": NAME, "description": "Helps.", "version": "1.0.0", "skills": []}

_numbers = itertools.count()

Make: TypeAlias = Callable[[], Any]


def transport(port: int = 8090) -> A2ATransportsProperties:
    return A2ATransportsProperties("127.0.0.1", port, "/a2a")


async def until(condition: Callable[[], object], within: float = WITHIN, *, every: float = 0.005) -> None:
    with trio.fail_after(within):
        while not condition():
            await trio.sleep(every)


async def until_async(condition: Callable[[], Awaitable[object]], within: float = WITHIN) -> None:
    with trio.fail_after(within):
        while not await condition():
            await trio.sleep(0.02)


async def watched(changes: AsyncIterator[Sequence[RegisteredAgent]], count: int) -> Sequence[RegisteredAgent]:
    """Read changes until there are so many instances."""
    with trio.fail_after(3 * WITHIN):
        async for agents in changes:
            if len(agents) == count:
                return agents
    raise AssertionError("there are no more changes")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer("valkey")
    trio.run(server.__aenter__)
    try:
        yield server
    finally:
        trio.run(server.aclose)


@pytest.fixture
def prefix() -> str:
    return f"t{os.getpid()}-{next(_numbers)}"


@pytest.fixture
async def nacos() -> AsyncIterator[NacosServer]:
    async with nacos_server() as server:
        yield server


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("NACOS_", "A2A_REGISTRY_")):
            monkeypatch.delenv(name)


def loopback() -> DnsSdRegistry:
    return DnsSdRegistry(interfaces=["127.0.0.1"], ttl=2.0, settle=0.5)


@asynccontextmanager
async def opened(registry: Any) -> AsyncIterator[Any]:
    async with registry.open():
        yield registry


@pytest.fixture(params=["redis", "nacos", "dns-sd"])
async def make(request: pytest.FixtureRequest, prefix: str, redis_server: RedisServer) -> AsyncIterator[Make]:
    """Opens one more registry of a kind over the same place."""
    if request.param == "redis":
        yield lambda: opened(RedisRegistry(redis_server.url, prefix=prefix))
    elif request.param == "nacos":
        async with nacos_server(expires_after=30.0) as server:
            yield lambda: opened(NacosRegistry(server.address, poll=0.1))
    else:
        yield lambda: opened(loopback())
