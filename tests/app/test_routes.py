"""Routes of the user's own: native ones, hooks, middleware; and which of ours give way (DESIGN, section 2)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from quart import Response, request

from trio_agentapp import AgentApp, AgentAppError, AgentRequest, Run

from .conftest import Served, chat_body, post


def chatting_app(**options: Any) -> AgentApp:
    app = AgentApp(**options)

    @app.query()
    async def chat(self: Any, msgs: Any, request: AgentRequest) -> AsyncIterator[str]:
        yield f"you said {msgs[-1].text}"

    return app


def said(body: Any) -> str:
    return "".join(part["text"] for message in body["output"] for part in message["content"])


async def test_braces_in_native_routes(served: Served) -> None:
    app = AgentApp()

    @app.get("/items/{name}")
    async def item(name: str) -> dict[str, str]:
        return {"name": name}

    @app.get("/files/{rest:path}")
    async def file(rest: str) -> dict[str, str]:
        return {"rest": rest}

    @app.post("/numbers/{number:int}/twice")
    async def number(number: int) -> dict[str, int]:
        return {"twice": number * 2}

    @app.route("/quart/<name>")
    async def quart_style(name: str) -> dict[str, str]:
        return {"name": name}

    async with served(app) as client:
        assert await (await client.get("/items/a%20b")).get_json() == {"name": "a b"}
        assert await (await client.get("/files/a/b/c.txt")).get_json() == {"rest": "a/b/c.txt"}
        assert await post(client, "/numbers/21/twice") == (200, {"twice": 42})
        assert (await client.post("/numbers/x/twice")).status_code == 404
        assert await (await client.get("/quart/x")).get_json() == {"name": "x"}
        assert (await client.get("/items/a/b")).status_code == 404


async def test_hooks_around_every_request(served: Served) -> None:
    app = chatting_app()
    seen: list[str] = []

    @app.before_request
    async def before() -> Any:
        seen.append(f"before {request.path}")
        return ({"denied": True}, 418) if request.headers.get("X-Deny") else None

    @app.after_request
    async def after(response: Response) -> Response:
        seen.append(f"after {response.status_code}")
        response.headers["X-Hook"] = "was here"
        return response

    async with served(app) as client:
        status, body = await post(client, "/process", chat_body())
        assert (status, said(body)) == (200, "you said hi")
        response = await client.get("/health", headers={"X-Deny": "1"})
        assert response.status_code == 418
        assert response.headers["X-Hook"] == "was here"
        assert await post(client, "/process", chat_body(), headers={"X-Deny": "1"}) == (418, {"denied": True})
    assert seen == ["before /process", "after 200", "before /health", "after 418", "before /process", "after 418"]


async def test_middleware_the_last_one_is_outermost(served: Served) -> None:
    app = chatting_app()
    seen: list[str] = []

    @app.middleware("http")
    async def inner(request: Any, call_next: Any) -> Any:
        seen.append("inner in")
        response = await call_next(request)
        seen.append("inner out")
        response.headers["X-Inner"] = "1"
        return response

    @app.middleware("http")
    async def outer(request: Any, call_next: Any) -> Any:
        seen.append("outer in")
        if request.headers.get("X-Short"):
            return Response("short", status=203)
        response = await call_next(request)
        seen.append("outer out")
        response.headers["X-Outer"] = "1"
        return response

    async with served(app) as client:
        response = await client.get("/health")
        assert (response.headers["X-Inner"], response.headers["X-Outer"]) == ("1", "1")
        assert seen == ["outer in", "inner in", "inner out", "outer out"]
        response = await client.get("/health", headers={"X-Short": "1"})
        assert (response.status_code, await response.get_data()) == (203, b"short")
        # Errors of ours have become answers when a middleware sees them.
        response = await client.get("/nowhere")
        assert response.status_code == 404
        assert response.headers["X-Outer"] == "1"
        status, body = await post(client, "/process", chat_body())
        assert (status, said(body)) == (200, "you said hi")


def test_another_kind_of_middleware() -> None:
    with pytest.raises(ValueError, match=r"'websocket'.*'http'"):
        AgentApp().middleware("websocket")


async def test_asgi_middleware(served: Served) -> None:
    app = chatting_app()
    seen: list[str] = []

    class Layer:
        def __init__(self, inner: Any, name: str) -> None:
            self.inner, self.name = inner, name

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                seen.append(self.name)
            await self.inner(scope, receive, send)

    app.add_middleware(Layer, name="first")
    app.add_middleware(Layer, name="last")
    async with served(app) as client:
        assert (await client.get("/health")).status_code == 200
    assert seen == ["last", "first"]


async def test_built_in_routes_give_way(served: Served) -> None:
    app = chatting_app()

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"mine": "health"}

    @app.post("/stop")
    async def stop() -> dict[str, Any]:
        body = await request.get_json()
        receipt = await app.stop_chat(user_id=body["user_id"], session_id=body["session_id"])
        return {"mine": "stop", "accepted": receipt.accepted}

    @app.route("/")
    async def index() -> str:
        return "my page"

    async with served(app) as client:
        assert await (await client.get("/health")).get_json() == {"mine": "health"}
        assert await post(client, "/stop", {"user_id": "u", "session_id": "s"}) == (
            200,
            {"mine": "stop", "accepted": False},
        )
        assert await (await client.get("/")).get_data() == b"my page"
        assert (await client.get("/readiness")).status_code == 200


async def test_a_route_of_another_method_leaves_ours(served: Served) -> None:
    app = chatting_app()

    @app.get("/stop")
    async def how() -> dict[str, str]:
        return {"how": "POST"}

    async with served(app) as client:
        assert await (await client.get("/stop")).get_json() == {"how": "POST"}
        status, body = await post(client, "/stop", {"session_id": "s"})
        assert (status, body["accepted"]) == (200, False)


async def test_a_users_run_route_under_braces_gives_way_too(served: Served) -> None:
    app = chatting_app()

    @app.get("/runs/{run_id}")
    async def mine(run_id: str) -> dict[str, str]:
        return {"mine": run_id}

    async with served(app) as client:
        assert await (await client.get("/runs/x")).get_json() == {"mine": "x"}


async def test_without_a_handler_there_is_no_process(served: Served) -> None:
    async with served(AgentApp()) as client:
        assert (await post(client, "/process", chat_body()))[0] == 404
        assert (await post(client, "/stop", {}))[0] == 404
        routes = (await (await client.get("/")).get_json())["routes"]
        assert not {"/process", "/stop", "/runs/<run_id>", "/runs/{run_id}"} & set(routes)
        assert (await client.get("/health")).status_code == 200


async def test_another_endpoint_path(served: Served) -> None:
    async with served(chatting_app(endpoint_path="/v1/chat")) as client:
        assert (await post(client, "/v1/chat", chat_body()))[0] == 200
        assert (await post(client, "/process", chat_body()))[0] == 404


@pytest.mark.parametrize(
    ("options", "field", "streams"),
    [
        ({}, {}, True),
        ({"stream": False}, {}, False),
        ({"response_type": "json"}, {}, False),
        ({"stream": False}, {"stream": True}, True),
        ({"response_type": "json"}, {"stream": True}, True),
        ({}, {"stream": False}, False),
    ],
)
async def test_who_decides_whether_it_streams(
    served: Served, options: dict[str, Any], field: dict[str, Any], streams: bool
) -> None:
    async with served(chatting_app(**options)) as client:
        body = {"input": [{"role": "user", "content": "hi"}], **field}
        response = await client.post("/process", json=body)
        kind = response.headers["Content-Type"]
        assert kind == ("text/event-stream; charset=utf-8" if streams else "application/json")
        await response.get_data()


async def test_an_error_handler_of_the_users_own_wins(served: Served) -> None:
    app = chatting_app()

    @app.errorhandler(404)
    async def lost(error: Exception) -> tuple[str, int]:
        return "lost?", 404

    async with served(app) as client:
        assert await (await client.get("/nowhere")).get_data() == b"lost?"


async def test_a_view_that_raises_is_a_problem(served: Served) -> None:
    app = AgentApp()

    @app.get("/bug")
    async def bug() -> str:
        raise ZeroDivisionError("wombat")

    async with served(app) as client:
        response = await client.get("/bug")
        assert response.status_code == 500
        assert response.headers["Content-Type"] == "application/problem+json"
        body = await response.get_data()
        assert json.loads(body)["code"] == "internal"
        assert b"wombat" not in body
        assert b"ZeroDivision" not in body


def test_two_handlers() -> None:
    app = chatting_app()
    with pytest.raises(AgentAppError, match=r"already.*chat"):

        @app.query()
        async def second(msgs: Any) -> AsyncIterator[str]:
            yield ""


@pytest.mark.parametrize("framework", ["agentscop", "langchain", "", 5])
def test_an_unknown_framework_lists_the_known(framework: Any) -> None:
    with pytest.raises(ValueError, match=r"known are .*text"):
        AgentApp().query(framework=framework)


async def test_query_without_parentheses_and_with_text(served: Served) -> None:
    for decorate in (lambda app: app.query, lambda app: app.query("text"), lambda app: app.query(framework=None)):
        app = AgentApp()

        async def chat(msgs: Any) -> AsyncIterator[str]:
            yield "hi"

        assert decorate(app)(chat) is chat
        async with served(app) as client:
            assert said((await post(client, "/process", chat_body()))[1]) == "hi"


@pytest.mark.parametrize("handler", [5, "name", None])
def test_what_cannot_be_a_handler(handler: Any) -> None:
    with pytest.raises(AgentAppError):
        AgentApp().query()(handler)


def test_a_handler_that_asks_for_what_nobody_has() -> None:
    with pytest.raises(AgentAppError, match=r"'database'.*msgs"):

        @AgentApp().query()
        async def chat(msgs: Any, database: Any) -> AsyncIterator[str]:
            yield ""


async def test_handlers_of_every_shape(served: Served) -> None:
    async def generator(msgs: Any) -> AsyncIterator[str]:
        yield "a"
        yield "b"

    async def coroutine(msgs: Any) -> str:
        return "ab"

    def function(msgs: Any) -> str:
        return "ab"

    def sync_generator(msgs: Any) -> Any:
        yield "a"
        yield "b"

    class Callable:
        async def __call__(self, msgs: Any) -> AsyncIterator[str]:
            yield "ab"

    class Agent:
        def method(self, msgs: Any) -> str:
            return "ab"

    for handler in (generator, coroutine, function, sync_generator, Callable(), Agent().method):
        async with served(AgentApp(agent=handler)) as client:
            assert said((await post(client, "/process", chat_body()))[1]) == "ab"


async def test_what_a_handler_is_given(served: Served) -> None:
    app = AgentApp()
    given: dict[str, Any] = {}

    @app.query()
    async def chat(self: Any, msgs: Any, request: AgentRequest = None, **kwargs: Any) -> AsyncIterator[str]:  # type: ignore[assignment]
        given.update(kwargs, self=self, msgs=msgs, request=request)
        yield "ok"

    async with served(app) as client:
        await post(client, "/process", chat_body("hello", user_id="u", session_id="s", extra_field=[1]))
    assert given["self"].app is app
    assert given["self"].framework_type == "text"
    assert given["msgs"][0].text == "hello"
    assert given["request"].extra["extra_field"] == [1]
    assert (given["request"].user_id, given["request"].session_id) == ("u", "s")
    assert isinstance(given["run"], Run)
    assert given["app"] is app
    assert set(given) == {"self", "msgs", "request", "run", "app"}


@pytest.mark.parametrize("where", ["after_request", "middleware", "teardown"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_hook_that_raises_after_the_start_leaves_no_run_unwatched(
    served: Served, where: str, stream: bool
) -> None:
    app = AgentApp()
    runs: list[Run] = []

    @app.query()
    async def chat(run: Run) -> AsyncIterator[str]:
        runs.append(run)
        yield "hi"
        if stream:
            await trio.sleep_forever()

    if where == "after_request":

        @app.after_request
        async def after(response: Response) -> Response:
            raise ZeroDivisionError("bug in a hook")

    elif where == "middleware":

        @app.middleware("http")
        async def layer(request: Any, call_next: Any) -> Any:
            await call_next(request)
            raise ZeroDivisionError("bug in a middleware")

    else:

        @app.after_request
        async def replace(response: Response) -> Response:
            return Response("something else")

    async with served(app) as client:
        with trio.fail_after(10):
            response = await client.post("/process", json=chat_body(stream=stream))
            body = await response.get_data()
            if where == "teardown":
                assert body == b"something else"
            else:
                assert response.status_code == 500
                assert b"bug in" not in body
            while app._open().registry.statistics().live:
                await trio.sleep(0.01)
    if stream:
        assert runs == [] or runs[0].state.value == "STOPPED"


@pytest.mark.parametrize("how", ["hook answers", "hook raises"])
async def test_a_hook_before_the_view_starts_nothing(served: Served, how: str) -> None:
    app = AgentApp()
    begun: list[str] = []

    @app.query()
    async def chat(run: Run) -> AsyncIterator[str]:
        begun.append(run.run_id)
        yield "hi"

    @app.before_request
    async def before() -> Any:
        if how == "hook raises":
            raise ZeroDivisionError("bug")
        return {"no": "thanks"}, 403

    async with served(app) as client:
        status, _ = await post(client, "/process", chat_body())
        assert status == (500 if how == "hook raises" else 403)
    assert begun == []


async def test_a_misspelt_field_is_kept_and_logged_for_debugging(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "trio_agentapp.web")
    async with served(chatting_app()) as client:
        assert (await post(client, "/process", chat_body(sesion_id="s", own=1)))[0] == 200
    messages = [record.getMessage() for record in caplog.records if record.name == "trio_agentapp.web"]
    assert messages == ["a request has the unknown field 'sesion_id'; did its sender mean 'session_id'?"]
