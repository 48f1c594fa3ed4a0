"""The registry in Redis: expiry, restarts, a server that is away or hangs, refusals, and its bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
import trio

from trio_agentapp.errors import ConfigurationError, RegistryError
from trio_agentapp.protocol.ids import digest_of
from trio_agentapp.redis import RedisClient
from trio_agentapp.registries import RedisRegistry, keeping
from trio_agentapp.registries.watching import MAX_LISTED
from trio_agentapp.testing.faulty_proxy import FaultyProxy
from trio_agentapp.testing.redis_server import RedisServer

from .conftest import CARD, NAME, opened, transport, until, until_async, watched
from .processes import registered_process


@pytest.fixture
async def own_server() -> AsyncIterator[RedisServer]:
    async with RedisServer("valkey") as server:
        yield server


async def test_a_killed_instance_expires_and_a_watcher_sees_it(redis_server: RedisServer, prefix: str) -> None:
    place = f"{redis_server.url} {prefix}"
    async with opened(RedisRegistry(redis_server.url, prefix=prefix, ttl=2.0)) as registry:
        async with registry.watch(NAME) as changes, registered_process("redis", place, 7001) as first:
            async with registered_process("redis", place, 7002):
                await watched(changes, 2)
                first.kill()
                agents = await watched(changes, 1)
                assert [agent.url for agent in agents] == ["http://127.0.0.1:7002/a2a"]
                await renewed(redis_server.url, f"{prefix}:{{agents}}:{agents[0].instance_id}", times=4)
                assert len(await registry.resolve(NAME)) == 1


async def renewed(url: str, key: str, times: int) -> None:
    """Wait until the life of a key has been prolonged so many times."""
    async with RedisClient.open(url) as client:
        seen = 0
        left = await client.call("PTTL", key)

        async def enough() -> bool:
            nonlocal seen, left
            before, left = left, await client.call("PTTL", key)
            seen += left > before
            return seen >= times

        await until_async(enough)


async def test_the_members_of_dead_instances_are_removed(redis_server: RedisServer, prefix: str) -> None:
    async with (
        RedisClient.open(redis_server.url) as client,
        opened(RedisRegistry(redis_server.url, prefix=prefix)) as r,
    ):
        await r.register(CARD, [transport()])
        await client.call("ZADD", f"{prefix}:{{agents}}", 0, "dead:1", 0, "dead:2")
        assert [agent.name for agent in await r.list()] == [NAME]
        assert await client.call("ZCARD", f"{prefix}:{{agents}}") == 1


async def test_other_prefixes_are_not_seen(redis_server: RedisServer, prefix: str) -> None:
    async with opened(RedisRegistry(redis_server.url, prefix=prefix)) as one:
        async with opened(RedisRegistry(redis_server.url, prefix=f"{prefix}-2")) as two:
            await one.register(CARD, [transport()])
            assert await two.list() == []
            assert await two.resolve(NAME) == []


async def test_a_server_that_loses_its_data_gets_them_again(own_server: RedisServer) -> None:
    registry = RedisRegistry(own_server.url, ttl=1.0)
    async with keeping(CARD, [transport()], registry) as keeper, opened(RedisRegistry(own_server.url)) as other:
        keeper.announce()

        async def found() -> bool:
            try:
                return len(await other.resolve(NAME)) == 1
            except RegistryError:
                return False

        await until_async(found)
        await own_server.kill()
        await until(lambda: keeper.statuses()[0].state == "retrying")
        await own_server.restart()
        await until_async(found)
        await until(lambda: keeper.statuses()[0].state == "registered")


async def test_a_server_that_is_down_at_the_start(own_server: RedisServer) -> None:
    await own_server.kill()
    async with keeping(CARD, [transport()], RedisRegistry(own_server.url)) as keeper:
        keeper.announce()
        await until(lambda: keeper.statuses()[0].state == "retrying")
        assert "No connection to Redis" in (keeper.statuses()[0].error or "")
        await own_server.restart()
        await until(lambda: keeper.statuses()[0].state == "registered")


async def test_a_server_that_hangs(own_server: RedisServer) -> None:
    async with FaultyProxy.open(own_server.port) as proxy:
        proxy.blackhole()
        url = f"redis://127.0.0.1:{proxy.port}"
        async with keeping(CARD, [transport()], RedisRegistry(url), withdraw_within=0.5) as keeper:
            keeper.announce()
            await until(lambda: keeper.statuses()[0].state == "retrying")
            proxy.restore()
            await until(lambda: keeper.statuses()[0].state == "registered")
            proxy.blackhole()
            with trio.fail_after(10):
                await keeper.withdraw()
        assert keeper.statuses()[0].state == "registered"  # the bound was reached; the entry expires
        async with opened(RedisRegistry(own_server.url)) as other:
            assert len(await other.resolve(NAME)) == 1


async def test_a_wrong_password(own_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    async with RedisClient.open(own_server.url) as client:
        await client.call("CONFIG SET", "requirepass", "right")
        url = own_server.url_for(password="wrong")
        async with keeping(CARD, [transport()], RedisRegistry(url)) as keeper:
            keeper.announce()
            await until(lambda: keeper.statuses()[0].failures >= 2)
            error = keeper.statuses()[0].error or ""
            assert "WRONGPASS" in error or "invalid username-password pair" in error
            assert "wrong" not in error.replace("wrongpass", "")
            logged = [record for record in caplog.records if "invalid username-password" in record.getMessage()]
            assert len(logged) == 2  # once by the link, and once by the keeper


async def fill(client: RedisClient, prefix: str, digest: str, count: int, name: str) -> None:
    """Make copies of the only entry, as instances of `name`."""
    [member] = await client.call("ZRANGE", f"{prefix}:{{agents}}", 0, -1)
    entry = await client.call("GET", f"{prefix}:{{agents}}:{member.decode()}")
    entry = entry.replace(NAME.encode(), name.encode())
    for start in range(0, count, 1000):
        names = [f"{digest}:i{number:06}" for number in range(start, min(start + 1000, count))]
        commands = [("SET", f"{prefix}:{{agents}}:{name}", entry, "PX", 600_000) for name in names]
        scores = [part for name in names for part in (0, name)]
        await client.pipeline([*commands, ("ZADD", f"{prefix}:{{agents}}", *scores)])


async def test_ten_thousand_instances_of_one_name(redis_server: RedisServer, prefix: str) -> None:
    registry = RedisRegistry(redis_server.url, prefix=prefix)
    async with RedisClient.open(redis_server.url) as client, opened(registry):
        await registry.register(CARD, [transport()])
        await fill(client, prefix, digest_of(NAME), MAX_LISTED + 10, NAME)
        found = await registry.resolve(NAME)
        assert len(found) == MAX_LISTED
        assert len({agent.instance_id for agent in found}) == MAX_LISTED
        assert len(await registry.list()) == MAX_LISTED
        assert await registry.resolve("another") == []


async def test_other_agents_do_not_crowd_out_one(redis_server: RedisServer, prefix: str) -> None:
    registry = RedisRegistry(redis_server.url, prefix=prefix)
    async with RedisClient.open(redis_server.url) as client, opened(registry):
        await registry.register(CARD, [transport()])
        await fill(client, prefix, "!", MAX_LISTED, "other")  # "!" is before all digests
        assert NAME not in {agent.name for agent in await registry.list()}
        assert [agent.name for agent in await registry.resolve(NAME)] == [NAME]


async def test_a_watcher_is_woken(redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the channel it would see a change an hour later."""
    monkeypatch.setattr("trio_agentapp.registries.redis.POLL", 3600.0)
    one, two = (RedisRegistry(redis_server.url, prefix=prefix, ttl=86400) for _ in range(2))
    async with opened(one), opened(two), one.watch(NAME) as changes:
        with trio.fail_after(20):
            assert len(await anext(changes)) == 0
            await two.register(CARD, [transport()])
            assert len(await anext(changes)) == 1
            await two.deregister()
            assert len(await anext(changes)) == 0


