"""Fail-over with real Sentinel processes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio

from trio_agentapp.redis import Backoff, LinkDown, LinkError, RedisClient, RedisListener
from trio_agentapp.testing.redis_server import RedisServer

Until = Callable[..., Awaitable[None]]

FAST = Backoff(0.005, 0.05)


async def test_fail_over(kind: str, until: Until) -> None:
    gaps: list[int] = []
    heard: list[bytes] = []
    async with (
        RedisServer(kind, password="secret") as master,
        RedisServer(kind, password="secret", replica_of=master) as replica,
        RedisServer(kind, sentinel_of=master) as sentinel,
    ):
        # The first Sentinel of the list does not answer: the second is asked.
        url = f"redis+sentinel://:secret@localhost:1,localhost:{sentinel.port}/main"
        await knows_replica(sentinel)
        listener = RedisListener(url, backoff=FAST)
        async with RedisClient.open(url, backoff=FAST) as client, trio.open_nursery() as nursery:
            await nursery.start(
                partial(listener.listen, deliver=lambda _, m: heard.append(m), on_gap=lambda: gaps.append(1))
            )
            await listener.subscribe("c")
            assert client.server is not None
            assert client.server.address == f"127.0.0.1:{master.port}"
            first = client.server_run_id
            assert await client.call("SET", "a", 1) is True
            assert await client.call("WAIT", 1, 1000) == 1

            await master.kill()

            with trio.fail_after(15):
                while True:
                    try:
                        await client.call("SET", "a", 2, timeout=0.5)
                    except LinkError:
                        continue
                    break
            assert client.server.address == f"127.0.0.1:{replica.port}"
            assert client.server_run_id != first
            await until(lambda: len(gaps) == 2)
            assert await client.call("PUBLISH", "c", "x") == 1
            await until(lambda: heard == [b"x"])
            nursery.cancel_scope.cancel()


async def test_what_sentinels_call_a_master_has_to_be_one(kind: str) -> None:
    """They may be behind the times: a server that has been demoted is not talked to."""
    async with (
        RedisServer(kind) as master,
        RedisServer(kind, replica_of=master) as replica,
        RedisServer(kind, sentinel_of=replica) as sentinel,
    ):
        with pytest.raises(LinkDown, match=r"it is a slave, not the master|No Sentinel"):
            async with RedisClient.open(
                f"redis+sentinel://localhost:{sentinel.port}/main", backoff=FAST, start_timeout=0.3
            ):
                pass


async def test_a_service_that_no_sentinel_knows(kind: str) -> None:
    async with RedisServer(kind) as master, RedisServer(kind, sentinel_of=master, password="s") as sentinel:
        base = f"redis+sentinel://localhost:{sentinel.port}"
        async with RedisClient.open(f"{base}/main?sentinel_password=s") as client:
            assert await client.call("PING") is True
        with pytest.raises(LinkDown, match=r"No Sentinel of .* knows a healthy master"):
            async with RedisClient.open(f"{base}/other?sentinel_password=s", start_timeout=0.3, backoff=FAST):
                pass
        with pytest.raises(LinkDown, match=r"(?i)auth|password"):
            async with RedisClient.open(f"{base}/main", start_timeout=0.3, backoff=FAST):
                pass


async def knows_replica(sentinel: RedisServer) -> None:
    """Sentinels learn of replicas from the master, a while after the start."""
    async with RedisClient.open(sentinel.url) as client:
        with trio.fail_after(30):
            while (await client.call("SENTINEL MASTERS"))["main"]["num-slaves"] == 0:
                await trio.sleep(0.05)
