"""What callers see when servers and networks fail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
import trio.testing

from trio_agentapp.redis import Backoff, LinkDown, LinkError, LinkTimeout, RedisClient
from trio_agentapp.testing.faulty_proxy import FaultyProxy
from trio_agentapp.testing.redis_server import RedisServer

Until = Callable[..., Awaitable[None]]

FAST = Backoff(0.001, 0.01)


async def test_a_killed_server_comes_back(server: RedisServer) -> None:
    async with RedisClient.open(server.url, backoff=FAST) as client:
        await client.call("SET", "a", 1)
        first = client.server_run_id
        await server.kill()
        with pytest.raises(LinkDown):
            await client.call("GET", "a", timeout=0.1)
        with pytest.raises(LinkDown) as caught:
            await client.call("GET", "a", timeout=0.1)
        assert not caught.value.maybe_executed
        assert "refused" in str(caught.value)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call, "SET", "a", 2)  # waits for the connection
            await server.restart()
        assert await client.call("GET", "a") == b"2"
        assert client.server_run_id != first
        assert client.server is not None
        assert client.server.uptime == pytest.approx(0, abs=2)


@pytest.mark.parametrize("appendonly", [False, True])
async def test_data_are_kept_or_not(kind: str, appendonly: bool, until: Until) -> None:
    async with RedisServer(kind, appendonly=appendonly) as server:
        async with RedisClient.open(server.url, backoff=FAST) as client:
            await client.call("SET", "a", 1)
            await server.restart(keep_data=True)
            await until(lambda: client.connections == 2)
            assert await client.call("GET", "a") == b"1"
            await server.restart(keep_data=False)
            await until(lambda: client.connections == 3)
            assert await client.call("GET", "a") is None


async def test_what_was_written_may_have_been_executed(
    server: RedisServer, proxy: FaultyProxy, until: Until
) -> None:
    failures: list[LinkDown] = []

    async def call() -> None:
        with pytest.raises(LinkDown) as caught:
            await client.call("INCR", "n", timeout=60)
        failures.append(caught.value)

    async with RedisClient.open(server.url_for(port=proxy.port), backoff=FAST) as client:
        async with RedisClient.open(server.url) as witness:
            async with trio.open_nursery() as nursery:
                proxy.hold_replies()
                nursery.start_soon(call)
                nursery.start_soon(call)
                while await witness.call("GET", "n") != b"2":
                    await trio.sleep(0.002)
                proxy.cut()
            assert [failure.maybe_executed for failure in failures] == [True, True]
            proxy.restore()
            assert await client.call("GET", "n") == b"2"  # nothing was sent twice


async def test_a_server_that_is_stopped_is_found_by_time_outs(server: RedisServer) -> None:
    async with RedisClient.open(
        server.url_for(socket_connect_timeout=0.1), backoff=FAST, call_timeout=0.1
    ) as client:
        server.pause()
        try:
            started = trio.current_time()
            with pytest.raises(LinkTimeout) as timed_out:
                await client.call("PING")
            assert trio.current_time() - started < 1
            assert timed_out.value.maybe_executed
            with pytest.raises(LinkDown) as down:
                await client.call("PING")
            assert not down.value.maybe_executed
        finally:
            server.resume()
        assert await client.call("PING", timeout=5) is True
        assert client.timeouts == 1


async def test_a_server_that_reads_nothing_is_found_also_when_nobody_waits(
    server: RedisServer, until: Until
) -> None:
    async with RedisClient.open(
        server.url_for(socket_connect_timeout=0.2), backoff=FAST, call_timeout=0.1
    ) as client:
        server.pause()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(client.call, "SET", "big", b"x" * 50_000_000, timeout=60))
                await until(lambda: client._fifo._in_flight)
                nursery.cancel_scope.cancel()
            while client.connected:
                with pytest.raises(LinkDown) as caught:
                    await client.call("PING")
                assert not caught.value.maybe_executed
        finally:
            server.resume()
        assert await client.call("PING", timeout=5) is True
        assert client.timeouts == 0


async def test_a_time_out_of_one_call_replaces_the_connection_for_all(
    server: RedisServer, proxy: FaultyProxy
) -> None:
    outcomes: list[LinkError] = []

    async def call(timeout: float) -> None:
        with pytest.raises(LinkError) as caught:
            await client.call("PING", timeout=timeout)
        outcomes.append(caught.value)

    async with RedisClient.open(server.url_for(port=proxy.port), backoff=FAST) as client:
        proxy.blackhole()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, 60)
            nursery.start_soon(call, 0.05)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["LinkDown", "LinkTimeout"]
        assert all(outcome.maybe_executed for outcome in outcomes)
        proxy.cut()
        proxy.restore()
        assert await client.call("ECHO", "x") == b"x"
        assert client.connections >= 2


async def test_late_replies_die_with_their_connection(server: RedisServer, proxy: FaultyProxy) -> None:
    async with RedisClient.open(server.url_for(port=proxy.port), backoff=FAST) as client:
        proxy.hold_replies()
        with pytest.raises(LinkTimeout):
            await client.call("ECHO", "late", timeout=0.05)
        proxy.restore()
        assert await client.call("ECHO", "next") == b"next"


async def test_a_lost_reply_never_shifts_the_others(server: RedisServer, proxy: FaultyProxy) -> None:
    async with RedisClient.open(server.url_for(port=proxy.port), backoff=FAST) as client:
        proxy.drop_replies(1)
        with pytest.raises(LinkTimeout):
            await client.call("ECHO", "lost", timeout=0.05)
        assert await client.call("ECHO", "next") == b"next"


async def test_slow_is_not_dead(server: RedisServer, proxy: FaultyProxy) -> None:
    async with RedisClient.open(server.url_for(port=proxy.port)) as client:
        proxy.delay(0.05)
        assert await client.call("ECHO", "x", timeout=5) == b"x"
        assert client.connections == 1


async def test_killed_connections_are_replaced(server: RedisServer, until: Until) -> None:
    told: list[bool] = []
    async with RedisClient.open(server.url, backoff=FAST) as client, RedisClient.open(server.url) as other:
        client.on_reconnect.append(lambda: told.append(client.connected))
        client.on_reconnect.append(lambda: 1 / 0)
        for count in range(1, 6):
            await other.call("CLIENT KILL", "TYPE", "normal", "SKIPME", "yes")
            await until(lambda count=count: client.connections > count)
        assert await client.call("PING") is True
        assert told == [False] * 5  # nothing can have been sent yet


async def test_back_off_is_bounded_and_spread(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    delays = [Backoff().delay(attempt) for attempt in range(2000)]
    assert 0.01 <= delays[0] <= 0.02
    assert all(1 <= delay <= 2 for delay in delays[7:])
    assert len(set(delays)) > 1900

    asked: list[int] = []

    class Spy(Backoff):
        def delay(self, attempt: int) -> float:
            asked.append(attempt)
            return 0.001

    async with RedisClient.open(server.url, backoff=Spy()) as client:
        await server.kill()
        with pytest.raises(LinkDown):
            await client.call("PING", timeout=0.2)
        with pytest.raises(LinkDown):
            await client.call("PING", timeout=0.2)
        assert asked == list(range(len(asked)))
        assert len(asked) > 3


async def test_a_start_without_a_server_gives_up_in_time(server: RedisServer) -> None:
    await server.kill()
    with pytest.raises(LinkDown, match=r"could not be reached within 0\.1 s: .*refused"):
        async with RedisClient.open(server.url, start_timeout=0.1):
            pass


async def test_a_start_waits_for_a_server_that_comes(server: RedisServer) -> None:
    await server.kill()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.restart)
        async with RedisClient.open(server.url, backoff=FAST) as client:
            assert await client.call("PING") is True


async def test_a_start_need_not_wait(server: RedisServer, until: Until) -> None:
    await server.kill()
    async with RedisClient.open(server.url, start_timeout=None, backoff=FAST) as client:
        assert not client.connected
        assert client.server_run_id is None
        await server.restart()
        await until(lambda: client.connected)
        assert await client.call("PING") is True


async def test_what_is_not_redis_is_told(server: RedisServer) -> None:
    async def talk(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, talk, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        with pytest.raises(LinkDown, match="cannot be read"):
            async with RedisClient.open(f"redis://localhost:{port}", start_timeout=0.1):
                pass
        nursery.cancel_scope.cancel()
