"""An app in a registry: there when it takes runs, gone before it drains, and never the reason for a late start."""

from __future__ import annotations

import re
from typing import Any

import pytest
import trio

from trio_agentapp.registries import RedisRegistry
from trio_agentapp.testing.redis_server import RedisServer

from .conftest import Start
from .harness import WAYS, free_port


async def found(registry: RedisRegistry, count: int) -> Any:
    with trio.fail_after(20):
        while len(agents := await registry.resolve("Listed")) != count:
            await trio.sleep(0.05)
    return agents


@pytest.mark.parametrize("way", WAYS)
async def test_an_app_is_registered_while_it_takes_runs(start: Start, way: str) -> None:
    async with RedisServer("valkey") as redis:
        env = {"A2A_REGISTRY_TYPE": "redis", "A2A_REGISTRY_REDIS_URL": redis.url, "AGENTAPP_METRICS": "1"}
        env["AGENTAPP_ROOT_PATH"] = "/listed"
        server = start("registered", way, env=env)
        if way == "hypercorn":
            # This server does not tell its app where it listens; its harness sets PORT to 0.
            assert "does not know its port" in server.log or await known_later(server)
            server.close(allowed=r"(?m)^.*does not know its port.*$")
            return
        registry = RedisRegistry(redis.url)
        async with registry.open():
            [agent] = await found(registry, 1)
            # With the prefix it also works through a proxy that is registered by `host` and `port`.
            assert agent.transports[0].url == f"http://127.0.0.1:{server.port}/listed/a2a"
            assert (await server.call("POST", "/listed/a2a", {})).status == 200
            assert agent.agent_card["supportedInterfaces"][0]["url"] == agent.transports[0].url
            state = (await server.get("/readiness"))["registries"]
            assert [(each["state"], each["error"]) for each in state] == [("registered", None)]
            metrics = (await server.call("GET", "/metrics")).body.decode()
            assert re.search(r'^agent_registered\{registry="[^"]*"\} 1\.0$', metrics, re.MULTILINE)
            server.close()
            assert await registry.resolve("Listed") == []


async def known_later(server: Any) -> bool:
    await server.wait_until(lambda: "does not know its port" in server.log, "line in the log")
    return True


async def test_a_registry_that_is_down_does_not_delay_the_start(start: Start) -> None:
    env = {"A2A_REGISTRY_TYPE": "redis", "A2A_REGISTRY_REDIS_URL": f"redis://127.0.0.1:{free_port()}"}
    server = start("registered", env=env)
    assert (await server.call("POST", "/process", {"input": "hi", "stream": False})).status == 200

    async def state() -> Any:
        [state] = (await server.get("/readiness")).get("registries") or [{"state": "waiting"}]
        return state

    with trio.fail_after(20):
        while (await state())["state"] != "retrying":
            await trio.sleep(0.05)
    server.close(allowed=r"(?m)^.*registr.*$")


def test_a_registry_that_is_none_is_refused_at_the_start(start: Start) -> None:
    server = start("registered", env={"A2A_REGISTRY_TYPE": "etcd"}, ready=False)
    assert server.process.wait(20) == 1
    assert "A2A_REGISTRY_TYPE: 'etcd' is unknown; the registries are redis, nacos, dns-sd" in server.log
