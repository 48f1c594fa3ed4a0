"""Quart's own routes: arguments where a view has parameters of its own, and nothing else changed."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from quart import Blueprint, Request, Response, abort, jsonify, redirect, request, url_for, websocket
from quart.views import MethodView
from quart_trio import QuartTrio

from trio_agentapp import AgentApp, AgentRequest

from .conftest import chat_body, post


@dataclasses.dataclass
class Item:
    name: str
    size: int = 1


# What a Quart app does, an AgentApp does.


def quart_routes(app: Any) -> None:
    """Views as Quart's documentation has them."""

    @app.get("/text")
    async def text() -> str:
        return "text"

    @app.get("/sync")
    def sync() -> str:
        return "sync"

    @app.get("/dict")
    async def of_dict() -> dict[str, Any]:
        return {"b": 1, "a": datetime.date(2030, 1, 2)}

    @app.get("/list")
    async def of_list() -> list[int]:
        return [1, 2]

    @app.get("/tuple")
    async def of_tuple() -> tuple[dict[str, int], int, dict[str, str]]:
        return {"a": 1}, 201, {"X-Mine": "yes"}

    @app.get("/response")
    async def response() -> Response:
        return Response(b"bytes", status=202, content_type="application/x-mine")

    @app.get("/json")
    async def as_json() -> Response:
        return jsonify(a=1)

    @app.get("/redirect")
    async def to_text() -> Any:
        return redirect("/text")

    @app.get("/abort")
    async def aborted() -> None:
        abort(404)

    @app.get("/none")
    async def none() -> None:
        return None

    @app.get("/number")
    async def number() -> Any:
        return len

    @app.get("/generator")
    async def generator() -> Any:
        async def parts() -> AsyncIterator[bytes]:
            yield b"one "
            yield b"two"

        return parts()

    @app.get("/sync_generator")
    def sync_generator() -> Any:
        yield "one "
        yield "two"

    @app.get("/rest/<int:number>/<path:rest>")
    async def rest(number: int, rest: str) -> dict[str, Any]:
        return {"number": number, "rest": rest}

    @app.get("/annotated/<number>")
    async def annotated(number: int) -> dict[str, Any]:
        return {"type": type(number).__name__}

    @app.route("/page/", defaults={"page": 1})
    @app.route("/page/<int:page>")
    async def page(page: int) -> dict[str, int]:
        return {"page": page}

    @app.get("/optional/<name>")
    async def optional(name: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "more": more}

    @app.route("/form", methods=["POST", "PUT"])
    async def form() -> dict[str, Any]:
        return {"form": dict(await request.form), "args": dict(request.args), "method": request.method}

    @app.route("/url")
    async def url() -> str:
        return url_for("rest", number=1, rest="x/y")

    def injecting(fn: Any) -> Any:
        """As validation libraries do: they take the parameter for themselves."""

        @functools.wraps(fn)
        async def inner(*args: Any, **kwargs: Any) -> Any:
            return await fn(*args, data=json.loads(await request.get_data()), **kwargs)

        return inner

    @app.post("/injected")
    @injecting
    async def injected(data: dict[str, Any]) -> dict[str, Any]:
        return {"injected": data}

    class View(MethodView):
        async def get(self, name: str) -> str:
            return f"get {name}"

        async def post(self, name: str) -> str:
            return f"post {name}"

    app.add_url_rule("/view/<name>", view_func=View.as_view("view"))
    blue = Blueprint("blue", __name__, url_prefix="/blue")

    @blue.get("/<name>")
    async def of_blue(name: str) -> str:
        return url_for("blue.of_blue", name=name)

    app.register_blueprint(blue)

    @app.errorhandler(418)
    async def teapot(_error: Any) -> tuple[str, int]:
        return "teapot", 418

    @app.get("/teapot")
    async def brew() -> None:
        abort(418)

    @app.websocket("/socket/<name>")
    async def socket(name: str) -> None:
        await websocket.send(f"{name} {await websocket.receive()}")


REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    *(
        ("GET", path, {})
        for path in (
            "/text",
            "/sync",
            "/dict",
            "/list",
            "/tuple",
            "/response",
            "/json",
            "/redirect",
            "/generator",
            "/sync_generator",
            "/rest/5/x/y",
            "/annotated/5",
            "/page/",
            "/page/3",
            "/optional/x?y=1",
            "/url",
            "/view/x",
            "/blue/x",
            "/teapot",
        )
    ),
    ("POST", "/form?a=1", {"form": {"x": "1"}}),
    ("PUT", "/form", {"form": {}}),
    ("POST", "/injected", {"data": b'{"a": 1}'}),
    ("POST", "/view/x", {}),
    ("HEAD", "/text", {}),
    ("OPTIONS", "/text", {}),
]


