"""Which hosts an app answers for: no page whose name was made to lead to this machine may use its agent."""

from __future__ import annotations

import pytest

from .conftest import Start
from .harness import WAYS, Server, say
from .http2 import http2

REFUSED = r".*refused a request for the host .*"

NAMES = ["localhost", "LOCALHOST:{port}", "agent.localhost:1", "localhost.", "127.0.0.1:{port}", "127.0.0.1"]
ADDRESSES = ["[::1]:{port}", "10.1.2.3:8090", "[fe80::1]"]
OTHERS = [
    "evil.example",
    "evil.example:{port}",
    "localhost.evil.example",
    "evillocalhost",
    "127.0.0.1.evil.example",
]
STRANGE = ["127.0.0.1@evil.example", "127.0.0.1:80:80", "[::1", "127.0.0.1:x", "evil.example, 127.0.0.1", "*", "."]


async def status_of(server: Server, host: str, path: str = "/health") -> int:
    answer = await server.call("GET", path, headers={"Host": host.format(port=server.port)})
    assert answer.status == 200 or answer.json()["code"] == "misdirected_request", answer
    return answer.status


async def test_on_loopback_only_this_machine_is_answered_for(start: Start) -> None:
    server = start()
    for host in (*NAMES, *ADDRESSES):
        assert (host, await status_of(server, host)) == (host, 200)
    for host in (*OTHERS, *STRANGE):
        assert (host, await status_of(server, host)) == (host, 421)
    answer = await server.call("POST", "/process", {"input": say()}, headers={"Host": "Evil.example:80"})
    problem = answer.json()
    assert problem.pop("request_id")
    assert (answer.status, problem) == (
        421,
        {
            "type": "urn:trio-agentapp:problem:misdirected_request",
            "title": "Misdirected request",
            "status": 421,
            "detail": "This server does not answer for the host 'evil.example'. "
            "If it should, add that to allowed_hosts.",
            "instance": "/process",
            "code": "misdirected_request",
            "retryable": False,
        },
    )
    # It is logged once, whatever comes.
    assert server.log.count("AGENTAPP_ALLOWED_HOSTS") == 1
    server.close(allowed=REFUSED)


async def test_over_http2_and_without_a_host(start: Start) -> None:
    server = start()
    async with http2(server) as client:
        for authority, status in (("evil.example", "421"), ("localhost", "200")):
            number = client.h2.get_next_available_stream_id()
            headers = [(":method", "GET"), (":path", "/health"), (":scheme", "http"), (":authority", authority)]
            client.h2.send_headers(number, headers, end_stream=True)
            client.data[number] = b""
            await client.flush()
            await client.answer(number)
            assert client.headers[number][":status"] == status
    async with server.connect() as plain:
        await plain.stream.send_all(b"GET /health HTTP/1.0\r\n\r\n")
        assert b" 200 " in await plain.wait_eof()


@pytest.mark.parametrize("path", ["/ws", "/nowhere"])
async def test_sockets_are_refused_too(start: Start, path: str) -> None:
    server = start()
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    upgrade["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    answer = await server.call("GET", path, headers={**upgrade, "Host": "evil.example"})
    assert (answer.status, answer.json()["code"]) == (421, "misdirected_request")
    assert answer.header("content-type") == "application/problem+json"
    server.close(allowed=REFUSED)


@pytest.mark.parametrize("way", WAYS)
async def test_named_hosts_are_answered_for(start: Start, way: str) -> None:
    server = start(way=way, env={"AGENTAPP_ALLOWED_HOSTS": "agent.example.com, *.example.org"})
    for host in (*NAMES, *ADDRESSES, "agent.example.com:{port}", "Agent.Example.Com", "a.b.example.org"):
        assert (host, await status_of(server, host)) == (host, 200)
    for host in (*OTHERS, *STRANGE, "example.org", "x.agent.example.com", "evilexample.org"):
        assert (host, await status_of(server, host)) == (host, 421)


async def test_all_hosts(start: Start) -> None:
    server = start(allowed_hosts=["*"])
    for host in (*NAMES, *OTHERS):
        assert (host, await status_of(server, host)) == (host, 200)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", ["/health", "/ws"])
async def test_what_is_no_host_is_refused_everywhere(start: Start, way: str, path: str) -> None:
    server = start(way=way, allowed_hosts=["*"], cors_origins=["https://a.example"])
    headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    if path == "/ws":
        headers |= {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        headers["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    for host in (".", "a..localhost", f"{'a' * 64}.localhost"):
        for method in ("GET",) if path == "/ws" else ("GET", "OPTIONS"):
            answer = await server.call(method, path, headers={**headers, "Host": host})
            assert (host, answer.status, answer.json()["code"]) == (host, 421, "misdirected_request")
    server.close(allowed=REFUSED)


async def test_where_the_address_is_not_known_all_are_answered_for(start: Start) -> None:
    server = start(way="hypercorn")
    for host in (*NAMES, *OTHERS):
        assert (host, await status_of(server, host)) == (host, 200)
