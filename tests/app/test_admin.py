"""The routes of operators: they need the admin token, and do not exist without one."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import pytest
import trio
import trio.lowlevel

from trio_agentapp import AgentApp, Run, Timings
from trio_agentapp.app.settings import Settings
from trio_agentapp.app.shown_settings import shown_settings
from trio_agentapp.errors import ConfigurationError

from .conftest import Served, chat_body, post

TOKEN = "correct-horse-battery"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
ROUTES = [
    ("GET", "/admin/status"),
    ("GET", "/admin/runs"),
    ("GET", "/admin/config"),
    ("POST", "/admin/drain"),
    ("POST", "/admin/shutdown"),
]


def waiting_app(**options: Any) -> AgentApp:
    app = AgentApp(admin_token=TOKEN, **options)

    @app.query()
    async def chat(self: Any, msgs: Any, run: Run) -> Any:
        yield "one "
        if msgs[-1].text == "wait":
            await trio.sleep_forever()

    return app


async def block_often() -> None:
    while True:
        await trio.lowlevel.checkpoint()
        time.sleep(0.05)  # noqa: ASYNC251  as a handler does that blocks


async def ask(client: Any, method: str, path: str, headers: dict[str, str] = BEARER) -> tuple[int, Any]:
    with trio.fail_after(10):
        response = await client.open(path, method=method, headers=headers)
        return response.status_code, json.loads(await response.get_data())


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_without_a_token_of_the_app_there_is_no_route(served: Served, method: str, path: str) -> None:
    async with served(AgentApp()) as client:
        assert (await ask(client, method, path))[0] == 404
        root = await (await client.get("/")).get_json()
    assert not [path for path in root["routes"] if path.startswith("/admin")]


WRONG = [
    {},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer "},
    {"Authorization": f"Bearer {TOKEN[:-1]}"},
    {"Authorization": f"Bearer {TOKEN}x"},
    {"Authorization": f"Basic {TOKEN}"},
    {"Authorization": TOKEN},
    {"Authorization": "Bearer \u00fc\u00fc"},
    {"X-Admin-Token": TOKEN},
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("headers", WRONG)
async def test_a_wrong_token_is_refused_and_does_nothing(
    served: Served, method: str, path: str, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    app = waiting_app()
    async with served(app) as client:
        response = await client.open(path, method=method, headers=headers)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert app.unready_reason() is None
    [line] = [record for record in caplog.records if record.name == "trio_agentapp.admin"]
    assert (line.levelname, line.getMessage().split(" from ")[0]) == ("WARNING", f"{method} {path}")
    assert TOKEN[:8] not in caplog.text


async def test_the_status_and_the_runs_of_a_node(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = waiting_app()
    async with served(app) as client, trio.open_nursery() as nursery:
        await post(client, "/process", chat_body("hi"))
        nursery.start_soon(
            post, client, "/process", chat_body("wait", session_id="s1", user_id="u1", id="run-of-u1")
        )
        while not app._open().registry.live():
            await trio.sleep(0.01)
        code, status = await ask(client, "GET", "/admin/status")
        assert code == 200
        assert (status["ready"], status["runs_active"], status["runs_ended"]) == (True, 1, 1)
        assert (status["node"], status["stuck"]) == (app.node_id, [])
        with trio.fail_after(30):
            async with trio.open_nursery() as blocking:
                blocking.start_soon(block_often)
                while status["loop_lag_s"] < 0.01:
                    _, status = await ask(client, "GET", "/admin/status")
                blocking.cancel_scope.cancel()
        code, runs = await ask(client, "GET", "/admin/runs?limit=1")
        [run] = runs["runs"]
        assert (run["run_id"], run["user_id"], run["session_id"]) == ("run-of-u1", "u1", "s1")
        assert (run["phase"], run["entry"], run["stuck"]) == ("running", "process", False)
        assert (await ask(client, "GET", "/admin/runs?limit=0"))[0] == 422
        await app.stop_chat("u1", "s1", wait=True)
        assert (await ask(client, "GET", "/admin/runs"))[1]["total"] == 0
    lines = [record.getMessage() for record in caplog.records if record.name == "trio_agentapp.admin"]
    assert lines[0].startswith("GET /admin/status from ")
    assert lines[0].endswith(": allowed")


async def test_a_drain_refuses_new_runs_and_ends_the_live_ones(served: Served) -> None:
    app = waiting_app(drain_timeout=0.1)
    async with served(app) as client, trio.open_nursery() as nursery:
        nursery.start_soon(post, client, "/process", chat_body("wait", session_id="s1"))
        while not app._open().registry.live():
            await trio.sleep(0.01)
        code, answer = await ask(client, "POST", "/admin/drain")
        assert (code, answer["status"], answer["live"]) == (202, "draining", 1)
        status, refusal = await post(client, "/process", chat_body())
        assert (status, refusal["code"]) == (503, "draining")
        assert app.unready_reason() == "draining"
        with trio.fail_after(10):
            await app._open().registry.wait_empty()
        # The node still answers, and a second drain is no error.
        assert (await ask(client, "POST", "/admin/drain"))[0] == 202
        assert (await ask(client, "GET", "/admin/status"))[1]["draining"]


async def test_a_hurried_drain_hurries_the_one_of_an_operator(served: Served) -> None:
    app = waiting_app(drain_timeout=1000)
    async with served(app) as client, trio.open_nursery() as nursery:
        nursery.start_soon(post, client, "/process", chat_body("wait", session_id="s1"))
        while not app._open().registry.live():
            await trio.sleep(0.01)
        await ask(client, "POST", "/admin/drain")
        hurry = trio.Event()
        hurry.set()
        with trio.fail_after(10):
            await app.drain(hurry)
        assert not app._open().registry.live()


async def test_a_server_that_cannot_be_told_to_end_says_so(served: Served) -> None:
    async with served(waiting_app()) as client:
        code, problem = await ask(client, "POST", "/admin/shutdown")
    assert (code, problem["code"]) == (501, "not_offered")


@pytest.mark.parametrize("token", ["short", "", "with space inside it", "ümlaut-in-the-token", 12345678901234567])
def test_a_weak_token_is_refused_and_not_shown(token: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^admin_token must") as caught:
        AgentApp(admin_token=token)
    assert not token or str(token) not in str(caught.value)


def test_a_weak_token_of_the_environment_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTAPP_ADMIN_TOKEN", "hunter2")
    with pytest.raises(ConfigurationError, match="AGENTAPP_ADMIN_TOKEN") as caught:
        AgentApp()
    assert "hunter2" not in str(caught.value)


async def test_the_settings_are_shown_without_secrets(served: Served) -> None:
    app = waiting_app(drain_timeout=7)
    async with served(app) as client:
        code, answer = await ask(client, "GET", "/admin/config")
    assert code == 200
    assert answer["settings"]["drain_timeout"] == 7
    assert answer["settings"]["admin_token"] == "***"
    assert TOKEN not in json.dumps(answer)


def test_every_setting_is_shown_and_no_password() -> None:
    settings = Settings(
        interrupt_redis_url="redis://anna:secret@localhost/0",
        broker_url="redis://:secret@localhost:6379/0",
        backend_url="rediss://localhost/?password=secret",
        admin_token="secret-secret-secret",
        authenticate=print,
        timings=Timings(),
        cors_origins=("https://app.example.com",),
    )
    shown = shown_settings(settings)
    assert set(shown) == {name.strip("_") for name in Settings.__slots__ if not name.startswith("__")}
    text = json.dumps(shown)
    assert "secret" not in text
    assert shown["interrupt_redis_url"] == "redis://anna:***@localhost/0"
    assert (shown["authenticate"], shown["timings"]["lease"]) == ("builtins.print", 15.0)
    assert shown["cors_origins"] == ["https://app.example.com"]
