"""What a client gets that sends too much, at every entry."""

from __future__ import annotations

import time
from typing import Any

import pytest
import trio
from redis import Redis

from trio_agentapp import AgentApp, Principal, Run
from trio_agentapp.refusals import refusals
from trio_agentapp.testing.redis_server import RedisServer

from .conftest import chat_body, post, serve

ASKED = {"messages": [{"role": "user", "content": "Hi"}]}
RPC = {"jsonrpc": "2.0", "id": 7, "method": "ListTasks", "params": {}}
A2A = {"A2A-Version": "1.0"}

ENTRIES: list[tuple[str, str, Any, dict[str, str]]] = [
    ("POST", "/process", chat_body("Hi"), {}),
    ("POST", "/stop", {"session_id": "s"}, {}),
    ("POST", "/process/task", chat_body("Hi"), {}),
    ("GET", "/process/task/0123456789", None, {}),
    ("GET", "/runs?user_id=u", None, {}),
    ("GET", "/questions?user_id=u", None, {}),
    ("GET", "/runs/0123456789", None, {}),
    ("GET", "/runs/0123456789/stream", None, {}),
    ("GET", "/runs/0123456789/wait", None, {}),
    ("GET", "/runs/0123456789/tree", None, {}),
    ("POST", "/runs/0123456789/cancel", None, {}),
    ("POST", "/runs/0123456789/input", {}, {}),
    ("POST", "/runs/cancel", {"run_ids": ["0123456789"]}, {}),
    ("GET", "/sessions/s/history", None, {}),
    ("POST", "/add", 1, {}),
    ("GET", "/add/0123456789", None, {}),
    ("POST", "/double", {"number": 1}, {}),
    ("GET", "/plain", None, {}),
    ("GET", "/docs", None, {}),
    ("GET", "/chat", None, {}),
    ("GET", "/there/is/no/such/path", None, {}),
    ("POST", "/v1/responses", {"input": "Hi"}, {}),
    ("POST", "/v1/chat/completions", ASKED, {}),
    ("POST", "/compatible-mode/v1/chat/completions", ASKED, {}),
    ("POST", "/ag-ui", {"threadId": "t", "runId": "r", "messages": []}, {}),
    ("POST", "/ai-sdk/chat", {"id": "c", "messages": []}, {}),
    ("POST", "/a2a", RPC, A2A),
    ("GET", "/tasks", None, A2A),
    ("POST", "/message:send", {}, A2A),
]


def limited_app(**options: Any) -> AgentApp:
    app = AgentApp(enable_stream_task=True, web_ui=True, **options)

    @app.query()
    async def chat(msgs: Any, run: Run) -> Any:
        yield "Hello"
        if msgs[-1].text == "wait":
            await trio.sleep_forever()

    @app.endpoint("/double")
    async def double(number: int) -> int:
        return 2 * number

    @app.get("/plain")
    async def plain() -> str:
        return "plain"

    @app.task("/add", queue="q")
    async def add(number: int) -> int:
        return number + 1

    return app


def at(address: str) -> dict[str, Any]:
    """The options of a request from an address."""
    return {"scope_base": {"client": (address, 1)}}


async def asked(client: Any, method: str, path: str, body: Any, headers: dict[str, str], address: str) -> Any:
    options = {} if body is None else {"json": body}
    return await client.open(path, method=method, headers=headers, **options, **at(address))