@pytest.mark.parametrize(("method", "path", "options"), REQUESTS, ids=lambda value: str(value))
async def test_a_quart_view_behaves_as_in_quart(method: str, path: str, options: dict[str, Any]) -> None:
    answers = []
    for app in (QuartTrio(__name__), AgentApp()):
        quart_routes(app)
        answer = await app.test_client().open(path, method=method, **options)
        headers = dict(answer.headers)
        answers.append((answer.status_code, headers, await answer.get_data()))
    quart, ours = answers
    assert ours == quart
    assert quart[0] < 300 or path in ("/redirect", "/teapot")


async def test_what_quart_refuses_is_refused() -> None:
    for path in ("/none", "/number"):
        for app in (QuartTrio(__name__), AgentApp()):
            quart_routes(app)
            assert (await app.test_client().get(path)).status_code == 500


async def test_views_without_parameters_are_not_wrapped() -> None:
    app = AgentApp()

    @app.get("/a/<name>")
    async def a(name: str) -> str:
        return name

    assert app.view_functions["a"] is a


async def test_websockets_are_untouched() -> None:
    app = AgentApp()
    quart_routes(app)
    async with app.test_client().websocket("/socket/x") as socket:
        await socket.send("y")
        assert await socket.receive() == "x y"


# What is added.


async def test_parameters_that_are_not_in_the_path() -> None:
    app = AgentApp(app_name="Friday", app_description="A helpful assistant")

    @app.get("/info")
    async def get_info() -> dict[str, Any]:
        return {"app name": app.app_name, "app description": app.app_description, "custom_metadata": "v1.0.0"}

    @app.post("/update_config")
    async def update_config(data: dict) -> dict[str, str]:  # type: ignore[type-arg]
        return {"status": "updated", "key": data["config_key"]}

    @app.put("/items/{name}")
    def put(name: str, item: Item, dry: bool = False) -> tuple[Item, int]:
        return dataclasses.replace(item, name=name), 200 if dry else 201

    @app.patch("/raw/<name>")
    async def raw(name: str, it: Request) -> bytes:
        return name.encode() + await it.get_data()

    @app.delete("/items")
    async def delete(ids: list[int], why: str | None = None) -> dict[str, Any]:
        return {"ids": ids, "why": why}

    @app.route("/both", methods=["GET", "POST"])
    async def both(number: int = 3) -> dict[str, int]:
        return {"number": number}

    @app.post("/nothing")
    async def nothing(data: dict) -> None:  # type: ignore[type-arg]
        return None

    @app.post("/status")
    async def status(data: dict) -> tuple[str, int]:  # type: ignore[type-arg]
        return "made", 201

    async with app.runtime():
        client = app.test_client()
        assert await (await client.get("/info")).get_json() == {
            "app name": "Friday",
            "app description": "A helpful assistant",
            "custom_metadata": "v1.0.0",
        }
        assert await post(client, "/update_config", {"config_key": "max_tokens"}) == (
            200,
            {"status": "updated", "key": "max_tokens"},
        )
        assert (await post(client, "/update_config", [1]))[1]["errors"] == [
            {"loc": "$", "msg": "must be an object, not a list"}
        ]
        answer = await client.put("/items/b?dry=true", json={"name": "a"})
        assert (answer.status_code, await answer.get_json()) == (200, {"name": "b", "size": 1})
        answer = await client.put("/items/b", json={"name": "a", "size": 2})
        assert (answer.status_code, await answer.get_json()) == (201, {"name": "b", "size": 2})
        answer = await client.put("/items/b?dry=x", json={"size": "2"})
        assert {fault["loc"] for fault in (await answer.get_json())["errors"]} == {"query.dry", "$.size"}
        answer = await client.put("/items/b?dry=x", json={"size": 2})
        assert {fault["loc"] for fault in (await answer.get_json())["errors"]} == {"query.dry", "$.name"}
        assert await (await client.patch("/raw/x", data=b"yz")).get_data() == b"xyz"
        assert await (await client.delete("/items?ids=1&ids=2")).get_json() == {"ids": [1, 2], "why": None}
        assert (await client.delete("/items")).status_code == 422
        assert await (await client.get("/both")).get_json() == {"number": 3}
        assert await post(client, "/both?number=4") == (200, {"number": 4})
        assert await post(client, "/nothing", {}) == (200, None)
        assert (await client.post("/status", json={})).status_code == 201


