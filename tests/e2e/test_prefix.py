"""Every address that the app gives out can be followed, under a prefix that its proxy removes or does not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
import trio

from .harness import Answer, Client, Server, fresh, say
from .sockets import connect

SITE = "https://agents.example"
FORWARDED = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "agents.example", "X-Forwarded-For": "203.0.113.9"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    options = {"trusted_proxies": ["127.0.0.1"], "root_path": "/agents"}
    server = Server("behind", "run", tmp_path_factory.mktemp("behind"), {"AGENT_OPTIONS": json.dumps(options)})
    try:
        server.wait_ready()
        yield server
    finally:
        server.kill()


class Front:
    """A proxy at https://agents.example. It serves the app below a prefix, and nothing else."""

    def __init__(self, server: Server, prefix: str, *, strips: bool, sends: bool) -> None:
        self.server = server
        self.prefix = prefix
        self._strips = strips
        self.headers = {**FORWARDED, **({"X-Forwarded-Prefix": prefix} if sends else {})}

    def target(self, url: str) -> str:
        """The path that the app gets for a URL of the site. Fails if the proxy would not pass it on."""
        parts = urlsplit(urljoin(SITE, url))
        assert f"{parts.scheme}://{parts.netloc}" == SITE, url
        assert (parts.path + "/").startswith(self.prefix + "/"), f"{url} is not below {self.prefix}"
        path = parts.path.removeprefix(self.prefix) if self._strips else parts.path
        return path + (f"?{parts.query}" if parts.query else "")

    async def call(self, method: str, url: str, body: Any = None, **headers: str) -> Answer:
        return await self.server.call(method, self.target(url), body, headers={**self.headers, **headers})

    async def get(self, url: str, status: int = 200) -> Answer:
        answer = await self.call("GET", url)
        assert answer.status == status, (url, answer)
        return answer

    def url(self, path: str) -> str:
        return self.prefix + path


@pytest.fixture(params=["kept", "removed", "sent"])
def front(server: Server, request: pytest.FixtureRequest) -> Front:
    """The app knows its prefix, and the proxy keeps or removes it; or the proxy removes another and says so."""
    prefix = "/other/place" if request.param == "sent" else "/agents"
    return Front(server, prefix, strips=request.param != "kept", sends=request.param == "sent")


