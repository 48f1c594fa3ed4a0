"""Mutual TLS: two workers of `app.run`, and the bare `hypercorn` command, require certificates of one CA."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio
from cryptography.x509 import UniformResourceIdentifier as URI

from tests.certificates import SERVER, Authority, Issued
from trio_agentapp.client import AgentClient
from trio_agentapp.errors import ConnectionLost
from trio_agentapp.testing.redis_server import RedisServer

from .conftest import Start
from .harness import Server
from .http2 import H2Client
from .test_workers import none_left

ANNA = "spiffe://example.com/anna"


@pytest.fixture
async def redis() -> AsyncIterator[str]:
    async with RedisServer("valkey") as server:
        yield server.url


async def said(server: Server, context: ssl.SSLContext, transport: str) -> str:
    url = f"https://localhost:{server.port}"
    async with AgentClient(url, transport=transport, ssl_context=context) as client:  # type: ignore[arg-type]
        async with client.run("hi") as events:
            async for _ in events:
                pass
    assert events.response is not None
    return str(events.response["output"][0]["content"][0]["text"])


async def asked_by_http2(server: Server, context: ssl.SSLContext) -> bytes:
    context.set_alpn_protocols(["h2"])
    plain = await trio.open_tcp_stream("127.0.0.1", server.port)
    async with trio.SSLStream(plain, context, server_hostname="localhost", https_compatible=True) as stream:
        client = H2Client(server, stream)  # type: ignore[arg-type]
        client.h2.initiate_connection()
        body = {"input": "hi", "stream": False}
        return await client.answer(await client.request("POST", "/process", body))


@pytest.mark.parametrize("way", ["run", "hypercorn"])
async def test_certificates_are_required(start: Start, tmp_path: Path, redis: str, way: str) -> None:
    """The CA of the server is an intermediate one. Of its root's other certificates none counts."""
    root, other = Authority(tmp_path), Authority(tmp_path, "other")
    # Hypercorn trusts an intermediate one only with its root, so its own CA has none.
    clients = Authority(tmp_path, "clients", parent=root if way == "run" else None)
    files = root.server()
    anna = root.context(clients.issue("anna", URI(ANNA)))
    names = {"CERTFILE": files.cert, "KEYFILE": files.key, "CA_CERTS": clients.cert}
    env = {f"AGENTAPP_{name}": str(path) for name, path in names.items()}
    flags: tuple[str, ...] = ("--certfile", str(files.cert), "--keyfile", str(files.key))
    flags += ("--ca-certs", str(clients.cert), "--verify-mode", "CERT_REQUIRED")
    server = start("certified", way, flags=flags, env={"REDIS_URL": redis, **env} if way == "run" else {}, tls=anna)
    with none_left(server):
        texts = [await said(server, anna, transport) for transport in ("sse", "websocket") * 5]
        assert {text.split()[1] for text in texts} == {ANNA}
        assert ANNA.encode() in await asked_by_http2(server, anna)
        refused: list[tuple[Issued | None, str, str]] = [
            (None, "it presented none", "certificate required"),
            (clients.issue("old", URI(ANNA), lasts=-60), "certificate has expired", "certificate expired"),
            (root.issue("roots", URI(ANNA)), "self-signed certificate in certificate chain", "unknown ca"),
            (other.issue("others", URI(ANNA)), "unable to get local issuer certificate", "unknown ca"),
            (clients.issue("service", URI(ANNA), usage=SERVER), "unsuitable certificate purpose", "unsupported"),
        ]
        for number, (issued, logged, alert) in enumerate(refused):
            before = server.log.count(f"was refused: {logged}")
            for transport in ("sse", "websocket"):
                with pytest.raises(ConnectionLost, match=alert) as caught:
                    await said(server, root.context(issued), transport)
                assert "attempts" not in str(caught.value)
            assert server.log.count(f"was refused: {logged}") == before + 2, number
        # A client of TLS 1.2 hears it during its handshake.
        old = root.context()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        async with httpx.AsyncClient(verify=old) as http:
            with pytest.raises(httpx.ConnectError):
                await http.get(f"https://localhost:{server.port}/health")
        # A valid certificate with two names, or with none, is not a user.
        for nobody in (clients.issue("two", URI(ANNA), URI(ANNA + "2")), clients.issue("none")):
            async with httpx.AsyncClient(verify=root.context(nobody)) as http:
                answer = await http.get(f"https://localhost:{server.port}/runs")
            assert (answer.status_code, answer.json()["code"]) == (401, "invalid_credentials")
        server.close(allowed=".*[Rr]edis.*")  # its time-outs are short


async def test_a_server_that_does_not_ask(start: Start, tmp_path: Path) -> None:
    """The bare command does not know what the app needs, so each request is refused."""
    files = (root := Authority(tmp_path)).server()
    flags = ("--certfile", str(files.cert), "--keyfile", str(files.key))
    server = start("certified", "hypercorn", flags=flags, tls=root.context())
    async with httpx.AsyncClient(verify=root.context(root.issue("anna", URI(ANNA)))) as http:
        answer = await http.get(f"https://localhost:{server.port}/runs")
    assert answer.status_code == 401
    assert "cannot see client certificates" in answer.json()["detail"]
    server.close(allowed=".*this server does not ask clients for certificates; serve with TLS.*")
