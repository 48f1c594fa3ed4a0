"""What browsers of pages of other origins are told, in both ways of serving."""

from __future__ import annotations

import json
import re

import pytest

from trio_agentapp.web.cors import EXPOSED

from .a2a_client import headers_of, saying
from .conftest import Start
from .front_ends import ag_ui, chat_body
from .harness import Answer, Server, fresh, say
from .http2 import http2
from .sockets import connect

AGENT = "pages"
ORIGIN = "http://app.example:5173"
OPTIONS = {
    "cors_origins": [ORIGIN, "https://two.example"],
    "max_body_bytes": 2000,
    "web_ui": True,
    "enable_stream_task": True,
}
ALLOWED_LOG = r'.*"(GET \'/broken\' failed)".*'

PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}
TOLD = {
    "access-control-allow-origin": ORIGIN,
    "access-control-allow-credentials": "true",
    "access-control-expose-headers": EXPOSED.decode(),
}


def cors_of(answer: Answer) -> dict[str, str]:
    assert answer.header("vary") == "Origin"
    return {name: value for name, value in answer.headers if name.startswith("access-control-")}


@pytest.mark.parametrize("path", ["/process", "/runs/some-run-1/cancel", "/nowhere", "/own/../broken"])
async def test_a_preflight_is_answered_before_hooks_and_middleware(server: Server, path: str) -> None:
    answer = await server.call("OPTIONS", path, headers={**PREFLIGHT, "X-Refuse": "1"})
    assert (answer.status, answer.body) == (204, b"")
    assert cors_of(answer) == TOLD | {
        "access-control-allow-methods": "POST",
        "access-control-allow-headers": "authorization,content-type",
        "access-control-max-age": "600",
    }


async def test_a_preflight_that_names_no_headers(server: Server) -> None:
    headers = {"Origin": "https://two.example", "Access-Control-Request-Method": "DELETE"}
    answer = await server.call("OPTIONS", "/process", headers=headers)
    assert cors_of(answer)["access-control-allow-methods"] == "DELETE"
    assert cors_of(answer)["access-control-allow-origin"] == "https://two.example"
    assert answer.header("access-control-allow-headers") is None


@pytest.mark.parametrize("wrong", ["a: b", "a;b", "", "(x)"])
async def test_what_is_no_name_is_not_allowed_by_a_preflight(server: Server, wrong: str) -> None:
    answer = await server.call("OPTIONS", "/health", headers={**PREFLIGHT, "Access-Control-Request-Headers": wrong})
    assert answer.status == 204
    assert answer.header("access-control-allow-headers") is None


@pytest.mark.parametrize(
    "origin", ["http://app.example", "https://app.example:5173", "http://app.example:5173.evil.example", "null", ""]
)
async def test_other_origins_get_no_headers(server: Server, origin: str) -> None:
    preflight = await server.call("OPTIONS", "/health", headers={**PREFLIGHT, "Origin": origin})
    assert (preflight.status, cors_of(preflight)) == (200, {})
    answer = await server.call("GET", "/health", headers={"Origin": origin})
    assert (answer.status, cors_of(answer)) == (200, {})


async def test_an_options_route_of_the_users_own_wins(server: Server) -> None:
    answer = await server.call("OPTIONS", "/own", headers=PREFLIGHT)
    assert (answer.status, answer.body, cors_of(answer)) == (200, b"my own", TOLD)
    refused = await server.call("OPTIONS", "/own", headers={**PREFLIGHT, "X-Refuse": "1"})
    assert (refused.status, cors_of(refused)) == (401, TOLD)


async def test_what_is_no_preflight_reaches_the_app(server: Server) -> None:
    answer = await server.call("OPTIONS", "/process", headers={"Origin": ORIGIN})
    assert (answer.status, answer.body, cors_of(answer)) == (401, b"who are you?", TOLD)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/health", None, 200),
        ("GET", "/nowhere", None, 404),
        ("GET", "/process", None, 405),
        ("POST", "/process", b" " * 3000, 413),
        ("POST", "/process", {"input": 5}, 422),
        ("GET", "/broken", None, 500),
        ("GET", "/early", None, 401),
    ],
)
async def test_every_answer_names_the_origin(
    server: Server, method: str, path: str, body: object, status: int
) -> None:
    answer = await server.call(method, path, body, headers={"Origin": ORIGIN})
    assert (answer.status, cors_of(answer)) == (status, TOLD)
    # A cache must not give it to a page of another origin.
    without = await server.call(method, path, body)
    assert (without.status, cors_of(without)) == (status, {})


async def test_streams_name_it_too(server: Server) -> None:
    async with server.connect() as client:
        await client.send("POST", "/process", {"input": say(), "count": 1}, headers={"Origin": ORIGIN})
        head = await client.head()
    assert (head.status, cors_of(head)) == (200, TOLD)
    assert head.header("x-run-id")


async def test_over_http2(server: Server) -> None:
    async with http2(server) as client:
        number = await client.request("OPTIONS", "/process", more={k.lower(): v for k, v in PREFLIGHT.items()})
        assert await client.answer(number) == b""
        assert client.headers[number].items() >= {":status": "204", **TOLD}.items()
        number = await client.request("GET", "/nowhere", more={"origin": ORIGIN})
        assert json.loads(await client.answer(number))["status"] == 404
        assert client.headers[number].items() >= TOLD.items()


async def test_an_answer_that_names_an_origin_itself_keeps_it(server: Server) -> None:
    answer = await server.call("GET", "/named", headers={"Origin": ORIGIN})
    assert cors_of(answer) == {"access-control-allow-origin": "https://chosen.example"}


