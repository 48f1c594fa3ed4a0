"""Ways to a server: TLS, passwords, ACL users, Unix sockets, databases, old servers."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio
from redis.credentials import CredentialProvider, UsernamePasswordCredentialProvider
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from trio_agentapp.errors import ConfigurationError
from trio_agentapp.redis import Backoff, LinkDown, RedisClient, RedisListener, Script
from trio_agentapp.testing.faulty_proxy import FaultyProxy
from trio_agentapp.testing.redis_server import RedisServer, TLSFiles, installed_kinds

Until = Callable[..., Awaitable[None]]

FAST = Backoff(0.001, 0.01)


async def test_passwords(kind: str) -> None:
    async with RedisServer(kind, password="p@ss/word") as server:
        for query in ({}, {"protocol": 3}):
            async with RedisClient.open(server.url_for(password="p@ss/word", **query)) as client:
                assert await client.call("PING") is True
            with pytest.raises(
                AuthenticationError, match=f"Redis at localhost:{server.port} refused the log-in: inv"
            ):
                async with RedisClient.open(server.url_for(password="hunter2", **query)):
                    pass
            with pytest.raises(AuthenticationError, match="refused the log-in") as caught:
                async with RedisClient.open(server.url_for(**query)):
                    pass
            assert "hunter2" not in str(caught.value)


async def test_acl_users(kind: str) -> None:
    users = {"limited": "on >secret ~mine:* resetchannels &mine:* +get +set +ping"}
    async with RedisServer(kind, users=users) as server:
        url = server.url_for(user="limited", password="secret")
        async with RedisClient.open(url) as client:
            assert await client.call("SET", "mine:a", 1) is True
            with pytest.raises(NoPermissionError):
                await client.call("GET", "other:a")
            # Neither INFO nor ROLE are allowed: then there is a connection, and nothing is known about the server.
            assert client.server_run_id is None
        with pytest.raises(AuthenticationError):
            async with RedisClient.open(server.url_for(user="limited")):
                pass
        with pytest.raises(AuthenticationError):
            async with RedisClient.open(server.url_for(user="nobody", password="secret")):
                pass


async def test_a_password_that_changes_is_tried_again(
    kind: str, caplog: pytest.LogCaptureFixture, until: Until
) -> None:
    async with RedisServer(kind, users={"me": "on >old ~* &* +@all", "admin": "on >admin ~* &* +@all"}) as server:
        async with RedisClient.open(server.url_for(user="me", password="old"), backoff=FAST) as client:
            async with RedisClient.open(server.url_for(user="admin", password="admin")) as admin:
                await admin.call("ACL SETUSER", "me", "resetpass", ">new")
                await admin.call("CLIENT KILL", "USER", "me")
                await until(lambda: not client.connected)
                with pytest.raises(LinkDown, match="refused the log-in"):
                    await client.call("PING", timeout=0.1)
                assert any("refused the log-in" in record.message for record in caplog.records)
                await admin.call("ACL SETUSER", "me", ">old")
                assert await client.call("PING", timeout=5) is True


async def test_credential_providers(kind: str) -> None:
    threads: list[str] = []

    class Provider(CredentialProvider):
        def get_credentials(self) -> tuple[str, str]:
            threads.append(threading.current_thread().name)
            if len(threads) == 1:
                raise OSError("the vault is closed")
            return "me", "secret"

    async with RedisServer(kind, users={"me": "on >secret ~* &* +@all"}) as server:
        async with RedisClient.open(server.url, credential_provider=Provider(), backoff=FAST) as client:
            assert await client.call("ACL WHOAMI") in ("me", b"me")
        assert len(threads) == 2
        assert threading.main_thread().name not in threads
        provider = UsernamePasswordCredentialProvider("me", "secret")
        async with RedisClient.open(server.url, credential_provider=provider) as client:
            assert await client.call("ACL WHOAMI") in ("me", b"me")
        with pytest.raises(ConfigurationError, match="not both"):
            RedisClient("redis://:x@localhost", credential_provider=provider)


async def test_databases(server: RedisServer) -> None:
    async with RedisClient.open(server.url_for(db=3)) as third, RedisClient.open(server.url) as first:
        await third.call("SET", "a", 1)
        assert await first.call("GET", "a") is None
    with pytest.raises(ResponseError, match="DB index is out of range"):
        async with RedisClient.open(server.url_for(db=99)):
            pass


async def test_unix_sockets(kind: str) -> None:
    async with RedisServer(kind, password="secret") as server:
        async with RedisClient.open(server.unix_url + "?db=1") as client:
            assert await client.call("PING") is True
            [row] = await client.call("CLIENT LIST")
            assert row["db"] == "1"
    with pytest.raises(LinkDown, match="No such file"):
        async with RedisClient.open(server.unix_url, start_timeout=0.05):
            pass


@pytest.fixture(params=["proxy", *(kind for kind in installed_kinds() if kind == "debian")])
async def tls_server(request: pytest.FixtureRequest, tls_files: TLSFiles) -> AsyncIterator[tuple[RedisServer, int]]:
    """A server and its port that speaks TLS: Debian's own, or a proxy before one of the wheels, built without."""
    if request.param == "debian":
        async with RedisServer("debian", tls=tls_files) as server:
            yield server, server.port
    else:
        async with RedisServer() as server, FaultyProxy.open(server.port, tls=tls_files) as proxy:
            yield server, proxy.port


