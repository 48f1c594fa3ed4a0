"""Tests of authentication and authorization: the hooks, and that an outsider learns nothing."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from trio_agentapp import AgentApp, Principal

from .conftest import Served, chat_body, first_event, post

TOKENS = {"Bearer a": "alice", "Bearer b": "bob"}


async def authenticate(request: Any) -> Principal | None:
    name = TOKENS.get(request.headers.get("Authorization", ""))
    return None if name is None else Principal(name)


def endless_app(**options: Any) -> AgentApp:
    app = AgentApp(drain_timeout=0.05, **options)

    @app.query()
    async def chat(request: Any) -> AsyncIterator[str]:
        yield f"for {request.user_id}"
        if request.extra.get("endless"):
            await trio.sleep_forever()

    return app


def as_(name: str) -> dict[str, str]:
    return {"Authorization": next(token for token, user in TOKENS.items() if user == name)}


async def start(app: AgentApp, run_id: str, name: str, **fields: Any) -> None:
    """An endless run that goes on without a watcher."""
    body = {"input": "hi", "id": run_id, "on_disconnect": "continue", "endless": True, "user_id": name, **fields}
    with trio.fail_after(5):
        async with app.stream_query(body) as events:
            await first_event(events)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": ""}])
async def test_who_is_not_known(served: Served, headers: dict[str, str]) -> None:
    async with served(endless_app(authenticate=authenticate)) as client:
        for path, body in (("/process", chat_body()), ("/stop", {"session_id": "s"})):
            status, problem = await post(client, path, body, headers=headers)
            assert (status, problem["code"]) == (401, "unauthorized")
        response = await client.get("/runs/run-12345", headers=headers)
        assert response.status_code == 401
        # Before anything of the body is looked at.
        response = await client.post("/process", data=b"not json", headers=headers)
        assert response.status_code == 401
        # Probes need nobody.
        assert (await client.get("/health", headers=headers)).status_code == 200


async def test_a_principal_acts_for_itself_only(served: Served) -> None:
    async with served(endless_app(authenticate=authenticate)) as client:
        status, body = await post(client, "/process", chat_body(), headers=as_("alice"))
        assert status == 200
        assert "for alice" in json.dumps(body)
        status, body = await post(client, "/process", chat_body(user_id="alice"), headers=as_("alice"))
        assert status == 200
        status, problem = await post(client, "/process", chat_body(user_id="bob"), headers=as_("alice"))
        assert (status, problem["code"]) == (403, "forbidden")


def masked(body: bytes, run_id: str) -> bytes:
    body = re.sub(rb'"request_id":"[^"]*"', b'"request_id":"R"', body)
    return re.sub(rb'"instance":"[^"]*"', b'"instance":"I"', body).replace(run_id.encode(), b"RUN")


def plain_headers(response: Any) -> list[tuple[str, str]]:
    return sorted((name.lower(), value) for name, value in response.headers.items())


@pytest.mark.parametrize("ended", [False, True])
async def test_anothers_run_and_an_unknown_one_answer_alike(served: Served, ended: bool) -> None:
    app = endless_app(authenticate=authenticate)
    async with served(app) as client:
        await start(app, "alices-run1", "alice", session_id="s1")
        if ended:
            status, receipt = await post(client, "/stop?wait=1", {"run_id": "alices-run1"}, headers=as_("alice"))
            assert (status, receipt["stopped"]) == (200, True)
        seen = []
        for run_id in ("alices-run1", "no-such-run", "nosuch-run2"):
            response = await client.get(f"/runs/{run_id}", headers=as_("bob"))
            seen.append((response.status_code, plain_headers(response), masked(await response.get_data(), run_id)))
        assert [status for status, _, _ in seen] == [404] * 3
        assert seen[0][2] == seen[1][2] == seen[2][2]
        assert seen[0][1] == seen[1][1] == seen[2][1]
        # Stops: by run id alone, with bob's session, with alice's session.
        for fields in ({}, {"session_id": "s1"}, {"session_id": "s1", "user_id": "alice"}):
            for wait in ("", "?wait=1"):
                answers = []
                for run_id in ("alices-run1", "no-such-run"):
                    response = await client.post(
                        f"/stop{wait}", json={"run_id": run_id, **fields}, headers=as_("bob")
                    )
                    body = masked(await response.get_data(), run_id)
                    body = re.sub(rb'"latency_ms":[\d.]+', b'"latency_ms":0', body)
                    answers.append((response.status_code, plain_headers(response), body))
                statuses = [status for status, _, _ in answers]
                assert answers[0][2] == answers[1][2], (fields, wait)
                assert statuses[0] == statuses[1]
        response = await client.get("/runs/alices-run1", headers=as_("alice"))
        run = await response.get_json()
        assert run["state"] == ("STOPPED" if ended else "RUNNING")
        assert run["phase"] == ("ended" if ended else "running")


async def test_anothers_session_and_an_idle_one_answer_alike(served: Served) -> None:
    app = endless_app(authenticate=authenticate)
    async with served(app) as client:
        await start(app, "alices-run1", "alice", session_id="s1")
        answers = []
        for session in ("s1", "s2"):
            response = await client.post(
                "/stop", json={"user_id": "alice", "session_id": session}, headers=as_("bob")
            )
            answers.append((response.status_code, masked(await response.get_data(), "-")))
        assert answers[0] == answers[1]
        assert answers[0][0] == 404
        # Bob's own session of the same name is another session.
        status, receipt = await post(client, "/stop", {"session_id": "s1"}, headers=as_("bob"))
        assert (status, receipt["accepted"], receipt["run_id"]) == (200, False, None)
        status, receipt = await post(client, "/stop?wait=1", {"session_id": "s1"}, headers=as_("alice"))
        assert (status, receipt["stopped"]) == (200, True)


async def test_a_tombstone_of_another_does_not_hit(served: Served) -> None:
    async with served(endless_app(authenticate=authenticate)) as client:
        await post(client, "/stop", {"run_id": "future-run"}, headers=as_("bob"))
        status, body = await post(client, "/process", chat_body(id="future-run"), headers=as_("alice"))
        assert (status, body["status"]) == (200, "completed")


@pytest.mark.parametrize("ended", [False, True])
async def test_an_idempotency_key_does_not_open_the_run_of_another(served: Served, *, ended: bool) -> None:
    app = endless_app(authenticate=authenticate)
    async with served(app) as client:
        if ended:
            await post(client, "/process", chat_body(id="run-of-alice", session_id="s"), headers=as_("alice"))
        else:
            await start(app, "run-of-alice", "alice", session_id="s")
        for name, session in (("k1", {}), ("k2", {"session_id": "s"})):
            headers = {**as_("bob"), "Idempotency-Key": name}
            with trio.fail_after(5):
                status, body = await post(
                    client, "/process", chat_body(id="run-of-alice", **session), headers=headers
                )
            assert (status, body["code"]) == (422, "validation_error")
            assert "alice" not in json.dumps(body).replace("run-of-alice", "")


async def test_a_refused_start_does_not_use_up_the_idempotency_key_of_its_owner(served: Served) -> None:
    key = {"Idempotency-Key": "k"}
    async with served(endless_app(authenticate=authenticate)) as client:
        for_alice = chat_body("other", user_id="alice")
        status, body = await post(client, "/process", for_alice, headers={**as_("bob"), **key})
        assert (status, body["code"]) == (403, "forbidden")
        status, _ = await post(client, "/process", chat_body(), headers={**as_("alice"), **key})
        assert status == 200
        # Nor does it tell whether the owner has used the key.
        status, body = await post(client, "/process", for_alice, headers={**as_("bob"), **key})
        assert (status, body["code"]) == (403, "forbidden")


async def test_an_authenticate_hook_that_raises_denies(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    def broken(request: Any) -> Principal:
        raise ConnectionError("wombat")

    async with served(endless_app(authenticate=broken)) as client:
        status, problem = await post(client, "/process", chat_body())
        assert (status, problem["code"]) == (401, "unauthorized")
        assert "wombat" not in json.dumps(problem)
    assert "wombat" in caplog.text


@pytest.mark.parametrize("answer", ["alice", True, {"user_id": "alice"}, 1, object])
async def test_only_a_principal_is_one(served: Served, answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with served(endless_app(authenticate=lambda request: answer)) as client:
        assert (await post(client, "/process", chat_body()))[0] == 401
    assert f"must return a Principal or None, not {type(answer).__name__}" in caplog.text


@pytest.mark.parametrize("user_id", ["", 5, None, "a\nb", "a" * 257, b"alice"])
async def test_a_principal_has_a_user_id(served: Served, user_id: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with served(endless_app(authenticate=lambda request: Principal(user_id))) as client:
        assert (await post(client, "/process", chat_body()))[0] == 401
    assert "the user_id of a Principal must" in caplog.text


def test_scopes_are_no_single_text() -> None:
    with pytest.raises(TypeError, match="scopes must be a collection of texts, not the text 'read write'"):
        Principal("alice", scopes="read write")  # type: ignore[arg-type]
    assert Principal("alice", scopes=["read"]).scopes == {"read"}  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_hooks_of_both_kinds(served: Served, kind: str) -> None:
    asked: list[tuple[Any, ...]] = []

    def authorize(principal: Principal | None, action: str, *about: str | None) -> bool:
        asked.append((principal and principal.user_id, action, *about))
        return True

    async def authorize_async(*args: Any) -> bool:
        await trio.lowlevel.checkpoint()
        return authorize(*args)

    def authenticate_sync(request: Any) -> Principal:
        return Principal("alice")

    hooks = {
        "authenticate": authenticate if kind == "async" else authenticate_sync,
        "authorize": authorize_async if kind == "async" else authorize,
    }
    async with served(endless_app(**hooks)) as client:
        body = chat_body(user_id="carol", session_id="s", id="carols-run")
        assert (await post(client, "/process", body, headers=as_("alice")))[0] == 200
        assert (await client.get("/runs/carols-run", headers=as_("alice"))).status_code == 200
        stop = {"user_id": "carol", "session_id": "s", "run_id": "carols-run"}
        assert (await post(client, "/stop", stop, headers=as_("alice")))[0] == 200
    assert asked == [
        ("alice", "start", "carol", "s", "carols-run"),
        ("alice", "read", "carol", "s", "carols-run"),
        ("alice", "stop", "carol", "s", "carols-run"),
    ]


async def raises(*args: Any) -> bool:
    raise ConnectionError("wombat")


@pytest.mark.parametrize(
    "authorize", [lambda *a: False, lambda *a: None, lambda *a: 1, lambda *a: "yes", raises, lambda p, a: True]
)
async def test_all_that_is_not_true_denies(served: Served, authorize: Any) -> None:
    """A hook that raises, and one of the wrong shape, too."""
    async with served(endless_app(authorize=authorize)) as client:
        status, problem = await post(client, "/process", chat_body())
        assert (status, problem["code"]) == (403, "forbidden")
        assert "wombat" not in json.dumps(problem)
        status, problem = await post(client, "/stop", {"session_id": "s"})
        assert (status, problem["code"]) == (404, "run_not_found")
        assert (await client.get("/runs/run-12345")).status_code == 404


async def test_without_hooks_the_user_is_the_bodys(served: Served) -> None:
    async with served(endless_app()) as client:
        status, body = await post(client, "/process", chat_body(user_id="anyone"))
        assert status == 200
        assert "for anyone" in json.dumps(body)


async def test_require_auth_with_a_hook_starts(served: Served) -> None:
    async with served(endless_app(require_auth=True, authenticate=authenticate)) as client:
        assert (await post(client, "/process", chat_body()))[0] == 401