async def test_braced_parts_of_a_path_follow_their_annotation() -> None:
    app = AgentApp()

    @app.get("/items/{number}")
    async def item(number: int) -> dict[str, Any]:
        return {"number": number}

    @app.get("/quart/<number>")
    async def quart_style(number: int) -> dict[str, Any]:
        return {"number": number}

    client = app.test_client()
    assert await (await client.get("/items/5")).get_json() == {"number": 5}
    answer = await client.get("/items/x")
    assert (answer.status_code, (await answer.get_json())["errors"]) == (
        422,
        [{"loc": "path.number", "msg": "must be a whole number"}],
    )
    assert await (await client.get("/quart/5")).get_json() == {"number": "5"}


@pytest.mark.parametrize("order", [("/items", "/items/<int:number>"), ("/items/<int:number>", "/items")])
async def test_a_function_with_several_routes(order: tuple[str, str]) -> None:
    app = AgentApp()

    async def items(number: int = 7) -> dict[str, int]:
        return {"number": number}

    for path in order:
        app.get(path)(items)

    @app.get("/url")
    async def url() -> str:
        return url_for("items", number=3)

    client = app.test_client()
    assert await (await client.get("/items")).get_json() == {"number": 7}
    assert await (await client.get("/items?number=8")).get_json() == {"number": 8}
    assert await (await client.get("/items/9")).get_json() == {"number": 9}
    assert (await client.get("/items?number=x")).status_code == 422
    assert await (await client.get("/url")).get_data() == b"/items/3"


async def test_parameters_in_a_blueprint() -> None:
    app = AgentApp()
    blue = Blueprint("blue", __name__, url_prefix="/blue")

    @blue.post("/<name>")
    async def of_blue(name: str, item: Item) -> dict[str, str]:
        return {"name": name, "item": item.name}

    app.register_blueprint(blue)
    assert await post(app.test_client(), "/blue/x", {"name": "y"}) == (200, {"name": "x", "item": "y"})


async def test_models_are_answers() -> None:
    app = AgentApp()

    @app.get("/model")
    async def model() -> Item:
        return Item("a")

    @app.get("/inside")
    async def inside() -> dict[str, Any]:
        return {"items": [Item("a")], "set": {2, 1}, "quart's": datetime.date(2030, 1, 2)}

    @app.get("/large")
    async def large() -> dict[str, Any]:
        return {"plain": 2**70, "in a model": Item("a", 2**70), "in a set": {-(2**70)}, "float": 0.1}

    client = app.test_client()
    assert await (await client.get("/model")).get_json() == {"name": "a", "size": 1}
    assert await (await client.get("/inside")).get_json() == {
        "items": [{"name": "a", "size": 1}],
        "set": [1, 2],
        "quart's": "Wed, 02 Jan 2030 00:00:00 GMT",
    }
    text = await (await client.get("/large")).get_data()
    assert json.loads(text) == {
        "plain": 2**70,
        "in a model": {"name": "a", "size": 2**70},
        "in a set": [-(2**70)],
        "float": 0.1,
    }


async def test_a_stop_route_of_the_users_replaces_the_built_in_one() -> None:
    app = AgentApp()
    receipts = []

    @app.query()
    async def chat(msgs: Any) -> str:
        return "hi"

    @app.post("/stop")
    async def stop_task(request: AgentRequest) -> dict[str, str]:
        receipts.append(await app.stop_chat(user_id=request.user_id, session_id=request.session_id))  # type: ignore[arg-type]
        return {"status": "ok"}

    async with app.runtime():
        client = app.test_client()
        assert (await post(client, "/process", chat_body()))[0] == 200
        body = {"input": [], "session_id": "s1", "user_id": "u1"}
        assert await post(client, "/stop", body) == (200, {"status": "ok"})
        assert await post(client, "/stop", {"session_id": "s1", "user_id": "u1"}) == (200, {"status": "ok"})
        assert (await post(client, "/stop", {"user_id": 5}))[0] == 422
    assert [receipt.accepted for receipt in receipts] == [False, False]
