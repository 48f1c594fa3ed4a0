"""Subscriptions, and that no message is lost in silence."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from redis.exceptions import NoPermissionError

from trio_agentapp.redis import Backoff, LinkClosed, LinkDown, RedisClient, RedisListener
from trio_agentapp.testing.faulty_proxy import FaultyProxy
from trio_agentapp.testing.redis_server import RedisServer

Until = Callable[..., Awaitable[None]]

FAST = Backoff(0.001, 0.005)


class Ear:
    """Remembers, in order, what a listener said."""

    def __init__(self, url: str, **options: Any) -> None:
        self.listener = RedisListener(url, **{"backoff": FAST, **options})
        self.said: list[bytes | None] = []
        """Payloads, and None for a gap."""

    @property
    def gaps(self) -> int:
        return self.said.count(None)

    @asynccontextmanager
    async def open(self, *channels: str) -> AsyncIterator[RedisListener]:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(self.listener.listen, deliver=self.deliver, on_gap=self.on_gap))
            for channel in channels:
                await self.listener.subscribe(channel)
            yield self.listener
            nursery.cancel_scope.cancel()

    def deliver(self, channel: bytes, payload: bytes) -> None:
        self.said.append(payload)

    def on_gap(self) -> None:
        self.said.append(None)


async def test_messages_arrive_in_order(server: RedisServer, until: Until) -> None:
    ear = Ear(server.url)
    async with RedisClient.open(server.url) as client, ear.open("one", "two") as listener:
        assert listener.connected
        await client.pipeline([("PUBLISH", ("one", "two", "other")[n % 3], n) for n in range(300)])
        await until(lambda: len(ear.said) == 201)
        assert ear.said == [None, *(b"%d" % n for n in range(300) if n % 3 < 2)]


async def test_channels_come_and_go(server: RedisServer, until: Until) -> None:
    ear = Ear(server.url)
    async with RedisClient.open(server.url) as client, ear.open() as listener:
        await until(lambda: ear.said == [None])
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(listener.subscribe, f"c{number % 10}")
        assert [await client.call("PUBLISH", f"c{n}", n) for n in range(10)] == [1] * 10
        await until(lambda: len(ear.said) == 11)
        assert ear.gaps == 1  # returning was the report
        for number in range(9):
            listener.unsubscribe(f"c{number}".encode())
        listener.unsubscribe("never known")
        listener.unsubscribe("c9")
        await listener.subscribe("c9")
        channels: list[Any] = []
        while sorted(channels) != [b"c9"]:
            channels = await client.call("PUBSUB CHANNELS")
        await client.call("PUBLISH", "c9", "again")
        await until(lambda: ear.said[-1] == b"again")


async def test_nothing_is_delivered_after_unsubscribe(
    server: RedisServer, proxy: FaultyProxy, until: Until
) -> None:
    ear = Ear(server.url_for(port=proxy.port))
    async with RedisClient.open(server.url) as client, ear.open("a", "b") as listener:
        proxy.hold_replies()
        await client.pipeline([("PUBLISH", "a", "late"), ("PUBLISH", "b", "heard")])
        listener.unsubscribe("a")
        proxy.restore()
        await until(lambda: b"heard" in ear.said)
        assert b"late" not in ear.said


async def test_a_faulty_deliver_does_not_end_the_listener(
    server: RedisServer, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[bytes] = []

    def deliver(channel: bytes, payload: bytes) -> None:
        heard.append(payload)
        raise KeyError(payload)

    listener = RedisListener(server.url)
    async with RedisClient.open(server.url) as client, trio.open_nursery() as nursery:
        await nursery.start(partial(listener.listen, deliver=deliver, on_gap=lambda: None))
        await listener.subscribe("c")
        await client.pipeline([("PUBLISH", "c", "1"), ("PUBLISH", "c", "2")])
        await until(lambda: heard == [b"1", b"2"])
        assert sum("could not be delivered" in record.message for record in caplog.records) == 2
        nursery.cancel_scope.cancel()


async def test_a_gap_call_that_fails_is_repeated(server: RedisServer, until: Until) -> None:
    calls: list[int] = []

    def on_gap() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise LinkDown("the other connection is down too")

    listener = RedisListener(server.url)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(listener.listen, deliver=lambda *_: None, on_gap=on_gap))
        await until(lambda: len(calls) == 2)
        assert listener.gaps == 1
        nursery.cancel_scope.cancel()


async def test_each_lost_message_is_followed_by_a_gap(server: RedisServer, until: Until) -> None:
    """The subscription is killed every few milliseconds while numbers are published."""
    last = 2000
    said: list[tuple[int, int | None]] = []
    """Number of the connection; number that was heard, or None for a gap."""
    listener = RedisListener(server.url, backoff=FAST)

    def deliver(channel: bytes, payload: bytes) -> None:
        said.append((listener.connections, int(payload)))

    def on_gap() -> None:
        said.append((listener.connections, None))

    async with RedisClient.open(server.url) as client, trio.open_nursery() as nursery:
        await nursery.start(partial(listener.listen, deliver=deliver, on_gap=on_gap))
        await listener.subscribe("c")

        async def kill() -> None:
            while True:
                await client.call("CLIENT KILL", "TYPE", "pubsub")
                await trio.sleep(0.003)

        async with trio.open_nursery() as killing:
            killing.start_soon(kill)
            for number in range(last):
                await client.call("PUBLISH", "c", number)
            killing.cancel_scope.cancel()
        while not await client.call("PUBLISH", "c", last):
            await trio.sleep(0.002)
        await until(lambda: any(number == last for _, number in said))
        await until(lambda: any(gap is None and at == listener.connections for at, gap in said))
        nursery.cancel_scope.cancel()

    heard = [(at, number) for at, number in said if number is not None]
    gaps = [at for at, number in said if number is None]
    lost = set(range(last)) - {number for _, number in heard}
    assert len(lost) > 10
    assert [number for _, number in heard] == sorted({number for _, number in heard})
    for (at, number), (at_next, number_next) in zip([(0, -1), *heard], heard, strict=False):
        # Nothing is lost while a connection lasts; whatever is lost between two is reported by the second, or by
        # one that followed it before its report.
        if at == at_next:
            assert number_next == number + 1
        else:
            assert any(at < gap <= at_next for gap in gaps) or at_next + 1 in gaps, (at, at_next)


@pytest.mark.parametrize("way", ["kill -9", "CLIENT KILL", "SIGSTOP", "blackhole", "cut", "timeout"])
async def test_every_way_to_lose_messages_ends_in_a_gap(
    server: RedisServer, proxy: FaultyProxy, way: str, until: Until
) -> None:
    url = server.url_for(port=proxy.port, socket_connect_timeout=0.2)
    ear = Ear(url, ping_after=0.05, pong_within=0.05)
    async with ear.open("c") as listener:
        await until(lambda: ear.said == [None])
        if way == "kill -9":
            await server.restart()
        elif way == "CLIENT KILL":
            async with RedisClient.open(server.url) as client:
                await client.call("CLIENT KILL", "TYPE", "pubsub")
        elif way == "SIGSTOP":
            server.pause()
            await until(lambda: not listener.connected)
            server.resume()
        elif way == "blackhole":
            proxy.blackhole()
            await until(lambda: not listener.connected)
            proxy.restore()
        elif way == "cut":
            proxy.cut()
        else:
            proxy.drop_replies(1)  # the answer to a PING
        await until(lambda: ear.said == [None, None])
        assert listener.connections >= 2
        async with RedisClient.open(server.url) as client:
            assert await client.call("PUBLISH", "c", "heard") >= 1
        await until(lambda: ear.said[-1] == b"heard")


async def test_a_connection_lost_before_its_subscriptions_is_tried_again(
    server: RedisServer, proxy: FaultyProxy, until: Until
) -> None:
    ear = Ear(server.url_for(port=proxy.port), pong_within=0.02)
    proxy.delay(0.05)
    async with trio.open_nursery() as nursery:

        async def heal() -> None:
            await until(lambda: ear.listener.connections >= 2)
            proxy.restore()

        nursery.start_soon(heal)
        async with ear.open("c"), RedisClient.open(server.url) as client:
            await client.call("PUBLISH", "c", "x")
            await until(lambda: ear.said == [None, None, b"x"])  # none for connections that never confirmed


async def test_silence_is_not_a_gap(server: RedisServer, until: Until) -> None:
    ear = Ear(server.url, ping_after=0.01, pong_within=1)
    async with ear.open("c") as listener, RedisClient.open(server.url) as client:

        async def pings() -> int:
            return int((await client.call("INFO", "commandstats"))["cmdstat_ping"]["calls"])

        first = await pings()
        with trio.fail_after(5):
            while await pings() < first + 5:
                await trio.sleep(0.002)
        assert ear.said == [None]
        assert listener.connections == 1


async def test_subscribe_waits_for_the_connection(server: RedisServer, until: Until) -> None:
    ear = Ear(server.url)
    async with ear.open() as listener:
        await server.kill()
        await until(lambda: not listener.connected)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.subscribe, "c")
            await trio.testing.wait_all_tasks_blocked()
            await server.restart()
        async with RedisClient.open(server.url) as client:
            assert await client.call("PUBLISH", "c", "x") == 1
        await until(lambda: ear.said[-1] == b"x")


async def test_refused_channels(kind: str) -> None:
    users = {"me": "on >secret resetchannels &mine:* +@all ~*"}
    async with RedisServer(kind, users=users) as server:
        url = server.url_for(user="me", password="secret")
        ear = Ear(url)
        async with ear.open("mine:a") as listener:
            with pytest.raises(NoPermissionError):
                await listener.subscribe("other")
            await listener.subscribe("mine:b")


async def test_start_and_end(server: RedisServer) -> None:
    ear = Ear(server.url)
    async with ear.open("c") as listener:
        with pytest.raises(RuntimeError, match="listens once"):
            await listener.listen(deliver=ear.deliver, on_gap=ear.on_gap)
    with pytest.raises(LinkClosed):
        await listener.subscribe("c")
    await server.kill()
    with pytest.raises(LinkDown, match="could not be reached"):
        await RedisListener(server.url, start_timeout=0.05).listen(deliver=ear.deliver, on_gap=ear.on_gap)