async def test_every_entry_refuses_in_its_own_words() -> None:
    async with serve(limited_app(requests_per_second=0.02)) as client:
        assert (await client.get("/plain", **at("10.0.0.1"))).status_code == 200
        before = refusals["requests"]
        for count, (method, path, body, headers) in enumerate(ENTRIES, 1):
            answer = await asked(client, method, path, body, headers, "10.0.0.1")
            where = f"{method} {path}: {await answer.get_data()!r}"
            assert answer.status_code == 429, where
            assert 1 <= int(answer.headers["Retry-After"]) <= 50, where
            assert answer.headers["RateLimit-Policy"] == '"requests";q=1;w=50', where
            assert answer.headers["RateLimit"] == f'"requests";r=0;t={answer.headers["Retry-After"]}', where
            if path == "/ai-sdk/chat":  # its client shows the text
                assert "The limit of requests" in (await answer.get_data()).decode(), where
                continue
            document = await answer.get_json(force=True)
            if "compatible" in path or "/v1/" in path:
                assert document["error"]["type"] == "rate_limit_error", where
                assert document["error"]["code"] == "too_many_requests", where
            elif path == "/a2a":
                assert document["error"]["data"][0]["reason"] == "TOO_MANY_REQUESTS", where
            elif headers:
                assert document["error"]["status"] == "RESOURCE_EXHAUSTED", where
            elif path == "/ag-ui":
                assert (document["type"], document["code"]) == ("RUN_ERROR", "too_many_requests"), where
            else:
                assert (document.get("code"), document.get("limit")) == ("too_many_requests", "requests"), where
                assert (document["quota"], document["window"]) == (1, 50.0), where
            assert refusals["requests"] == before + count, where
        # Machines are answered, other addresses too, and networks of IPv6 count as one.
        for path in ("/health", "/liveness", "/readiness"):
            assert (await client.get(path, **at("10.0.0.1"))).status_code == 200
        for address, status in (("10.0.0.2", 200), ("fe80::1", 200), ("fe80::2", 429), ("fe80:0:0:1::1", 200)):
            assert (await client.get("/plain", **at(address))).status_code == status, address
        assert (await client.get("/plain", **at("::ffff:10.0.0.2"))).status_code == 429


async def test_each_user_has_his_own_requests_and_failures_lock_nobody_out() -> None:
    async def authenticate(request: Any) -> Principal | None:
        name = request.headers.get("X-User")
        return None if name is None else Principal(name)

    async with serve(limited_app(requests_per_second=0.02, authenticate=authenticate)) as client:

        async def status(user: str | None, path: str = "/runs") -> int:
            headers = {} if user is None else {"X-User": user}
            return int((await client.get(path, headers=headers, **at("10.0.0.1"))).status_code)

        assert [await status("u1"), await status("u1"), await status("u2")] == [200, 429, 200]
        assert [await status(None), await status(None), await status("u3")] == [401, 429, 200]
        assert [await status("u4", "/plain"), await status("u5", "/plain")] == [200, 429]


async def test_wrong_admin_tokens_are_counted_and_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    token = "correct-horse-battery"
    async with serve(limited_app(requests_per_second=0.02, admin_token=token)) as client:

        async def status(*tokens: str) -> int:
            headers = [("Authorization", f"Bearer {each}") for each in tokens]
            return int((await client.get("/admin/status", headers=headers, **at("10.0.0.1"))).status_code)

        assert [await status("wrong"), await status("wrong"), await status(token)] == [401, 429, 200]
        assert await status(token) == 200
        assert await status(token, "wrong") == 429
    assert caplog.text.count(": refused") == 1


async def test_without_a_limit_or_an_address_all_are_answered() -> None:
    async with serve(limited_app(requests_per_second=0)) as client:
        for _ in range(300):
            assert (await client.get("/plain", **at("10.0.0.1"))).status_code == 200
    async with serve(limited_app(requests_per_second=0.02)) as client:
        for _ in range(3):
            assert (await client.get("/plain")).status_code == 200


async def test_a_user_has_so_many_open_runs() -> None:
    body = {**chat_body("wait"), "background": True}
    async with serve(limited_app(max_runs_per_user=2, max_runs=3, drain_timeout=0)) as client:

        async def start(user: str) -> tuple[int, Any]:
            return await post(client, "/process", {**body, "user_id": user, "session_id": f"s{time.time_ns()}"})

        first = (await start("u1"))[1]["run_id"]
        assert (await start("u1"))[0] == 202
        status, document = await start("u1")
        assert (status, document["code"], document["limit"], document["quota"]) == (
            429,
            "rate_limited",
            "runs_per_user",
            2,
        )
        assert (await start("u2"))[0] == 202
        status, document = await start("u3")
        assert (status, document["limit"]) == (429, "runs_per_node")
        response = await client.post("/process", json={**body, "user_id": "u3"})
        assert response.headers["RateLimit-Policy"] == '"runs_per_node";q=3;qu="concurrent-requests"'
        assert (await post(client, f"/runs/{first}/cancel?wait=1&user_id=u1"))[0] == 200
        assert (await start("u1"))[0] == 202


