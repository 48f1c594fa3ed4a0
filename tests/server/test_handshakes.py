"""The handshake of TLS: what it may cost the other connections, and certificates that end it."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from trio.testing import wait_all_tasks_blocked

from tests.certificates import Authority
from trio_agentapp.refusals import refusals
from trio_agentapp.server.config import ServerConfig
from trio_agentapp.server.tcp_connection import Connection
from trio_agentapp.server.tls import tls_files
from trio_agentapp.server.turns import READS_PER_TURN, Turns


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def config(authority: Authority) -> ServerConfig:
    server = authority.server()
    config = ServerConfig()
    config.use_tls(tls_files(server.cert, server.key, authority.cert))
    return config


@contextlib.asynccontextmanager
async def connected(config: ServerConfig, turns: Turns) -> AsyncIterator[trio.SocketStream]:
    """Yield the client's end of a connection that the server accepts."""
    ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(each)) for each in socket.socketpair())
    accepted: Any = trio.SSLStream(theirs, config.create_ssl_context(), server_side=True, https_compatible=True)
    live: set[Connection] = set()
    connection = Connection(
        None,  # type: ignore[arg-type]  # no request is sent
        config,
        WorkerContext(None),
        ConnectionState({}),  # type: ignore[typeddict-item]
        live,
        accepted,
        turns=turns,
    )
    async with trio.open_nursery() as nursery, ours:
        nursery.start_soon(connection.run)
        yield ours
        await ours.aclose()
        with trio.fail_after(10):
            while live:
                await trio.sleep(0.01)


def secured(plain: trio.SocketStream, context: ssl.SSLContext) -> trio.SSLStream[trio.SocketStream]:
    return trio.SSLStream(plain, context, server_hostname="localhost", https_compatible=True)


async def test_each_flight_of_a_client_waits_for_its_turn(config: ServerConfig, authority: Authority) -> None:
    """Handshakes cost as much as requests: a thousand in one turn would delay every stream by seconds."""
    turns = Turns()
    context = authority.context(authority.issue("anna"))
    async with connected(config, turns) as plain, trio.open_nursery() as nursery:
        client = secured(plain, context)
        for _ in range(READS_PER_TURN):
            assert turns.take()
        nursery.start_soon(client.do_handshake)
        await trio.sleep(0.1)
        await wait_all_tasks_blocked()
        assert turns.admitted == READS_PER_TURN, "the client's first flight waits"
        async with turns.served():
            await client.send_all(b"")
            with trio.fail_after(10):
                while nursery.child_tasks:
                    await trio.sleep(0.01)


async def test_a_handshake_that_never_ends_is_cut_and_counted(config: ServerConfig) -> None:
    config.ssl_handshake_timeout = 0.05
    before = refusals["head_time"]
    async with connected(config, Turns()) as plain:
        await plain.send_all(b"\x16\x03\x01\x02\x00")
        with trio.fail_after(10):
            assert await plain.receive_some() == b""
    assert refusals["head_time"] == before + 1


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        ({"unreadable": True}, "it cannot be read"),
        ({"lasts": -60}, "certificate has expired"),
        (None, "it presented none"),
    ],
)
async def test_a_refused_certificate_is_one_line(
    config: ServerConfig, authority: Authority, caplog: pytest.LogCaptureFixture, client: Any, reason: str
) -> None:
    caplog.set_level("INFO")
    context = authority.context(None if client is None else authority.issue("anna", **client))
    turns = Turns()
    async with turns.served(), connected(config, turns) as plain:
        stream = secured(plain, context)
        await stream.do_handshake()
        # The alert of TLS, or the end of the stream.
        with trio.fail_after(10), contextlib.suppress(trio.BrokenResourceError):
            assert await stream.receive_some() == b""
    assert caplog.messages == [f"the certificate of the client at a Unix socket was refused: {reason}"]
