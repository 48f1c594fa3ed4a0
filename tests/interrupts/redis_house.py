"""What the tests of the Redis backend share: short leases, servers, and backends that are being served."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import attrs
import trio

from trio_agentapp.abc import Granted, Lease
from trio_agentapp.interrupts.redis import RedisInterruptBackend
from trio_agentapp.protocol.ids import SessionKey, new_run_id, new_session_id
from trio_agentapp.protocol.lifecycle import Cause, Ending
from trio_agentapp.protocol.timings import Timings
from trio_agentapp.redis import RedisClient
from trio_agentapp.redis.serving import serving_in_background
from trio_agentapp.testing.redis_server import RedisServer

TIMINGS = Timings(
    lease=1.5,
    heartbeat=0.2,
    cutoff=0.7,
    offline_cleanup=0.4,
    margin=0.4,
    reaper=0.3,
    call_timeout=0.4,
    call_retry=0.1,
)

LONG = attrs.evolve(TIMINGS, lease=15.0, reaper=3600.0)
"""No lease ends during a test, and no reaper looks."""

NO_REAPER = attrs.evolve(
    TIMINGS, lease=0.8, heartbeat=0.1, cutoff=0.5, offline_cleanup=0.15, margin=0.15, reaper=3600.0
)
"""Leases end soon, and nobody looks but the test."""

WITHIN = 10.0
"""Seconds that a condition may take to come true; far more than it should."""

RETURNED = Ending(cause=Cause.RETURNED)

_numbers = itertools.count()


def fresh_prefix() -> str:
    return f"t{os.getpid()}-{next(_numbers)}"


@contextmanager
def old_server(kind: str) -> Iterator[RedisServer]:
    """A server for many tests: only the first ones have to wait until it is older than a lease."""
    server = RedisServer(kind)
    trio.run(server.__aenter__)
    try:
        yield server
    finally:
        trio.run(server.aclose)


@asynccontextmanager
async def serving(backend: RedisInterruptBackend, *, settled: bool = True) -> AsyncIterator[RedisInterruptBackend]:
    """Serve a backend; `settled`: wait until it may start runs."""
    async with serving_in_background(backend.serve):
        if settled:
            await until(lambda: backend.trouble is None, WITHIN)
        yield backend


@asynccontextmanager
async def open_backend(
    server: RedisServer, *, prefix: str = "", timings: Timings = TIMINGS, port: int | None = None
) -> AsyncIterator[RedisInterruptBackend]:
    backend = RedisInterruptBackend(server.url_for(port=port), prefix=prefix or fresh_prefix(), timings=timings)
    if timings is LONG:
        backend._quarantine._lease = 0.0  # it would be as long as the lease, and has tests of its own
    async with serving(backend):
        yield backend


async def until(condition: Callable[[], object], within: float = WITHIN) -> None:
    """Wait for a condition of the outer world: looked at again and again, and never for a fixed time."""
    with trio.fail_after(within):
        while not condition():
            await trio.sleep(0.005)


async def until_async(condition: Callable[[], Awaitable[object]], within: float = WITHIN) -> None:
    with trio.fail_after(within):
        while not await condition():
            await trio.sleep(0.005)


def fresh_lease(key: SessionKey | None = None, **options: Any) -> Lease:
    options = {"run_id": new_run_id(), "node_id": "node-1", "nonce": new_run_id(), **options}
    return Lease(key=key or SessionKey("user-" + new_session_id(), new_session_id()), **options)


async def own(backend: Any, lease: Lease | None = None) -> Lease:
    lease = lease or fresh_lease()
    answer = await backend.claim(lease)
    assert isinstance(answer, Granted), answer
    return attrs.evolve(lease, token=answer.token)


class Probe:
    """Looks at what is in the server, without any of our scripts."""

    def __init__(self, client: RedisClient, prefix: str) -> None:
        self.client = client
        self.prefix = prefix

    async def keys(self) -> set[str]:
        """Without the prefix."""
        names = await self.client.call("KEYS", "*")
        start = f"{self.prefix}:"
        return {name.decode().removeprefix(start) for name in names if name.decode().startswith(start)}

    async def hash(self, key: str) -> dict[str, str]:
        fields = await self.client.call("HGETALL", f"{self.prefix}:{key}")
        return {name.decode(): value.decode() for name, value in fields.items()}

    async def session(self, key: SessionKey) -> dict[str, str]:
        return await self.hash(f"{{{key.digest}}}:s")

    async def record(self, lease: Lease) -> dict[str, str]:
        return await self.hash(f"{{{lease.key.digest}}}:r:{lease.run_id}")

    async def time_left(self, key: str) -> float:
        """Seconds; -0.001: it lives for ever."""
        return int(await self.client.call("PTTL", f"{self.prefix}:{key}")) / 1000

    async def indexed(self, key: SessionKey) -> float | None:
        """When the reaper will look at a session, in seconds from now."""
        seconds, micros = await self.client.call("TIME")
        shard = f"{self.prefix}:lease:{int(key.digest[0], 16)}"
        score = await self.client.call("ZSCORE", shard, key.digest)
        return None if score is None else float(score) / 1000 - (seconds + micros / 1e6)

    async def wait_expired(self, key: SessionKey) -> None:
        """Until the server's own clock says that the lease of a session has ended."""

        async def expired() -> bool:
            seconds, micros = await self.client.call("TIME")
            return seconds * 1000 + micros // 1000 >= int((await self.session(key))["exp"])

        await until_async(expired)


@asynccontextmanager
async def open_probe(server: RedisServer, backend: RedisInterruptBackend) -> AsyncIterator[Probe]:
    async with RedisClient.open(server.url) as client:
        yield Probe(client, backend.layout.prefix)
