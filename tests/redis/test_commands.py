"""Calls, pipelines, transactions and scripts over one connection."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
import trio.testing
from redis.exceptions import (
    DataError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from trio_agentapp.redis import (
    Backoff,
    LinkClosed,
    LinkDown,
    LinkError,
    LinkOverloaded,
    RedisClient,
    RedisListener,
    Script,
    ServerChanged,
)
from trio_agentapp.testing.faulty_proxy import FaultyProxy
from trio_agentapp.testing.redis_server import RedisServer

ECHO = Script("return {KEYS[1], ARGV[1]}")
COUNT = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
FAST = Backoff(0.001, 0.01)


async def test_calls_and_what_the_server_says(server: RedisServer) -> None:
    async with RedisClient.open(server.url) as client:
        assert await client.call("SET", "key", b"\x00\xff") is True
        assert await client.call("GET", "key") == b"\x00\xff"
        assert await client.call("SET", "key", b"m", "PX", 10_000) is True
        assert await client.call("get", b"key") == b"m"
        with pytest.raises(ResponseError, match="not an integer"):
            await client.call("INCR", "key")
        assert client.connected
        assert client.server is not None
        assert client.server_run_id == (await client.call("INFO", "server"))["run_id"]
        assert client.server.uptime == pytest.approx(0, abs=5)
        assert client.server.version is not None


async def test_two_connections_for_any_number_of_callers(server: RedisServer) -> None:
    listener = RedisListener(server.url)
    async with RedisClient.open(server.url) as client, trio.open_nursery() as nursery:

        async def listen(*, task_status: trio.TaskStatus[None]) -> None:
            await listener.listen(deliver=lambda *_: None, on_gap=lambda: None, task_status=task_status)

        await nursery.start(listen)
        async with trio.open_nursery() as callers:
            for number in range(200):
                callers.start_soon(client.call, "SET", f"key{number}", number)
                callers.start_soon(listener.subscribe, f"channel{number % 7}")
        names = [row["name"].rsplit(":", 1)[0] for row in await client.call("CLIENT LIST")]
        assert sorted(names) == ["trio-agentapp:commands", "trio-agentapp:listener"]
        nursery.cancel_scope.cancel()


async def test_commands_of_many_callers_go_out_together(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    plain = trio.SocketStream.send_all

    async def spy(self: trio.SocketStream, data: bytes) -> None:
        sent.append(data)
        await plain(self, data)

    async with RedisClient.open(server.url) as client:
        monkeypatch.setattr(trio.SocketStream, "send_all", spy)
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(client.call, "SET", "key", number)
        assert len(sent) <= 2
        assert sum(data.count(b"SET") for data in sent) == 100


async def test_what_would_change_or_block_the_shared_connection_is_refused(server: RedisServer) -> None:
    async with RedisClient.open(server.url) as client:
        for command in (
            ("SUBSCRIBE", "c"), ("multi",), (b"SELECT", 1), ("BLPOP", "l", 0), ("CLIENT REPLY", "OFF"),
            ("CLIENT", "REPLY", "OFF"), ("XREAD", "BLOCK", 0, "STREAMS", "s", "$"), ("SUBSCRIBE c",), (),
        ):  # fmt: skip
            with pytest.raises(ValueError, match=r"all callers share|empty"):
                await client.call(*command)
        for argument in (True, None, 1j, ["x"]):
            with pytest.raises(DataError, match=type(argument).__name__):
                await client.call("SET", "key", argument)  # type: ignore[arg-type]
        assert client.waiting == 0


async def test_pipelines_keep_order_and_give_refusals_in_place(server: RedisServer) -> None:
    async with RedisClient.open(server.url) as client:
        answers = await client.pipeline(
            [("SET", "a", 1), ("INCR", "a"), ("LPUSH", "a", "x"), ECHO.bind(["k"], ["v"]), ("HGETALL", "none")]
        )
        assert answers[:2] == [True, 2]
        assert isinstance(answers[2], ResponseError)
        assert answers[3:] == [[b"k", b"v"], {}]
        assert await client.pipeline([]) == []


async def test_scripts_survive_a_flush_and_a_restart(server: RedisServer) -> None:
    async with RedisClient.open(server.url, backoff=FAST) as client:
        assert await client.script(ECHO, ["k"], ["v"]) == [b"k", b"v"]
        with pytest.raises(NoScriptError):
            await client.call("EVALSHA", COUNT.sha, 1, "n", 1)
        assert await client.script(COUNT, ["n"], [2]) == 2
        assert await client.call("EVALSHA", COUNT.sha, 1, "n", 1) == 3
        await client.call("SCRIPT FLUSH")
        calls = [COUNT.bind(["n"], [10]), ("GET", "n"), ECHO.bind(["k"], [1]), COUNT.bind(["n"], [100])]
        assert await client.pipeline(calls) == [13, b"3", [b"k", b"1"], 113]
        await server.restart()
        assert await client.script(COUNT, ["n"], [1]) == 1
        with pytest.raises(ResponseError, match="mine"):
            await client.script(Script("return redis.error_reply('mine')"))


async def test_a_lost_second_half_of_a_pipeline_may_have_been_executed(
    server: RedisServer, proxy: FaultyProxy
) -> None:
    """The script was not there; its second sending finds no connection, while the other command was executed."""
    async with RedisClient.open(server.url_for(port=proxy.port), backoff=FAST) as client:
        exchange = client._exchange
        sent = 0

        async def cut_after_the_first(*arguments: Any) -> Any:
            nonlocal sent
            sent += 1
            if sent == 2:
                raise LinkDown("never written")
            return await exchange(*arguments)

        client._exchange = cut_after_the_first  # type: ignore[method-assign]
        for commands, executed in (
            ([("INCR", "n"), ECHO.bind(["k"], [1])], True),
            ([ECHO.bind(["k"], [1])], False),
        ):
            sent = 0
            with pytest.raises(LinkDown) as caught:
                await client.pipeline(commands)
            assert caught.value.maybe_executed == executed


async def test_out_of_memory_is_told(kind: str) -> None:
    async with RedisServer(kind, maxmemory="1mb") as server, RedisClient.open(server.url) as client:

        async def fill() -> None:
            for number in range(200):
                await client.call("SET", f"key{number}", b"x" * 100_000)

        with pytest.raises(OutOfMemoryError):
            await fill()
        assert client.connections == 1


async def test_too_many_waiting_calls_are_refused(server: RedisServer, proxy: FaultyProxy) -> None:
    proxy.hold_replies()
    proxy.restore()
    async with RedisClient.open(server.url_for(port=proxy.port), max_waiting=10) as client:
        proxy.hold_replies()
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(client.call, "PING")
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(LinkOverloaded) as caught:
                await client.pipeline([("PING",)] * 3)
            assert not caught.value.maybe_executed
            assert client.waiting == 8
            proxy.restore()
        assert await client.call("PING") is True


async def test_given_up_calls_count_until_their_reply_is_there(server: RedisServer, proxy: FaultyProxy) -> None:
    async with RedisClient.open(server.url_for(port=proxy.port), max_waiting=10) as client:
        proxy.hold_replies()
        with trio.move_on_after(0):
            await client.call("PING")
        assert client.waiting == 0  # it was never written
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(client.call, "PING")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        with pytest.raises(LinkOverloaded):
            await client.call("PING")
        proxy.restore()
        with trio.fail_after(5):
            while client.waiting:
                await trio.sleep(0.002)
        assert await client.call("PING") is True


@pytest.mark.parametrize("seed", range(5))
async def test_nobody_gets_the_reply_of_another(server: RedisServer, proxy: FaultyProxy, seed: int) -> None:
    """Hundreds of callers that are cancelled, or time out, at random moments while the connection is cut."""
    chance = random.Random(seed)
    outcomes = {"answered": 0, "cancelled": 0, "failed": 0}

    async def caller(number: int) -> None:
        for turn in range(5):
            mine = f"{number}.{turn}".encode()
            kind = chance.randrange(3)
            with trio.move_on_after(chance.choice([0, 0.0005, 0.002, 0.005, 5])) as scope:
                try:
                    if kind == 0:
                        assert await client.call("ECHO", mine) == mine
                    elif kind == 1:
                        assert await client.script(ECHO, [mine], [mine]) == [mine, mine]
                    else:
                        size = chance.randrange(1, 5)
                        answers = await client.pipeline([("ECHO", mine + b"%d" % i) for i in range(size)])
                        assert answers == [mine + b"%d" % i for i in range(size)]
                    outcomes["answered"] += 1
                except LinkDown:
                    outcomes["failed"] += 1
            outcomes["cancelled"] += scope.cancelled_caught

    # Only cuts are to fail, also on a busy machine.
    async with RedisClient.open(server.url_for(port=proxy.port), backoff=FAST, call_timeout=30) as client:
        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(caller, number)
            if seed % 2:
                for _ in range(5):
                    await trio.sleep(chance.uniform(0, 0.02))
                    proxy.cut()
        answer = None
        while answer is None:
            try:
                answer = await client.call("ECHO", "end")
            except LinkDown:  # the last cut is noticed only now
                continue
        assert answer == b"end"
        assert client.waiting == 0
    assert sum(outcomes.values()) == 1500
    assert all(outcomes.values()) if seed % 2 else not outcomes["failed"]
    assert outcomes["cancelled"] > 100


async def test_each_call_has_its_own_time_out(server: RedisServer, proxy: FaultyProxy) -> None:
    ended: list[float] = []

    async def call(timeout: float) -> None:
        began = trio.current_time()
        with pytest.raises(LinkError):
            await client.call("PING", timeout=timeout)
        ended.append(timeout)
        assert timeout <= trio.current_time() - began < timeout + 1

    async with RedisClient.open(server.url, backoff=FAST) as client:
        await server.kill()
        async with trio.open_nursery() as nursery:
            with pytest.raises(LinkDown):  # finds out that the server is gone
                await client.call("PING", timeout=0.05)
            for timeout in (0.1, 0.02, 0.15, 0.05, 0.0):
                nursery.start_soon(call, timeout)
        assert ended == [0.0, 0.02, 0.05, 0.1, 0.15]
        assert client.waiting == 0
    with pytest.raises(LinkClosed, match="not served yet"):
        await RedisClient(server.url).call("PING")


async def test_a_closed_client_says_so(server: RedisServer, proxy: FaultyProxy) -> None:
    failures: list[LinkClosed] = []

    async def call() -> None:
        with pytest.raises(LinkClosed) as caught:
            await client.call("PING", timeout=60)
        failures.append(caught.value)

    async with trio.open_nursery() as nursery:
        async with RedisClient.open(server.url_for(port=proxy.port)) as client:
            proxy.hold_replies()
            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
    assert failures[0].maybe_executed
    with pytest.raises(LinkClosed) as caught:
        await client.call("PING")
    assert not caught.value.maybe_executed
    with pytest.raises(RuntimeError, match="served once"):
        await client.serve()


async def test_the_error_of_a_block_comes_out_as_it_is(server: RedisServer) -> None:
    with pytest.raises(KeyError):
        async with RedisClient.open(server.url):
            raise KeyError("mine")


async def test_a_call_for_one_server_does_not_reach_its_successor(server: RedisServer) -> None:
    told: list[str | None] = []
    async with RedisClient.open(server.url, backoff=FAST) as client:
        client.on_reconnect.append(lambda: told.append(client.server_run_id))
        before = client.server_run_id
        assert await client.call("SET", "a", 1, only_on=before) is True
        await server.kill()

        async def claim() -> None:
            with pytest.raises(ServerChanged) as caught:
                await client.call("SET", "claimed", 1, only_on=before)
            assert not caught.value.maybe_executed

        with pytest.raises(LinkDown):  # finds out that the server is gone
            await client.call("PING", timeout=0.05)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(claim)
            nursery.start_soon(client.call, "SET", "other", 1)
            await trio.testing.wait_all_tasks_blocked()
            await server.restart()
        assert await client.pipeline([("EXISTS", "claimed"), ("EXISTS", "other")]) == [0, 1]
        assert told == [client.server_run_id]
        assert told != [before]


async def test_a_replica_refuses_writes_and_is_left(server: RedisServer, kind: str) -> None:
    async with RedisServer(kind, replica_of=server) as replica:
        async with RedisClient.open(replica.url, backoff=FAST) as client:
            with pytest.raises(ReadOnlyError):
                await client.call("SET", "a", 1)
            assert await client.call("PING") is True
            assert client.connections == 2
            assert isinstance((await client.pipeline([("SET", "a", 1)]))[0], RedisError)