async def test_every_address_can_be_followed(front: Front) -> None:
    site, url = SITE + front.prefix, front.url
    # The welcome lists every route.
    welcome = (await front.get(url("/"))).json()
    simple = [path for path, methods in welcome["routes"].items() if "GET" in methods and "{" not in path]
    assert url("/readiness") in simple
    # Some want credentials or headers. Only a route that does not exist answers 404.
    for path in simple:
        answer = await front.call("GET", path)
        assert answer.status != 404, path
        assert answer.status < 500, (path, answer)
    # OpenAPI.
    document = (await front.get(url("/openapi.json"))).json()
    [server] = document["servers"]
    for path, operations in document["paths"].items():
        if "get" in operations and "{" not in path:
            assert (await front.call("GET", server["url"] + path)).status != 404, path
    # Pages, with the files that they load.
    docs = (await front.get(url("/docs"))).body.decode()
    [loaded] = re.findall(r'fetch\("([^"]+)"\)', docs)
    await front.get(urljoin(SITE + url("/docs"), loaded))
    await follow_page(front, SITE + url("/chat"))
    # The agent card: both bindings, and what belongs to them.
    card = (await front.get(url("/.well-known/agent-card.json"))).json()
    addresses = {each["protocolBinding"]: each["url"] for each in card["supportedInterfaces"]}
    assert addresses == {"JSONRPC": f"{site}/a2a", "HTTP+JSON": site}
    assert (card["url"], card["provider"]["url"]) == (f"{site}/a2a", site)
    message = {"messageId": fresh(), "role": "user", "parts": [{"kind": "text", "text": "hi"}]}
    call = {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": message}}
    answer = await front.call("POST", card["url"], call)
    assert "result" in answer.json(), answer
    tasks = await front.call("GET", addresses["HTTP+JSON"] + "/tasks", **{"A2A-Version": "1.0"})
    assert "tasks" in tasks.json(), tasks
    # Redirects and addresses that views make.
    moved = await front.call("GET", url("/folder"))
    assert moved.status in (301, 307, 308)
    place = moved.header("location") or ""
    found = (await front.get(place)).json()
    assert found == {"here": url("/folder/"), "whole": f"{site}/folder/"}
    sent_on = await front.call("GET", url("/elsewhere"))
    assert (sent_on.status, sent_on.header("location")) == (302, url("/folder/"))


async def follow_page(front: Front, page: str) -> None:
    text = (await front.get(page)).body.decode()
    waiting = [urljoin(page, link) for link in re.findall(r'(?:href|src)="([^"#:]+)"', text)]
    assert len(waiting) >= 2
    known = set(waiting)
    while waiting:
        place = waiting.pop()
        script = (await front.get(place)).body.decode()
        further = {urljoin(place, name) for name in re.findall(r'from "([^"]+)"', script)} - known
        known |= further
        waiting += further
    assert {Path(each).name for each in known} >= {"chat.css", "chat.js", "api.js"}


async def test_runs_and_tasks_can_be_followed(front: Front) -> None:
    url = front.url
    answer = await front.call("POST", url("/process"), {"input": say(), "session_id": fresh()})
    assert answer.status == 200, answer
    run = answer.header("location") or ""
    assert run == url(f"/runs/{answer.header('x-run-id')}")
    await front.get(run)
    assert b'"completed"' in (await front.get(run + "/stream")).body
    for path in ("/job", "/process/task"):
        answer = await front.call("POST", url(path), {"input": say()} if path != "/job" else {})
        assert answer.status in (200, 202), answer
        await front.get(answer.header("location") or "")
    session = fresh("a/b")
    answer = await front.call("POST", url("/process"), {"input": say(), "session_id": session, "stream": False})
    assert answer.status == 200, answer
    history = await front.get(url(f"/sessions/{session.replace('/', '%2F')}/history?user_id={session}"))
    assert history.json()["session_id"] == session
    # A refusal names its resource as the client knows it.
    missing = await front.get(url("/runs/00000000"), 404)
    assert missing.json()["instance"] == url("/runs/00000000")
    assert (await front.get(url("/nowhere"), 404)).json()["instance"] == url("/nowhere")


async def test_sockets_have_the_prefix_too(front: Front, server: Server) -> None:
    seen_at, runs_at = (front.target(front.url(path)) for path in ("/seen/socket", "/ws"))
    async with connect(server, headers=front.headers, path=seen_at, ready=False) as socket:
        seen = await socket.receive()
    assert seen == {
        "type": "seen",
        "address": "203.0.113.9",
        "url": f"wss://agents.example{front.prefix}/seen/socket",
    }
    # The page's origin is compared with the host that the proxy has named.
    async with connect(server, headers={**front.headers, "Origin": SITE}, path=runs_at) as socket:
        await socket.start("1")
        await socket.wait_for("1", "started")


async def test_a_card_has_one_tag_for_each_prefix(server: Server) -> None:
    tags = {}
    for prefix in ("/one", "/two"):
        front = Front(server, prefix, strips=True, sends=True)
        first = await front.get(prefix + "/.well-known/agent-card.json")
        tags[prefix] = first.header("etag") or ""
        assert "X-Forwarded-Prefix" in (first.header("vary") or "")
        again = await front.call("GET", prefix + "/.well-known/agent-card.json", **{"If-None-Match": tags[prefix]})
        assert again.status == 304
    other = Front(server, "/two", strips=True, sends=True)
    answer = await other.call("GET", "/two/.well-known/agent-card.json", **{"If-None-Match": tags["/one"]})
    assert answer.status == 200
    assert tags["/one"] != tags["/two"]


async def test_logs_and_hooks_have_the_clients_address(server: Server) -> None:
    answer = await server.call("GET", "/seen", headers={**FORWARDED, "X-User": "anna"})
    # The header of the authenticator counts by the connection, which is the proxy's.
    assert answer.json() == {
        "address": "203.0.113.9",
        "url": "https://agents.example/agents/seen",
        "user": "anna",
        "http": "1.1",
    }
    assert (await server.call("GET", "/admin/status", headers=FORWARDED)).status == 401
    await server.wait_until(
        lambda: (
            "GET /agents/seen from 203.0.113.9: 200" in server.log
            and "GET /admin/status from 203.0.113.9: refused" in server.log
        ),
        "log lines with the client's address",
    )


async def test_another_peer_is_not_believed(server: Server) -> None:
    spoofed = {**FORWARDED, "X-Forwarded-Prefix": "/evil", "X-User": "anna", "Forwarded": "for=1.2.3.4;host=evil"}
    stream = await trio.open_tcp_stream("127.0.0.1", server.port, local_address="127.0.0.2")
    async with stream:
        client = Client(server, stream)
        await client.send("GET", "/folder/", headers=spoofed)
        answer = await client.answer()
        assert answer.json() == {"here": "/agents/folder/", "whole": "http://127.0.0.1/agents/folder/"}
        client.next_request()
        await client.send("GET", "/seen", headers=spoofed)
        assert (await client.answer()).status == 401
        client.next_request()
        await client.send("GET", "/seen", headers={**spoofed, "X-User": ""})
        assert (await client.answer()).status == 401


async def test_the_host_of_a_proxy_does_not_replace_the_check_of_the_host(server: Server) -> None:
    # What the script of a page could send, whose name leads to this machine.
    headers = {**FORWARDED, "Host": "a..localhost"}
    assert (await server.call("GET", "/health", headers=headers)).status == 421
    headers = {**FORWARDED, "X-Forwarded-Host": "a..localhost"}
    assert (await server.call("GET", "/health", headers=headers)).status == 421


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Prefix", "Forwarded"])
async def test_malformed_headers_are_passed_over(server: Server, name: str) -> None:
    for value in ('"', ",,;;==", "\xff\xfe", "[", "a" * 5000, "for=[", "//", "../..", "\t", '"\\'):
        async with server.connect() as client:
            head = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{name}: {value}\r\n\r\n"
            await client.stream.send_all(head.encode("latin-1"))
            status = (await client.wait_eof())[9:12]
            # What has the form of a host and is none is refused.
            assert status == (b"421" if name == "X-Forwarded-Host" and len(value) == 5000 else b"200"), value


async def test_over_http2(server: Server) -> None:
    from .http2 import http2

    async with http2(server) as client:
        number = await client.request("GET", "/seen", more={key.lower(): value for key, value in FORWARDED.items()})
        seen = json.loads(await client.answer(number))
    assert (seen["address"], seen["url"], seen["http"]) == (
        "203.0.113.9",
        "https://agents.example/agents/seen",
        "2",
    )
