"""Responses and exceptions of FastAPI in views: each row of the table in the guide to migration."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import fastapi
import pytest
from fastapi import responses
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException as StarletteHTTPException

from trio_agentapp import AgentApp


async def answer_to(view: Callable[[], Any], way: str) -> Any:
    """The answer of a view that is served as a route of Quart, one with arguments, or an endpoint."""
    app = AgentApp()

    async def fn() -> Any:
        return view()

    async def with_arguments(limit: int = 1) -> Any:
        return view()

    if way == "endpoint":
        app.endpoint("/x", methods=["GET"])(fn)
    else:
        app.get("/x")(fn if way == "route" else with_arguments)
    async with app.runtime():
        return await app.test_client().get("/x")


WAYS = pytest.mark.parametrize("way", ["route", "arguments", "endpoint"])


def with_cookies() -> fastapi.Response:
    response = responses.JSONResponse({"a": 1}, headers={"X-Own": "ü"})
    response.set_cookie("one", "1")
    response.set_cookie("two", "2")
    return response


@WAYS
@pytest.mark.parametrize(
    ("view", "status", "kind", "body"),
    [
        (lambda: responses.JSONResponse({"a": 1}, 201), 201, "application/json", b'{"a":1}'),
        (lambda: responses.HTMLResponse("<p>ü"), 200, "text/html; charset=utf-8", "<p>ü".encode()),
        (lambda: responses.PlainTextResponse("no", 404), 404, "text/plain; charset=utf-8", b"no"),
        (lambda: fastapi.Response(b"\0", media_type="image/png"), 200, "image/png", b"\0"),
        (lambda: responses.RedirectResponse("/y"), 307, None, b""),
        (lambda: fastapi.Response(status_code=204), 204, None, b""),
        (with_cookies, 200, "application/json", b'{"a":1}'),
    ],
)
async def test_a_response_with_its_body_is_sent(
    way: str, view: Callable[[], Any], status: int, kind: str | None, body: bytes
) -> None:
    answer = await answer_to(view, way)

    assert (answer.status_code, await answer.get_data()) == (status, body)
    if kind is not None:  # Quart's test client gives an answer without a type one
        assert answer.headers["Content-Type"] == kind
    if view is with_cookies:
        assert [each.partition(";")[0] for each in answer.headers.getlist("Set-Cookie")] == ["one=1", "two=2"]
        assert answer.headers["X-Own"] == "ü"
    if status == 307:
        assert answer.headers["Location"] == "/y"


async def no_items() -> Any:
    yield b""


@WAYS
@pytest.mark.parametrize(
    ("view", "told"),
    [
        (lambda: responses.StreamingResponse(no_items()), "StreamingResponse of FastAPI.*@app.endpoint.*generator"),
        (lambda: responses.FileResponse(__file__), r"FileResponse of FastAPI.*quart\.send_file\(path\)"),
        (
            lambda: responses.JSONResponse({}, background=BackgroundTask(print)),
            r"background= of FastAPI.*add_background_task",
        ),
    ],
)
async def test_another_is_refused_with_what_to_use(
    way: str, view: Callable[[], Any], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await answer_to(view, way)

    assert answer.status_code == 500
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    with pytest.raises(Exception, match=told):
        raise record.exc_info[1]  # type: ignore[misc]


def refusing(error: Exception) -> Callable[[], Any]:
    def view() -> Any:
        raise error

    return view


@WAYS
@pytest.mark.parametrize("kind", [fastapi.HTTPException, StarletteHTTPException])
async def test_a_raised_http_exception_is_a_problem(way: str, kind: Any) -> None:
    error = kind(401, "who are you?", headers={"WWW-Authenticate": "Bearer"})
    answer = await answer_to(refusing(error), way)

    problem = await answer.get_json(force=True)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert (problem["status"], problem["detail"], problem["code"]) == (401, "who are you?", "unauthorized")


async def test_its_detail_may_be_any_json() -> None:
    answer = await answer_to(refusing(fastapi.HTTPException(422, {"field": ["a"]})), "route")

    assert (await answer.get_json(force=True))["detail"] == {"field": ["a"]}


async def test_a_handler_of_the_users_own_wins() -> None:
    app = AgentApp()
    app.get("/x")(refusing(fastapi.HTTPException(418)))
    app.register_error_handler(fastapi.HTTPException, lambda _error: ("mine", 400))
    async with app.runtime():
        answer = await app.test_client().get("/x")

    assert (answer.status_code, await answer.get_data()) == (400, b"mine")


@pytest.mark.parametrize(("value", "told"), [(None, "None is not a response"), (object(), "object at")])
async def test_no_answer_is_a_sentence_that_names_the_view(
    value: object, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await answer_to(lambda: value, "route")).status_code == 500

    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert f"view 'fn': {told}" in str(record.exc_info[1])
