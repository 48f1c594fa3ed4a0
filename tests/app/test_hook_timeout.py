"""Hooks that choose their refusal, and hooks that are late."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import trio

from trio_agentapp import AgentApp, Principal
from trio_agentapp.errors import BackendUnavailable, CredentialsExpired, Forbidden, RequestError

from .conftest import Served, chat_body, post


def app_with(**options: Any) -> AgentApp:
    app = AgentApp(**options)

    @app.query()
    async def chat(request: Any) -> Any:
        yield request.user_id

    return app


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (CredentialsExpired(), 401, "credentials_expired"),
        (Forbidden("This user is locked."), 403, "forbidden"),
        (BackendUnavailable("The directory is away."), 503, "backend_unavailable"),
        (ValueError("x"), 401, "unauthorized"),
    ],
)
async def test_a_hook_chooses_its_refusal(served: Served, error: Exception, status: int, code: str) -> None:
    async def authenticate(_request: Any) -> Principal:
        raise error

    async with served(app_with(authenticate=authenticate)) as client:
        found, problem = await post(client, "/process", chat_body())
        assert (found, problem["code"]) == (status, code)
        if isinstance(error, RequestError):
            assert problem["detail"] == error.detail
        response = await client.post("/process", json=chat_body())
        assert response.headers.get("WWW-Authenticate", "").startswith("Bearer") is (status == 401)


async def test_a_hook_in_a_thread_that_is_late(served: Served) -> None:
    """Its thread is waited for, and what it has returned does not count."""
    go = threading.Event()

    def authenticate(_request: Any) -> Principal:
        go.wait(20)
        return Principal("anna")

    async with served(app_with(authenticate=authenticate, auth_timeout=0.05)) as client:
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await post(client, "/process", chat_body()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(0.2)  # longer than the hook has
            assert not answers
            go.set()
        assert answers[0][0] == 503
        assert answers[0][1]["detail"] == "The credentials could not be checked in time."
        status, body = await post(client, "/process", chat_body())
        assert (status, body["status"]) == (200, "completed")


async def test_scopes_are_for_the_authorize_hook(served: Served) -> None:
    async def authenticate(request: Any) -> Principal:
        return Principal("anna", scopes=request.headers.get("Scopes", "").split())

    async def authorize(principal: Principal | None, action: str, *_target: Any) -> bool:
        return principal is not None and action in principal.scopes

    async with served(app_with(authenticate=authenticate, authorize=authorize)) as client:
        assert (await post(client, "/process", chat_body(), headers={"Scopes": "read list"}))[0] == 403
        assert (await post(client, "/process", chat_body(), headers={"Scopes": "read start"}))[0] == 200
        assert Principal("a").scopes == frozenset()
        assert isinstance(Principal("a", scopes=["x"]).scopes, frozenset)  # type: ignore[arg-type]
