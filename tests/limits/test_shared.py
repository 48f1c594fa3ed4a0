"""Token buckets over a real Redis: several nodes count together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from trio_agentapp.interrupts.redis import RedisInterruptBackend
from trio_agentapp.limits import Rates
from trio_agentapp.limits.shared import AT_ONCE, share_forever
from trio_agentapp.testing.faulty_proxy import FaultyProxy
from trio_agentapp.testing.redis_server import RedisServer


@asynccontextmanager
async def node(url: str, *limits: Rates, prefix: str = "agentapp") -> AsyncIterator[RedisInterruptBackend]:
    backend = RedisInterruptBackend(url, prefix=prefix)
    async with trio.open_nursery() as nursery:
        await nursery.start(backend.serve)
        nursery.start_soon(share_forever, backend.link, backend.layout, limits)
        await trio.testing.wait_all_tasks_blocked()
        yield backend
        nursery.cancel_scope.cancel()


async def told(*limits: Rates) -> None:
    """Wait until all nodes have told each other what they have given out."""
    with trio.fail_after(5):
        for _ in range(2):
            for limit in limits:
                before = limit.taken
                while limit.taken is before or limit.taken:
                    await trio.sleep(0.01)


async def test_the_rate_holds_over_all_nodes() -> None:
    first, second, frames = Rates("requests", 0.1, size=10), Rates("requests", 0.1, size=10), Rates("frames", 0.1)
    async with RedisServer() as server, node(server.url, first, frames) as backend, node(server.url, second):
        assert [second.take("a"), second.take("b")] == [0, 0]
        assert [first.take("a") for _ in range(9)] == [0.0] * 9
        await told(first, second)
        # The second node knows nothing new of "a" until it gets its next request.
        second.take("a")
        await told(first, second)
        assert second.take("a") > 0, "all tokens are used"
        assert second.take("b") == 0, "another principal has its own"
        assert frames.take("a") == 0, "another limit has its own"
        [names] = await backend.link.ask(("KEYS", "agentapp:*rate*"))
        assert len(names) == 2
        assert not any(name.rpartition(b":")[2] == b"a" for name in names), "no key shows a principal"
        [expiry] = await backend.link.ask(("PTTL", names[0]))
        assert 0 < expiry <= 110_000


async def test_more_principals_than_one_call_takes() -> None:
    limit, other = Rates("requests", 0.01, size=2), Rates("requests", 0.01, size=2)
    names = [f"user {number}" for number in range(AT_ONCE + 100)]
    async with RedisServer() as server, node(server.url, limit), node(server.url, other):
        for name in names:
            limit.take(name)
        await told(limit)
        for name in names:
            other.take(name)
        await told(other)
        assert all(other.take(name) for name in names)


async def test_without_redis_each_node_limits_by_itself_and_returns_to_all() -> None:
    limit = Rates("requests", 0.1, size=5)
    async with (
        RedisServer() as server,
        FaultyProxy.open(server.port) as proxy,
        node(f"redis://127.0.0.1:{proxy.port}", limit) as backend,
    ):
        proxy.cut()
        with trio.fail_after(5):
            while backend.link.client.connected:
                await trio.sleep(0.01)
        assert [limit.take("a") for _ in range(6)].count(0.0) == 5
        await told(limit)
        assert limit.take("a") > 0
        proxy.restore()
        with trio.fail_after(10):
            while not backend.link.client.connected:
                await trio.sleep(0.01)
        assert limit.take("b") == 0
        await told(limit)
        assert await backend.link.ask(("EXISTS", backend.layout.rate("requests", "b"))) == [1]