A2A = headers_of("1.0")
CALL = {"jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": {"message": saying("few")}}
RESPONSE = {"input": "few"}
COMPLETION = {"messages": [{"role": "user", "content": "few"}]}

PROTOCOLS: list[tuple[str, str, object, int]] = [
    ("POST", "/process", {"input": "few"}, 200),
    ("POST", "/process/task", {"input": "few"}, 202),
    ("POST", "/v1/responses", RESPONSE, 200),
    ("POST", "/compatible-mode/v1/responses", {}, 400),
    ("GET", "/v1/responses/resp_unknown-1", None, 404),
    ("POST", "/v1/chat/completions", {**COMPLETION, "stream": True}, 200),
    ("POST", "/v1/chat/completions", [], 400),
    ("GET", "/v1/models", None, 200),
    ("POST", "/ag-ui", ag_ui("few"), 200),
    ("POST", "/ag-ui", {}, 422),
    ("POST", "/ai-sdk/chat", chat_body("few"), 200),
    ("POST", "/ai-sdk/chat", {}, 422),
    ("GET", "/ai-sdk/chat/unknown/stream", None, 204),
    ("POST", "/a2a", CALL, 200),
    ("POST", "/a2a", b"{", 200),
    ("POST", "/message:send", {"message": saying("few")}, 200),
    ("POST", "/message:stream", {"message": saying("few")}, 200),
    ("POST", "/message:send", {}, 400),
    ("GET", "/tasks/unknown-task", None, 404),
    ("GET", "/.well-known/agent-card.json", None, 200),
    ("GET", "/chat", None, 200),
    ("GET", "/runs/unknown-run", None, 404),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), PROTOCOLS)
async def test_every_protocol(server: Server, method: str, path: str, body: object, status: int) -> None:
    """A page of an allowed origin may ask and read; one of another may neither."""
    asks = {**PREFLIGHT, "Access-Control-Request-Method": method}
    asks["Access-Control-Request-Headers"] = "authorization,content-type,a2a-version"
    allowed = await server.call("OPTIONS", path, headers=asks)
    if path != "/process":
        assert (allowed.status, allowed.header("access-control-allow-methods")) == (204, method)
    assert allowed.header("access-control-allow-headers") == asks["Access-Control-Request-Headers"]
    refused = await server.call("OPTIONS", path, headers={**asks, "Origin": "http://evil.example"})
    assert not [name for name, _ in refused.headers if name.startswith("access-control-")]
    for origin, told in ((ORIGIN, TOLD), ("http://evil.example", {})):
        sent = {**body, "runId": fresh("run")} if isinstance(body, dict) and "runId" in body else body
        answer = await server.call(method, path, sent, headers={**A2A, "Origin": origin})
        assert answer.status == status, answer
        varies = [value for name, value in answer.headers if name == "vary"]
        assert "Origin" in varies
        assert {name: value for name, value in answer.headers if name.startswith("access-control-")} == told


FORMS = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None]
"""Types of bodies for which a browser sends no preflight; None: a Blob without a type."""

STARTS = {
    path: body for method, path, body, status in PROTOCOLS if method == "POST" and status < 300 and body != b"{"
}


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("path", STARTS)
async def test_what_a_page_can_send_unasked_starts_nothing(server: Server, path: str, kind: str | None) -> None:
    """Also by no protocol."""
    body = json.dumps(STARTS[path]).encode()
    fields = {**A2A, "Origin": "http://evil.example", "Content-Length": str(len(body))}
    if kind is not None:
        fields["Content-Type"] = kind
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    async with server.connect() as client:
        raw = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{head}\r\n".encode() + body
        await client.stream.send_all(raw)
        answer = await client.wait_eof()
    # A2A has its own error for it, with its own status.
    assert answer.startswith(b"HTTP/1.1 415 ") or b"CONTENT_TYPE_NOT_SUPPORTED" in answer, answer
    assert b"x-run-id" not in answer.lower()


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_what_a_form_can_send_starts_nothing(server: Server, kind: str) -> None:
    run_id = fresh("run-of-a-form")
    body = json.dumps({"input": say(), "id": run_id}).encode()
    headers = {"Origin": "http://evil.example", "Content-Type": kind}
    answer = await server.call("POST", "/process", body, headers=headers)
    assert (answer.status, cors_of(answer)) == (415, {})
    assert (await server.call("GET", f"/runs/{run_id}")).status == 404


@pytest.mark.parametrize(("origin", "welcome"), [(ORIGIN, True), (ORIGIN + "0", False), ("null", False)])
async def test_pages_of_allowed_origins_may_use_the_socket(server: Server, origin: str, welcome: bool) -> None:
    async with connect(server, headers={"Origin": origin}, ready=welcome) as socket:
        if not welcome:
            assert await socket.wait_closed() == (4403, "this origin is not allowed")


async def test_without_the_setting_nothing_is_said(start: Start) -> None:
    server = start(AGENT)
    for method in ("OPTIONS", "GET"):
        answer = await server.call(method, "/health", headers=PREFLIGHT)
        assert not [name for name, _ in answer.headers if re.match("access-control|vary", name)]


async def test_origins_from_the_environment(start: Start) -> None:
    server = start(AGENT, env={"AGENTAPP_CORS_ORIGINS": f"https://one.example, {ORIGIN}"})
    assert cors_of(await server.call("GET", "/health", headers={"Origin": ORIGIN})) == TOLD
