"""Ready means that a run can be started: what Redis refuses to claims is seen at `/readiness`, or at the start."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_agentapp.redis import RedisClient
from trio_agentapp.testing.redis_server import RedisServer, installed_kinds

from .conftest import Start
from .harness import WAYS, Server, free_port, fresh, say

LISTENS = re.compile(r"on http://127\.0\.0\.1:(\d+)")


@pytest.fixture(params=installed_kinds())
async def redis(request: pytest.FixtureRequest) -> AsyncIterator[RedisServer]:
    async with RedisServer(request.param) as server:
        yield server


def begin(start: Start, url: str, way: str = "run") -> Server:
    return start("shared", way, env={"REDIS_URL": url}, ready=False)


async def answers(server: Server) -> None:
    """Until it listens, ready or not."""

    def listens() -> bool:
        if not server.port and (match := LISTENS.search(server.log)):
            server.port = int(match[1])
        try:
            socket.create_connection(("127.0.0.1", server.port), 2).close()
        except OSError:
            return False
        return server.port > 0

    await server.wait_until(listens, "listener")


async def wait_reason(server: Server, pattern: str | None, seconds: float = 15) -> Any:
    """The answer of /readiness once its reason matches; None: once it is ready."""
    with server.deadline(seconds, f"readiness {pattern}"):
        while True:
            answer = await server.call("GET", "/readiness")
            if answer.status == 200 and pattern is None:
                return answer.json()
            if answer.status == 503 and pattern is not None and re.search(pattern, answer.json()["reason"]):
                return answer.json()
            await trio.sleep(0.05)


async def start_one(server: Server) -> int:
    answer = await server.call("POST", "/process", {"input": say(), "session_id": fresh(), "background": True})
    return answer.status


async def test_a_demoted_master_takes_no_runs_and_is_said_to(redis: RedisServer, start: Start) -> None:
    server = begin(start, redis.url)
    server.wait_ready()
    async with RedisClient.open(redis.url) as admin:
        await admin.call("REPLICAOF", "127.0.0.1", 1)
        reason = await wait_reason(server, "^Redis is a read-only replica$")
        assert reason["status"] == "unready"
        assert await start_one(server) == 503
        await admin.call("REPLICAOF", "NO", "ONE")
        await wait_reason(server, None)
        assert await start_one(server) in (200, 202)
    assert "no new runs: Redis is a read-only replica" in server.log
    await server.wait_until(lambda: "Redis accepts claims again" in server.log, "word")


async def test_a_replica_may_be_promoted(start: Start) -> None:
    async with RedisServer() as master, RedisServer(replica_of=master) as replica:
        server = begin(start, replica.url)
        await answers(server)
        await wait_reason(server, "read-only replica")
        assert "ready on" not in server.log
        async with RedisClient.open(replica.url) as admin:
            await admin.call("REPLICAOF", "NO", "ONE")
        await wait_reason(server, None)
        await server.wait_until(lambda: "Shared is ready on" in server.log, "word that it is ready")


async def test_a_full_server_takes_no_runs(redis: RedisServer, start: Start) -> None:
    server = begin(start, redis.url)
    server.wait_ready()
    async with RedisClient.open(redis.url) as admin:
        await admin.call("CONFIG SET", "maxmemory", 1)
        await wait_reason(server, r"^Redis is full \(maxmemory\)$")
        assert await start_one(server) == 503
        await admin.call("CONFIG SET", "maxmemory", 0)
        await wait_reason(server, None)


async def test_a_master_without_its_replicas(redis: RedisServer, start: Start) -> None:
    server = begin(start, redis.url)
    server.wait_ready()
    async with RedisClient.open(redis.url) as admin:
        await admin.call("CONFIG SET", "min-replicas-to-write", 1)
        await wait_reason(server, "^Redis refuses to write: .*enough good replicas")
        assert await start_one(server) == 503


async def test_a_user_that_loses_its_scripts(redis: RedisServer, start: Start) -> None:
    async with RedisClient.open(redis.url) as admin:
        await admin.call("ACL SETUSER", "agent", "on", "~*", "&*", "+@all", ">secret")
        server = begin(start, redis.url_for(user="agent", password="secret"))
        server.wait_ready()
        await admin.call("ACL SETUSER", "agent", "-@scripting")
        await wait_reason(server, "lacks permissions that runs need .*evalsha")
        assert await start_one(server) == 503
        await admin.call("ACL SETUSER", "agent", "+@all")
        await wait_reason(server, None)


async def test_a_server_that_hangs(redis: RedisServer, start: Start) -> None:
    server = begin(start, redis.url)
    server.wait_ready()
    redis.pause()
    try:
        await wait_reason(server, "does not answer|cannot be reached")
    finally:
        redis.resume()
    await wait_reason(server, None)


async def test_a_cluster_without_slots_may_get_some(redis: RedisServer, start: Start) -> None:
    port = next(port for _ in range(100) if (port := free_port()) < 50_000)
    async with RedisServer(redis.kind, port=port, options=[("cluster-enabled", "yes")]) as cluster:
        server = begin(start, cluster.url)
        await answers(server)
        await wait_reason(server, "^Redis is a cluster that does not serve: ")
        assert await start_one(server) == 503
        async with RedisClient.open(cluster.url) as admin:
            await admin.call("CLUSTER ADDSLOTS", *range(16384))
        await wait_reason(server, None)
        assert await start_one(server) in (200, 202)


async def test_the_least_permissions_of_the_documentation_do(redis: RedisServer, start: Start) -> None:
    text = (Path(__file__).parents[2] / "docs" / "how-to" / "run-several-nodes.md").read_text()
    rules = " ".join(re.findall(r"(?s)ACL SETUSER agent (.*?)```", text)[0].split())
    async with RedisServer(redis.kind, users={"agent": rules}) as limited:
        server = begin(start, limited.url_for(user="agent", password="secret"))
        server.wait_ready()
        async with server.chat(session_id="s1") as chat:
            await chat.started()
            receipt = await server.stop(wait=True, session_id="s1")
            assert receipt["stopped"]
        answer = await server.call(
            "POST", "/process", {"input": say(), "background": True}, headers={"Idempotency-Key": "k"}
        )
        assert answer.status in (200, 202)
    assert "refused" not in server.log


async def is_refused(server: Server) -> str:
    """It ends by itself, with one line that says why; that line."""
    code = await server.wait_exit()
    # The master of `hypercorn` with one worker ends with 0, and shows a traceback of its own.
    if server.way == "run":
        assert code == 1
        assert "Traceback" not in server.log
    return server.log


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ("-@scripting", "'?eval"),
        ("-evalsha", "'?evalsha"),
        ("-eval", "'?eval"),
        ("-zadd", "lacks permissions that runs need"),
        ("-publish", "lacks permissions that runs need"),
        ("resetkeys ~other:*", "lacks permissions that runs need"),
        ("-subscribe", "interrupt_redis_url: .*subscribe"),
        ("-info", "interrupt_redis_url: .*info"),
        ("resetchannels &other:*", "channel"),
    ],
)
async def test_a_user_that_may_not_is_refused(start: Start, rules: str, told: str) -> None:
    # One server by the bare `hypercorn`, too.
    for kind, way in [*((kind, "run") for kind in installed_kinds()), (installed_kinds()[0], "hypercorn")]:
        async with RedisServer(kind, users={"agent": f"on >secret ~* &* +@all {rules}"}) as server:
            text = await is_refused(begin(start, server.url_for(user="agent", password="secret"), way))
            assert re.search(f"start-up failed: .*{told}", text), (kind, way, text)
            assert "secret" not in text


@pytest.mark.parametrize("name", ["EVALSHA", "EVAL", "ZADD"])
async def test_a_renamed_command_is_refused(redis: RedisServer, start: Start, name: str) -> None:
    async with RedisServer(redis.kind, options=[("rename-command", name, "")]) as other:
        text = await is_refused(begin(start, other.url))
    assert re.search("(?m)^.*start-up failed: this Redis lacks a command that runs need", text)


async def test_a_wrong_password_is_one_line(start: Start) -> None:
    async with RedisServer(password="right") as server:
        text = await is_refused(begin(start, server.url_for(password="wrong")))
    assert "interrupt_redis_url: Redis at localhost" in text
    assert "wrong" not in text.replace("WRONGPASS", "").replace("wrong number", "")


async def test_a_cluster_of_several_is_refused(start: Start) -> None:
    options = [("cluster-enabled", "yes"), ("cluster-node-timeout", "2000")]
    # The port of a cluster's own bus is higher by 10,000.
    ports = [port for _ in range(100) if (port := free_port()) < 50_000]
    async with (
        RedisServer(port=ports[0], options=options) as one,
        RedisServer(port=ports[1], options=options) as two,
    ):
        async with RedisClient.open(one.url) as first, RedisClient.open(two.url) as second:
            await first.call("CLUSTER ADDSLOTS", *range(8192))
            await second.call("CLUSTER ADDSLOTS", *range(8192, 16384))
            await first.call("CLUSTER MEET", "127.0.0.1", two.port)
            with trio.fail_after(20):
                while (await first.call("CLUSTER INFO"))["cluster_size"] != "2":
                    await trio.sleep(0.05)
        text = await is_refused(begin(start, one.url))
    assert "one of several nodes of a Redis Cluster, which is not supported" in text


async def test_probes_are_few_whatever_asks(start: Start) -> None:
    """Two hundred questions to /readiness are none to Redis: the server counts what the probe writes."""
    async with RedisServer() as redis, RedisClient.open(redis.url) as admin:
        server = begin(start, redis.url)
        server.wait_ready()

        async def probes() -> int:
            stats = await admin.call("INFO", "commandstats")
            return int(stats["cmdstat_set"]["calls"])

        before, began = await probes(), trio.current_time()
        for _ in range(200):
            assert (await server.call("GET", "/readiness")).status == 200
        with trio.fail_after(20):
            while await probes() == before:
                await trio.sleep(0.1)
        assert await probes() - before <= 1 + (trio.current_time() - began) / 2.5


async def test_a_start_that_waits_says_so(start: Start) -> None:
    """At once, and not when it gives up: for a port that refuses, and for one that takes all and says nothing."""
    with socket.socket() as silent, socket.socket() as closed:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        closed.bind(("127.0.0.1", 0))
        for sock in (silent, closed):
            for way in WAYS:
                server = begin(start, f"redis://127.0.0.1:{sock.getsockname()[1]}", way)
                await server.wait_until(
                    lambda server=server: "waiting for Redis at redis://127.0.0.1" in server.log, "word", 8
                )
                assert "could not be reached" not in server.log
                server.kill()


@pytest.mark.parametrize("way", WAYS)
async def test_a_fresh_redis_is_waited_for_and_then_it_is_ready(start: Start, way: str) -> None:
    async with RedisServer() as redis:
        server = start("shared", way, env={"REDIS_URL": redis.url, "LEASE": "8"}, ready=False)
        await answers(server)
        answer = await server.call("GET", "/readiness")
        assert (answer.status, answer.json()["reason"][:22]) == (503, "Redis has just started")
        assert re.search(r"no new runs for \d s", server.log)
        assert "Shared is ready on" not in server.log
        await wait_reason(server, None)
        if way == "run":
            assert re.search(
                r"Shared listens on http://\S+ and is not ready yet: Redis has just started", server.log
            )
            await server.wait_until(lambda: "Shared is ready on http" in server.log, "ready line")
            node = (await server.get("/health"))["node"]
            assert f"(Ctrl-C stops it; node {node})" in server.log


async def test_workers_are_ready_when_all_are(start: Start) -> None:
    async with RedisServer() as redis, RedisClient.open(redis.url) as admin:
        await admin.call("CONFIG SET", "maxmemory", 1)
        server = start("shared", env={"REDIS_URL": redis.url, "WORKERS": "2"}, ready=False)
        await server.wait_until(lambda: server.log.count("is not ready yet: Redis is full") == 2, "words", 30)
        assert "is ready on" not in server.log
        await admin.call("CONFIG SET", "maxmemory", 0)
        await server.wait_until(lambda: "Shared is ready on http" in server.log, "ready line")
        server.wait_ready()
        server.send_signal()
        assert await server.wait_exit() == 0