async def test_what_cannot_be_kept_is_refused(redis_server: RedisServer, prefix: str) -> None:
    async with opened(RedisRegistry(redis_server.url, prefix=prefix)) as registry:
        with pytest.raises(ConfigurationError, match=r"300,\d+ bytes as JSON; RedisRegistry takes 262,144"):
            await registry.register({**CARD, "description": "x" * 300_000}, [])
        with pytest.raises(ConfigurationError, match="is not JSON"):
            await registry.register({**CARD, "provider": object()}, [])
        assert await registry.list() == []


async def test_entries_of_other_programs_hide_no_agent(
    redis_server: RedisServer, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry = RedisRegistry(redis_server.url, prefix=prefix)
    entry = {"name": "x", "card": {}, "transports": [{"host": "x", "port": 1}]}
    wrong = [b"text", b"[]", b"7", b"{}", *(orjson.dumps({**entry, key: None}) for key in entry)]
    wrong.append(orjson.dumps({**entry, "transports": [{"host": "x"}]}))
    newer = orjson.dumps({**entry, "new": 1, "transports": [{"host": "x", "port": 1, "new": 1}]})
    async with RedisClient.open(redis_server.url) as client, opened(registry):
        await registry.register(CARD, [transport()])
        for number, value in enumerate([*wrong, newer]):
            await client.call("SET", f"{prefix}:{{agents}}:d:{number}", value)
            await client.call("ZADD", f"{prefix}:{{agents}}", 0, f"d:{number}")
        for _ in range(2):
            assert sorted(agent.name for agent in await registry.list()) == [NAME, "x"]
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(wrong)
    assert all("in Redis is not the entry of an agent" in message for message in messages)


def test_settings_that_cannot_work() -> None:
    for ttl in (0, -1, float("nan"), 1e9):
        with pytest.raises(ConfigurationError, match="ttl must be"):
            RedisRegistry("redis://localhost", ttl=ttl)
    with pytest.raises(ConfigurationError, match="a Redis prefix"):
        RedisRegistry("redis://localhost", prefix="{}")
    with pytest.raises(ConfigurationError):
        RedisRegistry("http://localhost")


async def test_a_closed_registry_says_so(redis_server: RedisServer) -> None:
    with pytest.raises(RuntimeError, match="the registry is not open"):
        await RedisRegistry(redis_server.url).list()


def test_the_page_of_keys_is_the_code(prefix: str) -> None:
    assert "P:{agents}:D:I" in (Path(__file__).parents[2] / "docs/how-to/register-agents.md").read_text()
