"""`@app.task` and the runs in the background, over HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from quart import Request

from trio_agentapp import AgentApp, AgentRequest, Run, current_task
from trio_agentapp.errors import ConfigurationError
from trio_agentapp.web import Principal

from .conftest import Served, post

JSON = {"Content-Type": "application/json"}


async def get(client: Any, path: str, **options: Any) -> tuple[int, Any]:
    with trio.fail_after(10):
        response = await client.get(path, **options)
        return response.status_code, json.loads(await response.get_data())


async def ended(client: Any, path: str) -> Any:
    with trio.fail_after(10):
        while True:
            status, body = await get(client, path)
            assert status == 200
            if body["status"] not in ("pending", "running"):
                return body
            await trio.sleep(0.01)


async def test_the_example_of_the_page(served: Served) -> None:
    app = AgentApp()

    @app.task("/longjob", queue="celery")
    def heavy_computation(data):  # type: ignore[no-untyped-def]
        return {"result": data["x"] ** 2}

    assert heavy_computation({"x": 3}) == {"result": 9}
    async with served(app) as client:
        before = time.time()
        response = await client.post("/longjob", json={"x": 5})
        assert response.status_code == 202
        given = await response.get_json()
        assert given == {"task_id": given["task_id"], "status": "pending"}
        assert response.headers["Location"] == f"/longjob/{given['task_id']}"
        body = await ended(client, f"/longjob/{given['task_id']}")
        assert before <= body.pop("created_at") <= body.pop("started_at") <= body.pop("ended_at") <= time.time()
        assert body == {
            "task_id": given["task_id"],
            "status": "finished",
            "cancel_requested": False,
            "result": {"result": 25},
        }


async def test_unknown_tasks(served: Served) -> None:
    app = AgentApp()
    app.task("/a")(lambda data: data)
    app.task("/b")(lambda data: data)
    async with served(app) as client:
        _, given = await post(client, "/a", 1)
        for path in ("/a/unknown", f"/b/{given['task_id']}"):
            for status, body in (await get(client, path), await post(client, path + "/cancel")):
                assert (status, body["code"]) == (404, "task_not_found")


@pytest.mark.parametrize(
    ("raw", "headers", "status", "code"),
    [
        (b"", JSON, 422, "validation_error"),
        (b"{", JSON, 400, "malformed_body"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        (b'"' + b"x" * 2000 + b'"', JSON, 413, "payload_too_large"),
    ],
)
async def test_refused_bodies(served: Served, raw: bytes, headers: dict[str, str], status: int, code: str) -> None:
    app = AgentApp(max_body_bytes=1000)
    app.task("/a")(lambda data: data)
    async with served(app) as client:
        response = await client.post("/a", data=raw, headers=headers)
        assert response.status_code == status
        assert (await response.get_json())["code"] == code


async def test_a_cancel_that_waits(served: Served) -> None:
    app = AgentApp()
    cleaned = []

    @app.task("/job")
    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            async with current_task().cleanup():
                await trio.sleep(0.05)
                cleaned.append(True)

    async with served(app) as client:
        _, given = await post(client, "/job")
        path = f"/job/{given['task_id']}"
        status, body = await post(client, path + "/cancel?wait=2")
        assert (status, body["errors"][0]["loc"]) == (422, "query.wait")
        status, body = await post(client, path + "/cancel")
        assert (status, body["status"], body["cancel_requested"]) == (202, "running", True)
        status, body = await post(client, path + "/cancel?wait=1")
        assert (status, body["status"], body["error"]["code"]) == (200, "cancelled", "stopped")
        assert cleaned == [True]
        assert "result" not in body


async def test_a_full_queue(served: Served) -> None:
    app = AgentApp()
    app.task("/sleep")(trio.sleep)
    app._tasks._queue._max_running = 1  # type: ignore[attr-defined]
    app._tasks._queue._max_waiting = 1  # type: ignore[attr-defined]
    async with served(app) as client:
        for _ in range(2):
            assert (await post(client, "/sleep", 100))[0] == 202
        response = await client.post("/sleep", json=100)
        assert (response.status_code, response.headers["Retry-After"]) == (429, "1")
        assert (await response.get_json())["code"] == "queue_full"
        # What runs and what waits is stopped at the shutdown.
        hurry = trio.Event()
        hurry.set()
        await app.drain(hurry)
        assert (await post(client, "/sleep", 1))[1]["code"] == "draining"


async def test_principals_see_their_own_tasks_only(served: Served) -> None:
    def authenticate(request: Request) -> Principal | None:
        name = request.headers.get("X-User")
        return None if name is None else Principal(name)

    app = AgentApp(authenticate=authenticate)
    app.task("/a")(lambda data: data)
    async with served(app) as client:
        assert (await post(client, "/a", 1))[0] == 401
        _, given = await post(client, "/a", 1, headers={"X-User": "u1"})
        path = f"/a/{given['task_id']}"
        assert (await get(client, path, headers={"X-User": "u1"}))[0] == 200
        foreign, unknown = [
            (await get(client, each, headers={"X-User": "u2"}))[1] for each in (path, "/a/" + "0" * 32)
        ]
        for body in (foreign, unknown):
            del body["request_id"], body["instance"]
        assert foreign == unknown
        assert foreign["code"] == "task_not_found"
        assert (await post(client, path + "/cancel", headers={"X-User": "u2"}))[0] == 404


def test_paths_that_cannot_be() -> None:
    app = AgentApp()
    app.task("/a")(lambda data: data)
    with pytest.raises(ConfigurationError, match="already"):
        app.task("/a/")(lambda data: data)
    for path in ("a", "/", "/{id}", "/<id>", lambda data: data):
        with pytest.raises(ConfigurationError, match="path"):
            app.task(path)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="queue"):
        app.task("/b", queue="")


@pytest.mark.parametrize("options", [{"enable_stream_task": True}, {}])
def test_several_workers_need_a_broker(options: dict[str, Any]) -> None:
    app = AgentApp(interrupt_redis_url="redis://localhost:1", **options)
    if not options:
        app.task("/a")(lambda data: data)
    with pytest.raises(SystemExit, match="broker_url"):
        app.run(workers=2)


# Runs in the background.


def talking_app(**options: Any) -> AgentApp:
    app = AgentApp(enable_stream_task=True, **options)

    @app.query()
    async def chat(msgs: Any, request: AgentRequest, run: Run) -> AsyncIterator[str]:
        yield "Hello"
        if msgs[-1].text == "long":
            try:
                await trio.sleep_forever()
            finally:
                async with run.cleanup():
                    await trio.sleep(0.02)
        if msgs[-1].text == "fail":
            raise ZeroDivisionError
        yield " World!"

    return app


def ask(text: str = "hi", **fields: Any) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": text}], **fields}


def said(body: Any) -> str:
    return "".join(part["text"] for message in body["output"] for part in message["content"])


async def test_a_run_in_the_background(served: Served) -> None:
    async with served(talking_app()) as client:
        response = await client.post("/process/task", json=ask(session_id="s1", user_id="u1", id="run-number-1"))
        assert response.status_code == 202
        given = await response.get_json()
        assert given == {"task_id": "run-number-1", "status": "running", "session_id": "s1", "user_id": "u1"}
        assert response.headers["Location"] == "/process/task/run-number-1"
        body = await ended(client, response.headers["Location"])
        assert (body["status"], body["result"]["status"]) == ("finished", "completed")
        assert said(body["result"]) == "Hello World!"
        assert body["result"]["id"] == "response_run-number-1"
        assert (await get(client, "/process/task/unknown-run"))[0] == 404


async def test_one_run_a_session_and_stops_by_every_name(served: Served) -> None:
    async with served(talking_app()) as client:
        for number, stop in enumerate(("/stop?wait=1", "/stop?wait=1 by run", "/process/task/{}/cancel?wait=1")):
            session = f"s{number}"
            status, given = await post(client, "/process/task", ask("long", session_id=session, user_id="u1"))
            assert status == 202
            task_id = given["task_id"]
            status, body = await post(client, "/process", ask(session_id=session, user_id="u1"))
            assert (status, body["active_run_id"]) == (409, task_id)
            named = {"run_id": task_id} if "by run" in stop else {"session_id": session, "user_id": "u1"}
            status, body = await post(client, stop.split()[0].format(task_id), named)
            assert status == 200
            body = await ended(client, f"/process/task/{task_id}")
            assert (body["status"], body["error"]["code"]) == ("cancelled", "stopped")
            assert body["result"]["status"] == "canceled"
            assert said(body["result"]) == "Hello"


async def test_ends_that_are_errors(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    async with served(talking_app(stream_task_timeout=0.05)) as client:
        for text, code in (("long", "deadline_exceeded"), ("fail", "exception")):
            _, given = await post(client, "/process/task", ask(text))
            body = await ended(client, f"/process/task/{given['task_id']}")
            assert (body["status"], body["error"]["code"]) == ("failed", code)
            assert body["result"]["error"] == body["error"]
    assert "ZeroDivisionError" in caplog.text


async def test_a_request_gives_its_own_time(served: Served) -> None:
    async with served(talking_app(stream_task_timeout=3600)) as client:
        for wrong in (0, -1, True, "5"):
            status, body = await post(client, "/process/task", ask("long", timeout=wrong))
            assert (status, body["code"]) == (422, "validation_error")
            assert [error["loc"] for error in body["errors"]] == ["$.timeout"]
        _, given = await post(client, "/process/task", ask("long", timeout=0.05))
        body = await ended(client, f"/process/task/{given['task_id']}")
        assert (body["status"], body["error"]["code"]) == ("failed", "deadline_exceeded")


async def test_a_background_run_of_the_same_id_is_joined(served: Served) -> None:
    async with served(talking_app()) as client:
        asked = ask("long", session_id="s1", id="the-same-run")
        first = await post(client, "/process/task", asked)
        assert await post(client, "/process/task", asked) == first
        await post(client, "/process/task/the-same-run/cancel?wait=1")


async def test_without_the_setting_there_is_no_such_route(served: Served) -> None:
    app = AgentApp(agent=lambda: "hello")
    async with served(app) as client:
        assert (await post(client, "/process/task", ask()))[0] == 404
