"""Redis as the place: names of keys, times to live, lost answers, restarts, and servers that cannot be used."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any

import pytest
import trio

from trio_agentapp.errors import BackendUnavailable, ConfigurationError
from trio_agentapp.protocol.ids import SessionKey
from trio_agentapp.protocol.message import Message
from trio_agentapp.redis import RedisClient
from trio_agentapp.stores import Stores, open_stores, redis, stores_of
from trio_agentapp.stores.shelf import FORGET_AFTER
from trio_agentapp.testing import check_session_store, check_state_store
from trio_agentapp.testing.conformance.parties import acting
from trio_agentapp.testing.faulty_proxy import FaultyProxy
from trio_agentapp.testing.redis_server import RedisServer, installed_kinds

KEY = SessionKey("ann", "chat")
IDS = ("ann", "chat")
TALK = [Message(role="user", content="Hello"), Message(content="Hi")]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://host/x", "number of a database"),
        ("redis://host?db_=1", "db_"),
        ("redis+sentinel://host", "service"),
        ("unix://", ""),
    ],
)
def test_a_url_that_is_none(url: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"state_url: .*{reason}"):
        stores_of(url)


@pytest.mark.parametrize("url", ["postgres://me:secret@host/db", "states.db", "", "http://me:secret@host"])
def test_a_scheme_that_is_not_known(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"state_url must be sqlite:///file, .*redis://") as caught:
        stores_of(url)
    assert "secret" not in str(caught.value)
    assert url.rpartition("@")[2] in str(caught.value)


async def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis, "START_TIMEOUT", 0.2)
    async with RedisServer() as server:
        await server.kill()
        with pytest.raises(
            BackendUnavailable, match=f"state_url: Redis at redis://localhost:{server.port} could not be reached"
        ):
            async with open_stores(server.url):
                pass


async def test_a_server_that_lets_nobody_in() -> None:
    async with RedisServer(password="right") as server:
        with pytest.raises(ConfigurationError, match=r"state_url: Redis at .* refused the log-in") as caught:
            async with open_stores(server.url_for(password="wrong-one")):
                pass
    assert "wrong-one" not in str(caught.value)


@pytest.mark.parametrize(("policy", "fine"), [("allkeys-lru", False), ("volatile-lru", True), ("noeviction", True)])
async def test_a_server_that_may_forget(policy: str, fine: bool) -> None:
    async with RedisServer(maxmemory="100mb", options=[("maxmemory-policy", policy)]) as server:
        if fine:
            async with open_stores(server.url) as stores:
                await stores.states.save(*IDS, {})
            return
        with pytest.raises(ConfigurationError, match=r"state_url: this Redis evicts keys.*allkeys-lru"):
            async with open_stores(server.url):
                pass


async def test_names_of_keys_and_times_to_live(redis_server: RedisServer) -> None:
    base = "friday:{" + hashlib.sha256(b"3:annchat").hexdigest()[:32] + "}:"
    async with RedisClient.open(redis_server.url) as client, open_stores(redis_server.url, prefix="friday") as to:
        await to.states.save(*IDS, {"n": 1})
        await to.sessions.append(*IDS, TALK, run_id="run", token=1)
        keys = {key.decode() for key in await client.call("KEYS", "friday:*")}
        assert keys == {base + name for name in ("state", "session", "session:turns", "session:messages")}
        for key in keys:
            assert await client.call("PTTL", key) == -1
        await to.states.delete(*IDS)
        await to.sessions.delete(*IDS)
        keys = {key.decode() for key in await client.call("KEYS", "friday:*")}
        assert keys == {base + "state", base + "session"}
        for key in keys:
            assert 0 < await client.call("PTTL", key) <= FORGET_AFTER * 1000
        await to.states.save(*IDS, {"n": 2})
        assert await client.call("PTTL", base + "state") == -1
        async with open_stores(redis_server.url, prefix="monday") as others:
            assert await others.states.load(*IDS) is None


@pytest.mark.parametrize("prefix", ["", "a b", "{a}", "a\r\n"])
def test_a_prefix_that_cannot_be(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="prefix"):
        stores_of("redis://localhost", prefix=prefix)


async def test_a_lost_answer_changes_nothing(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call is repeated, is executed once, and gives the answer of the first time."""
    monkeypatch.setattr(redis, "CALL_TIMEOUT", 0.2)

    async def losing(proxy: FaultyProxy, attempt: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        proxy.drop_replies(1)
        answer = await attempt(*args, **options)
        assert proxy._to_drop == 0
        return answer

    async with FaultyProxy.open(redis_server.port) as proxy:
        async with open_stores(redis_server.url_for(port=proxy.port), prefix="lost") as to:
            # The scripts are known to the server from here on: the answer that is lost is that of the script.
            await to.states.save(*IDS, {"n": 0})
            await to.states.rollback(*IDS, token=1)
            await to.sessions.append(*IDS, TALK, run_id="run-0", token=1)
            with acting(KEY, 1):
                await losing(proxy, to.states.save, *IDS, {"n": 1})
            assert await losing(proxy, to.states.load, *IDS) == {"n": 1}
            assert await losing(proxy, to.states.rollback, *IDS, token=1) is True
            assert await to.states.load(*IDS) == {"n": 0}
            assert await losing(proxy, to.states.delete, *IDS) is True
            await losing(proxy, to.sessions.append, *IDS, TALK, run_id="run-1", token=2)
            assert len(await to.sessions.history(*IDS)) == 4
            assert await losing(proxy, to.sessions.rollback, *IDS, token=2) is True
            assert len(await losing(proxy, to.sessions.history, *IDS)) == 2


async def test_redis_is_restarted_in_between() -> None:
    async with RedisServer(appendonly=True, options=[("appendfsync", "always")]) as server:
        async with open_stores(server.url) as to:
            await to.states.save(*IDS, {"n": 1})
            await server.kill()
            saved = trio.Event()

            async def save() -> None:
                await to.states.save(*IDS, {"n": (await to.states.load(*IDS) or {})["n"] + 1})
                await to.sessions.append(*IDS, TALK, run_id="run-1", token=1)
                saved.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(save)
                await trio.sleep(0.3)
                assert not saved.is_set()
                await server._start()
                with trio.fail_after(5):
                    await saved.wait()
            assert await to.states.load(*IDS) == {"n": 2}
            assert len(await to.sessions.history(*IDS)) == 2


async def test_redis_stays_away(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(redis, "RETRY_FOR", 0.4)
    async with RedisServer() as server, open_stores(server.url) as to:
        await to.states.save(*IDS, {"n": 1})
        await server.kill()
        for attempt, verb in ((to.states.save(*IDS, {}), "kept"), (to.states.load(*IDS), "read")):
            with pytest.raises(BackendUnavailable, match=f"The state could not be {verb}") as caught:
                await attempt
            assert caught.value.retry_after == 1
        assert "No connection to Redis" in caplog.text


async def test_a_server_that_is_full() -> None:
    async with RedisServer(maxmemory="3mb") as server, open_stores(server.url) as to:
        await to.states.save(*IDS, {"n": 1})

        async def fill(to: Stores) -> None:
            for number in range(100):
                await to.states.save("ann", str(number), {"text": "x" * 200_000})

        with acting(KEY, 1):
            await to.states.save(*IDS, {"n": 2})
        with trio.fail_after(3), pytest.raises(BackendUnavailable):
            await fill(to)
        with acting(KEY, 2), pytest.raises(BackendUnavailable):
            await to.states.save(*IDS, {"text": "x" * 200_000})
        with pytest.raises(BackendUnavailable):
            await to.sessions.append(*IDS, [Message(content="x" * 200_000)], run_id="run-1", token=1)
        # What frees memory is not held up.
        with acting(KEY, 2):
            assert await to.states.rollback(*IDS, token=1)
        assert await to.states.load(*IDS) == {"n": 1}
        assert await to.states.delete(*IDS)


@pytest.mark.parametrize("kind", installed_kinds()[1:])
async def test_an_old_server(kind: str) -> None:
    """It knows all that the scripts ask for; the other tests run on Valkey."""
    async with RedisServer(kind) as server, open_stores(server.url) as to:
        await check_state_store(lambda: nullcontext(to.states))
        await check_session_store(lambda: nullcontext(to.sessions))