@pytest.mark.parametrize(
    ("limit", "request_body"),
    [
        ("messages", {"input": [{"role": "user", "content": "x"}] * 4097}),
        (
            "attachments",
            {"input": [{"role": "user", "content": [{"type": "image", "image_url": "https://example.com"}] * 257}]},
        ),
        ("ids", {"input": "Hi", "session_id": "x" * 257}),
    ],
)
async def test_a_request_has_so_many_parts(limit: str, request_body: Any) -> None:
    async with serve(limited_app()) as client:
        before = refusals[limit]
        assert (await post(client, "/process", request_body))[0] == 422
        assert refusals[limit] == before + 1


@pytest.mark.parametrize("identified", [True, False])
async def test_without_identity_the_user_is_what_a_front_end_says_and_not_limited(identified: bool) -> None:
    async def authenticate(_request: Any) -> Principal:
        return Principal("u1")

    options: Any = {"authenticate": authenticate} if identified else {}
    async with serve(limited_app(drain_timeout=0, requests_per_second=0, **options)) as client:
        body = {**chat_body("wait"), "background": True, "user_id": "u1"}
        for number in range(101):
            status, document = await post(client, "/process", {**body, "session_id": f"s{number}"})
            assert status == 202 or number == 100, document
        assert status == (429 if identified else 202)


async def test_levels_and_bytes_of_a_body_are_counted() -> None:
    async with serve(limited_app(max_body_bytes=10_000)) as client:
        before = refusals.copy()
        headers = {"Content-Type": "application/json"}
        assert (await client.post("/process", data=b"[" * 2000, headers=headers)).status_code == 400
        assert (await client.post("/process", data=b"[" * 20_000, headers=headers)).status_code == 413
        assert refusals - before == {"nesting": 1, "body": 1}


async def test_the_metric_has_what_was_refused() -> None:
    pytest.importorskip("prometheus_client")
    async with serve(limited_app(requests_per_second=0.02, metrics=True)) as client:
        for _ in range(3):
            await client.get("/plain", **at("10.0.0.1"))
        page = (await (await client.get("/metrics", **at("10.0.0.1"))).get_data()).decode()
        name = 'agent_limit_refusals_total{limit="requests"}'
        [line] = [line for line in page.splitlines() if line.startswith(name)]
        assert float(line.split()[1]) == refusals["requests"]


async def test_two_nodes_share_the_limit_over_redis() -> None:
    async with RedisServer() as server:
        options: Any = {"interrupt_redis_url": server.url, "requests_per_second": 0.1}
        async with serve(limited_app(**options)) as first, serve(limited_app(**options)) as second:
            # A burst is one request; each one that is beyond it is paid for by the next ones.
            assert (await first.get("/plain", **at("10.0.0.1"))).status_code == 200
            with trio.fail_after(5), Redis.from_url(server.url) as told:
                # A node learns what others have told when it tells what it has given out itself.
                while not any(b"rate" in key for key in told.keys()):  # noqa: SIM118  keys() asks Redis
                    await trio.sleep(0.01)
            assert (await second.get("/plain", **at("10.0.0.1"))).status_code == 200
            waits = []
            with trio.fail_after(5):
                while max(waits, default=0) <= 10:
                    answer = await second.get("/plain", **at("10.0.0.1"))
                    assert answer.status_code == 429
                    waits.append(int(answer.headers["Retry-After"]))
                    await trio.sleep(0.05)
            assert max(waits) <= 20
            assert (await second.get("/plain", **at("10.0.0.2"))).status_code == 200