async def test_tls(tls_server: tuple[RedisServer, int], tls_files: TLSFiles, other_authority: Path) -> None:
    server, port = tls_server
    async with RedisClient.open(server.url_for(port=port, **tls_files.query)) as client:
        payload = b"x" * 1_000_000
        await client.call("SET", "a", payload)
        assert await client.call("GET", "a") == payload
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(client.call, "SET", number, number)
    async with RedisClient.open(server.url_for(port=port, **tls_files.query, ssl_cert_reqs="none")) as client:
        assert await client.call("PING") is True
    with pytest.raises(ConfigurationError, match=r"certificate of Redis at .* is not accepted"):
        async with RedisClient.open(
            server.url_for(port=port, **tls_files.query | {"ssl_ca_certs": other_authority})
        ):
            pass
    with pytest.raises(LinkDown, match=r"(?i)certificate required|closed|reset"):
        async with RedisClient.open(server.url_for(port=port, ssl_ca_certs=tls_files.ca), start_timeout=0.2):
            pass
    with pytest.raises(LinkDown):
        async with RedisClient.open(f"redis://localhost:{port}", start_timeout=0.2):
            pass


async def test_the_name_of_a_certificate_counts(tls_server: tuple[RedisServer, int], tls_files: TLSFiles) -> None:
    server, port = tls_server
    # The same machine, by an address that is not in the certificate.
    url = server.url_for(port=port, **tls_files.query).replace("localhost", "127.0.0.1")
    with pytest.raises(ConfigurationError, match=r"is not accepted: .*127\.0\.0\.1"):
        async with RedisClient.open(url):
            pass


async def test_listening_through_tls(tls_server: tuple[RedisServer, int], tls_files: TLSFiles) -> None:
    server, port = tls_server
    heard: list[bytes] = []
    done = trio.Event()

    def deliver(channel: bytes, payload: bytes) -> None:
        heard.append(payload)
        if len(heard) == 100:
            done.set()

    url = server.url_for(port=port, **tls_files.query)
    listener = RedisListener(url, ping_after=0.01)
    async with RedisClient.open(url) as client, trio.open_nursery() as nursery:
        await nursery.start(partial(listener.listen, deliver=deliver, on_gap=lambda: None))
        await listener.subscribe("c")
        for number in range(100):
            await client.call("PUBLISH", "c", number)
        await done.wait()
        nursery.cancel_scope.cancel()
    assert heard == [b"%d" % number for number in range(100)]


@pytest.mark.parametrize("protocol", [2, 3])
async def test_servers_that_only_know_resp2(kind: str, protocol: int) -> None:
    """Without HELLO a server answers as those before Redis 6 did."""
    query = {"protocol": protocol}
    async with RedisServer(kind, password="secret", options=[("rename-command", "HELLO", "")]) as server:
        async with RedisClient.open(server.url_for(password="secret", db=1, **query)) as client:
            assert client.server_run_id is not None
            assert await client.call("HSET", "h", "f", "v") == 1
            assert await client.call("HGETALL", "h") == {b"f": b"v"}
            assert await client.script(Script("return ARGV"), [], ["a"]) == [b"a"]
        with pytest.raises(AuthenticationError):
            async with RedisClient.open(server.url_for(password="wrong", **query)):
                pass


async def test_a_password_that_the_server_does_not_need_is_accepted(kind: str) -> None:
    async with RedisServer(kind) as server, RedisClient.open(server.url_for(password="unused")) as client:
        assert await client.call("PING") is True
