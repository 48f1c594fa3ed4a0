"""The OpenAPI document is valid, complete and true; its page needs no network."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import enum
import hashlib
import json
import re
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Literal

import attrs
import jsonschema
import msgspec
import pydantic
import pytest
import trio
import trio.testing
from openapi_spec_validator import OpenAPIV31SpecValidator
from quart import Request, Response

from trio_agentapp import (
    AgentApp,
    AgentRequest,
    AudioContent,
    DataContent,
    ImageContent,
    Message,
    StopReceipt,
    TextContent,
)
from trio_agentapp.endpoints.openapi import docs_page
from trio_agentapp.endpoints.openapi.components import built_in
from trio_agentapp.endpoints.openapi.document import document_of
from trio_agentapp.endpoints.openapi.routes import ROUTES
from trio_agentapp.endpoints.openapi.schemas import Schemas
from trio_agentapp.errors import RequestError
from trio_agentapp.protocol import codec
from trio_agentapp.protocol.builder import ResponseBuilder
from trio_agentapp.protocol.content import CONTENT_TYPES, FIELDS
from trio_agentapp.protocol.lifecycle import Phase


class Colour(enum.Enum):
    """What it looks like."""

    RED = "red"
    BLUE = "blue"


@attrs.define
class Item:
    """A thing."""

    name: str
    price: float = 1.5
    colour: Colour | None = None
    below: list[Item] = attrs.field(factory=list)


@dataclasses.dataclass
class Line:
    item: Item
    when: datetime.datetime
    kind: Literal["a", 1] = "a"
    place: tuple[float, str] = (0.0, "")
    more: dict[str, int] = dataclasses.field(default_factory=dict)


class Struct(msgspec.Struct):
    number: int
    next: Struct | None = None


class Model(pydantic.BaseModel):
    """One of pydantic's."""

    number: int = pydantic.Field(ge=0)
    below: list[Model] = []


def talkative_app(**options: Any) -> AgentApp:
    app = AgentApp(app_name="Friday", app_description="A helpful assistant", **options)

    @app.query()
    async def chat(msgs: Any) -> AsyncIterator[str]:
        yield "Hello"

    return app


async def document(app: AgentApp) -> dict[str, Any]:
    async with app.runtime():
        answer = await app.test_client().get("/openapi.json")
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
        found: dict[str, Any] = json.loads(await answer.get_data())
    OpenAPIV31SpecValidator(found).validate()
    return found


def schema_for(found: dict[str, Any], name: str) -> Any:
    """A validator of one of the document's schemas."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": found["components"]}
    return jsonschema.Draft202012Validator(schema)


async def test_the_document_of_a_bare_app_is_valid() -> None:
    found = await document(AgentApp())
    assert found["openapi"] == "3.1.0"
    assert set(found["paths"]) >= {"/", "/health", "/liveness", "/readiness", "/openapi.json", "/docs"}
    assert "/process" not in found["paths"]
    assert "AgentRequest" not in found["components"]["schemas"]


async def test_every_route_is_listed_and_every_built_in_one_is_described() -> None:
    everything = {
        "enable_stream_task": True,
        "web_ui": True,
        "metrics": True,
        "admin_token": "correct-horse-battery",
    }
    app = talkative_app(endpoint_path="/ask/me", **everything)

    @app.task("/v1.0/longjob")
    def heavy_computation(data: Any) -> Any:
        return data

    found = await document(app)
    listed = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in ({"GET"} if rule.websocket else (rule.methods or set()) - {"HEAD", "OPTIONS"})
    }
    assert ("/ws", "get") in listed
    assert {(path, method) for path, item in found["paths"].items() for method in item} == listed
    for path, item in found["paths"].items():
        for method, operation in item.items():
            assert not operation["summary"].startswith(method.upper()), f"{method} {path} is not described"
            assert set(operation["responses"]) - {"default"}
    summaries = [operation["summary"] for item in found["paths"].values() for operation in item.values()]
    assert {operation.summary for operation in ROUTES.values()} <= set(summaries), "described, and not mounted"
    assert found["paths"]["/ask/me"]["post"]["summary"] == "Start a run"
    for path in ("/ask/me/task", "/v1.0/longjob"):
        assert found["paths"][path]["post"]["tags"] == ["Tasks"]
        assert found["paths"][f"{path}/{{task_id}}"]["get"]["summary"] == "Read a task"
        assert found["paths"][f"{path}/{{task_id}}/cancel"]["post"]["summary"] == "Stop a task"
    assert found["info"]["title"] == "Friday"
    assert found["info"]["description"] == "A helpful assistant"
    identifiers = [operation["operationId"] for item in found["paths"].values() for operation in item.values()]
    assert len(set(identifiers)) == len(identifiers)


async def test_models_with_every_content_type() -> None:
    schemas = (await document(talkative_app()))["components"]["schemas"]
    assert {"AgentRequest", "Message", "Content", "Event", "ResponseEvent", "Problem", "StopReceipt"} <= set(
        schemas
    )
    assert schemas["Content"]["discriminator"]["mapping"].keys() == set(CONTENT_TYPES)
    for kind in CONTENT_TYPES:
        fields = schemas[f"{kind.capitalize()}Content"]["properties"]
        assert set(fields) == {"type", "delta", *FIELDS[kind]}


def test_the_components_have_the_fields_of_the_classes() -> None:
    for cls in (AgentRequest, Message):
        fields = {field.name for field in attrs.fields(cls)} - {"extra"}
        assert set(built_in()[cls.__name__]["properties"]) == fields
    assert {field.name for field in attrs.fields(StopReceipt)} <= set(built_in()["StopReceipt"]["properties"])
    # Generated TypeScript types take a field with a default for one that is always there.
    assert '"default"' not in json.dumps(built_in())
    phases = {str(phase) for phase in Phase} - {"claiming"}  # clients see it as running
    assert set(built_in()["RunInfo"]["properties"]["phase"]["enum"]) == phases


VALID = [
    {"input": [{"type": "a2ui_surface", "surface": {}}]},
    {"input": [{"type": "function_call"}]},
    {"input": "hi"},
    {"input": [{"role": "user", "content": "hi"}], "session_id": "s", "stream": None, "x": 1},
    {"input": [{"content": [{"type": "text", "text": "a"}, {"type": "data", "data": None}]}]},
    {"input": [{"type": None, "role": None, "content": None}], "on_disconnect": {"cancel_after": 1}},
    {"input": [{"content": [{"type": "file", "file_id": "f"}, {"type": "image", "image_url": "u"}]}]},
    {"input": "hi", "stop": ["a"], "tools": [{}], "n": 1, "timeout_s": 0.5, "id": "run-12345"},
]
INVALID = [
    {},
    [],
    {"input": None},
    {"input": []},
    {"input": [{"role": "user", "text": "hi"}]},
    {"input": [{"role": "nobody", "content": ""}]},
    {"input": [{"content": [{"type": "text"}]}]},
    {"input": [{"content": [{"type": "file", "filename": "f"}]}]},
    {"input": [{"content": [{"type": "smell"}]}]},
    {"input": [{"content": 5}]},
    {"input": "hi", "session_id": ""},
    {"input": "hi", "session_id": "a\nb"},
    {"input": "hi", "id": "short"},
    {"input": "hi", "timeout_s": 0},
    {"input": "hi", "on_disconnect": "never"},
    {"input": "hi", "stop": [1]},
    {"input": "hi", "tools": ["x"]},
]


async def test_the_schema_of_a_request_says_what_the_codec_says() -> None:
    judge = schema_for(await document(talkative_app()), "AgentRequest")
    for body in VALID:
        judge.validate(body)
        codec.decode_request(json.dumps(body).encode())
    for body in INVALID:
        assert not judge.is_valid(body), body
        with pytest.raises(RequestError):
            codec.decode_request(json.dumps(body).encode())


def closed(value: Any) -> Any:
    """The same schema, in which an object has no members but those that are described."""
    if isinstance(value, list):
        return [closed(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: closed(item) for key, item in value.items()}
    if found.get("type") == "object" and isinstance(found.get("properties"), dict):
        found.setdefault("additionalProperties", False)
    return found


class Judge:
    """Sends requests, holds the responses against the document, and counts the operations it has seen."""

    def __init__(self, client: Any, found: dict[str, Any]) -> None:
        self._client = client
        self._found = found
        self._exact = closed(found["components"])
        self.seen: set[tuple[str, str, str]] = set()

    async def ask(self, method: str, path: str, status: int = 200, *, of: str = "", **options: Any) -> Any:
        """`of`: the path in the document, if it has parameters."""
        answer = await self._client.open(path, method=method, **options)
        body = await answer.get_data()
        assert answer.status_code == status, body
        of = of or path.partition("?")[0]
        responses = self._found["paths"][of][method.lower()]["responses"]
        described = responses.get(str(status)) or responses["default"]
        if "$ref" in described:
            described = self._found["components"]["responses"][described["$ref"].rpartition("/")[2]]
        self.seen.add((method, of, str(status)))
        assert all(name in answer.headers for name in described.get("headers", {}) if name != "Retry-After")
        media = answer.headers.get("Content-Type", "").partition(";")[0]
        if not described.get("content"):
            assert body == b""
            return None
        schema = described["content"][media]["schema"]
        if media in ("text/html", "text/javascript"):
            return body
        if media == "text/event-stream":
            frames = [frame for frame in body.decode().split("\n\n") if frame and not frame.startswith(":")]
            texts = ["".join(line[6:] for line in frame.splitlines() if line[:6] == "data: ") for frame in frames]
            schema = schema["properties"]["data"].get("contentSchema", {})
        else:
            texts = [body.decode()]
        if texts[-1] == "[DONE]":
            # The last frame of a UI message stream is not JSON.
            texts.pop()
        for text in texts:
            jsonschema.Draft202012Validator({**schema, "components": self._exact}).validate(json.loads(text))
        return json.loads(texts[-1])


async def speak_a2a(ask: Any) -> None:
    """Ask every route of A2A."""
    version = {"A2A-Version": "1.0"}

    def saying(text: str) -> dict[str, Any]:
        return {"message": {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": text}]}}

    for path in ("/.well-known/agent-card.json", "/.well-known/agent.json"):
        await ask("GET", path)
    for path in ("/a2a", "/a2a/"):
        call = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": saying("hi")}
        assert (await ask("POST", path, json=call, headers=version))["result"]
    await ask("POST", "/message:stream", json=saying("hi"), headers=version)
    waiting = {**saying("wait"), "configuration": {"returnImmediately": True}}
    task = (await ask("POST", "/message:send", json=waiting, headers=version))["task"]["id"]
    one = "/tasks/{task_id}"
    await ask("GET", "/tasks", headers=version)
    await ask("GET", f"/tasks/{task}", of=one, headers=version)
    await ask("GET", "/tasks/unknown-1", 404, of=one, headers=version)
    configs = f"{one}/pushNotificationConfigs"
    config = {"url": "https://example.com/", "id": "c"}
    await ask("POST", f"/tasks/{task}/pushNotificationConfigs", of=configs, json=config, headers=version)
    await ask("GET", f"/tasks/{task}/pushNotificationConfigs", of=configs, headers=version)
    for method in ("GET", "DELETE"):
        path = f"/tasks/{task}/pushNotificationConfigs/c"
        await ask(method, path, of=f"{configs}/{{config_id}}", headers=version)
    async with trio.open_nursery() as nursery:
        for method in ("GET", "POST"):
            subscribe = partial(ask, method, f"/tasks/{task}:subscribe", of=f"{one}:subscribe", headers=version)
            nursery.start_soon(subscribe)
        await trio.testing.wait_all_tasks_blocked()
        await ask("POST", f"/tasks/{task}:cancel", of=f"{one}:cancel", json={}, headers=version)
    await ask("GET", "/extendedAgentCard", 400, headers=version)


async def test_every_built_in_route_serves_what_the_document_says() -> None:
    app = AgentApp(app_name="Friday", enable_stream_task=True, web_ui=True)

    @app.query()
    async def chat(request: AgentRequest, run: Any) -> AsyncIterator[Any]:
        if request.input[-1].text == "ask":
            await run.ask("Sure?", schema=bool)
        match request.input[0].text:
            case "wait":
                await run.receive()
                yield "received"
            case "fail":
                raise LookupError
            case _:
                yield "Hello"
                yield Message.tool_call("look", {"a": 1})
                yield ImageContent("https://example.org/a.png")

    @app.task("/job")
    async def work(data: Any = None) -> Any:
        if data == "wait":
            await trio.sleep_forever()
        return {"done": data}

    def asking(text: str, run_id: str, **fields: Any) -> dict[str, Any]:
        return {"input": text, "id": run_id, "session_id": f"of-{run_id}", "user_id": "u1", **fields}

    async with app.runtime():
        client = app.test_client()
        found = json.loads(await (await client.get("/openapi.json")).get_data())
        OpenAPIV31SpecValidator(found).validate()
        judge = Judge(client, found)
        ask = judge.ask
        for path in ("/", "/health", "/liveness", "/readiness", "/docs", "/chat"):
            await ask("GET", path)
        await ask("GET", "/chat/tree.js", of="/chat/{name}")
        await ask("GET", "/openapi.json")

        streamed = await ask("POST", "/process", json=asking("hi", "run-streamed"))
        assert streamed["status"] == "completed"
        await ask("POST", "/process", json=asking("fail", "run-failed-1", stream=False))
        await ask("POST", "/process", json=asking("hi", "run-whole-01", stream=False))
        await ask("POST", "/process", 202, json=asking("wait", "run-waiting1", background=True))
        tree = await ask("GET", "/runs/run-waiting1/tree?user_id=u1", of="/runs/{run_id}/tree")
        assert tree["root"]["children"][0]["name"] == "chat"
        await ask("POST", "/process", 409, json={**asking("hi", "run-refused1"), "session_id": "of-run-waiting1"})
        await ask("POST", "/process", 422, json={"input": 5})
        await ask("POST", "/process", 400, data=b"{")
        await ask("POST", "/process", 415, data=b"{}", headers={"Content-Type": "text/plain"})
        queued = asking("hi", "run-queued-1", background=True, multitask_strategy="enqueue")
        assert (await ask("POST", "/process", 202, json={**queued, "session_id": "of-run-waiting1"}))["run_id"]
        one = "/runs/{run_id}"
        assert (await ask("GET", "/runs/run-queued-1", of=one))["phase"] == "queued"
        assert (await ask("GET", "/runs/run-waiting1", of=one))["phase"] == "running"
        assert (await ask("GET", "/runs/run-whole-01", of=one))["phase"] == "ended"
        await ask("GET", "/runs/run-unknown1", 404, of=one)
        assert len((await ask("GET", "/runs?user_id=u1&limit=2"))["runs"]) == 2
        await ask("GET", "/runs?user_id=u1&limit=0", 422)

        await ask("POST", "/process", 202, json=asking("ask", "run-asking-1", background=True))
        await trio.testing.wait_all_tasks_blocked()
        [question] = (await ask("GET", "/questions?user_id=u1"))["questions"]
        assert (question["run_id"], question["name"]) == ("run-asking-1", "approval")
        await ask("POST", "/runs/run-asking-1/cancel?wait=1", of=f"{one}/cancel")

        attach = f"{one}/stream"
        await ask("GET", "/runs/run-streamed/stream", of=attach)
        await ask("GET", "/runs/run-streamed/stream?starting_after=999", 204, of=attach)
        await ask("GET", "/runs/run-unknown1/stream", 404, of=attach)
        await ask("GET", "/runs/run-failed-1/wait", of=f"{one}/wait")

        message = {"role": "user", "content": "go on"}
        await ask("POST", "/runs/run-waiting1/input", 202, of=f"{one}/input", json=message)
        await ask("GET", "/runs/run-waiting1/wait", of=f"{one}/wait")
        await ask("GET", "/runs/run-queued-1/wait", of=f"{one}/wait")
        await ask("POST", "/runs/run-waiting1/input", 409, of=f"{one}/input", json=message)

        await ask("POST", "/process", 202, json=asking("wait", "run-waiting2", background=True))
        await ask("POST", "/runs/run-waiting2/cancel?wait=1", of=f"{one}/cancel")
        await ask("POST", "/process", 202, json=asking("wait", "run-waiting3", background=True))
        await ask("POST", "/runs/run-waiting3/cancel", 202, of=f"{one}/cancel")
        await ask("POST", "/process", 202, json=asking("wait", "run-waiting4", background=True))
        results = await ask(
            "POST", "/runs/cancel", json={"run_ids": ["run-waiting4", "run-unknown1"], "user_id": "u1"}
        )
        assert [result["accepted"] for result in results["results"]] == [True, False]
        await ask("POST", "/process", 202, json=asking("wait", "run-waiting5", background=True))
        await ask("POST", "/stop?wait=1", json={"session_id": "of-run-waiting5", "user_id": "u1"})
        await ask("POST", "/stop", json={"session_id": "nobody"})
        await ask("POST", "/stop", 422, json={})

        session = "/sessions/{session_id}"
        await ask("GET", "/sessions/of-run-whole-01?user_id=u1", of=session)
        history = await ask("GET", "/sessions/of-run-whole-01/history?user_id=u1", of=f"{session}/history")
        assert history["messages"]

        for path, body in (("/process/task", asking("hi", "run-task-001")), ("/job", {"x": 1})):
            task = (await ask("POST", path, 202, json=body))["task_id"]
            with trio.fail_after(10):
                while "result" not in await ask("GET", f"{path}/{task}", of=f"{path}/{{task_id}}"):
                    await trio.sleep(0.01)
            await ask("POST", f"{path}/{task}/cancel", of=f"{path}/{{task_id}}/cancel")
            await ask("GET", f"{path}/unknown-1", 404, of=f"{path}/{{task_id}}")
        task = (await ask("POST", "/job", 202, json="wait"))["task_id"]
        await ask("POST", f"/job/{task}/cancel?wait=1", of="/job/{task_id}/cancel")
        await speak_a2a(ask)

        for base in ("/v1", "/compatible-mode/v1"):
            made = await ask("POST", f"{base}/responses", json={"input": "hi"})
            response = f"{base}/responses/{{response_id}}"
            await ask("GET", f"{base}/responses/{made['id']}", of=response)
            await ask("POST", f"{base}/responses/{made['id']}/cancel", of=f"{response}/cancel")
            await ask("DELETE", f"{base}/responses/{made['id']}", 405, of=response)
            await ask("GET", f"{base}/responses/{made['id']}/input_items", 405, of=f"{response}/input_items")
            await ask("GET", f"{base}/responses/resp_unknown1", 404, of=response)
            await ask("POST", f"{base}/responses", 400, json={"input": 5})
            chat_of = {"messages": [{"role": "user", "content": "hi"}]}
            await ask("POST", f"{base}/chat/completions", json=chat_of)
            await ask("POST", f"{base}/conversations", json={"metadata": {"a": "b"}})
            models = await ask("GET", f"{base}/models")
            await ask("GET", f"{base}/models/{models['data'][0]['id']}", of=f"{base}/models/{{model}}")

        said = [{"id": "m", "role": "user", "content": "hi", "parts": [{"type": "text", "text": "hi"}]}]
        await ask("POST", "/ag-ui", json={"threadId": "t1", "runId": "run-of-ag-ui", "messages": said})
        await ask("POST", "/ag-ui", 422, json={})
        await ask("POST", "/ai-sdk/chat", json={"id": "c1", "messages": said})
        await ask("POST", "/process", 202, json=asking("wait", "run-waiting6", background=True))
        chat_stream = "/ai-sdk/chat/{chat_id}/stream"
        await ask("GET", "/ai-sdk/chat/of-run-none/stream", 204, of=chat_stream)
        async with trio.open_nursery() as nursery:
            path = "/ai-sdk/chat/of-run-waiting6/stream?user_id=u1"
            nursery.start_soon(partial(ask, "GET", path, of=chat_stream))
            await trio.testing.wait_all_tasks_blocked()
            await ask("POST", "/runs/run-waiting6/input", 202, of=f"{one}/input", json=message)

    operations = {
        (method.upper(), path, status)
        for path, item in found["paths"].items()
        for method, operation in item.items()
        for status in operation["responses"]
        if status in ("200", "202", "204")
    }
    # A task that is stopped without `wait` may have ended by then: 202 for 200. There is no extended agent card.
    missed = operations - judge.seen - {("GET", "/extendedAgentCard", "200")}
    assert {path.rpartition("/")[2] for _, path, _ in missed} <= {"cancel"}, missed


async def test_streams_of_endpoints_and_refusals_are_as_described() -> None:
    app = talkative_app()

    @app.endpoint("/broken")
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise LookupError

    async with app.runtime():
        client = app.test_client()
        judge = Judge(client, json.loads(await (await client.get("/openapi.json")).get_data()))
        assert (await judge.ask("POST", "/broken"))["error"] == "internal"
        problem = await judge.ask("POST", "/process", 422, json={"input": 5})
        assert problem["errors"]


async def test_endpoints_are_described() -> None:
    app = AgentApp()

    @app.endpoint("/lines/{line_id}", methods=["POST", "PUT"])
    async def lines(line_id: int, line: Line, tags: list[str] = [], dry: bool | None = None) -> list[Item]:  # noqa: B006
        """Change a line.

        It is priced again.
        """
        return [line.item]

    @app.endpoint("/several")
    async def several(item: Item, struct: Struct, model: Model | None, data, request: Request) -> Struct:  # type: ignore[no-untyped-def]
        return struct

    @app.endpoint("/numbers", methods=["GET"])
    async def numbers(kind: Literal["a", "b"] = "a") -> AsyncIterator[Item]:
        yield Item("a")

    @app.get("/native/<uuid:key>/{number:int}")
    async def native(key: Any, number: int, colour: Colour = Colour.RED) -> dict[str, int]:
        return {}

    @app.get("/response")
    async def response() -> Response:
        return Response("x")

    found = await document(app)
    operation = found["paths"]["/lines/{line_id}"]["post"]
    assert (operation["summary"], operation["description"]) == ("Change a line", "It is priced again.")
    assert [(each["name"], each["in"], each["required"]) for each in operation["parameters"]] == [
        ("line_id", "path", True),
        ("tags", "query", False),
        ("dry", "query", False),
    ]
    assert operation["parameters"][1]["schema"] == {"type": "array", "items": {"type": "string"}, "default": []}
    assert operation["parameters"][2]["schema"] == {"type": "boolean"}
    assert operation["requestBody"] == {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Line"}}},
    }
    assert operation["responses"]["200"]["content"]["application/json"]["schema"] == {
        "type": "array",
        "items": {"$ref": "#/components/schemas/Item"},
    }
    assert set(operation["responses"]) == {"200", "400", "408", "413", "415", "422", "default"}
    several_body = found["paths"]["/several"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert several_body["required"] == ["item", "struct", "data"]
    assert set(several_body["properties"]) == {"item", "struct", "model", "data"}
    streamed = found["paths"]["/numbers"]["get"]["responses"]["200"]["content"]["text/event-stream"]["schema"]
    assert {"$ref": "#/components/schemas/Item"} in streamed["properties"]["data"]["contentSchema"]["anyOf"]
    native_parameters = found["paths"]["/native/{key}/{number}"]["get"]["parameters"]
    assert [each["schema"] for each in native_parameters] == [
        {"type": "string", "format": "uuid"},
        {"type": "integer"},
        {"$ref": "#/components/schemas/Colour"},
    ]
    assert "content" not in found["paths"]["/response"]["get"]["responses"]["200"]

    schemas = found["components"]["schemas"]
    assert schemas["Item"]["description"] == "A thing."
    assert schemas["Item"]["required"] == ["name"]
    assert schemas["Item"]["properties"]["price"] == {"type": "number", "default": 1.5}
    assert schemas["Item"]["properties"]["below"]["items"] == {"$ref": "#/components/schemas/Item"}
    assert schemas["Line"]["properties"]["place"]["prefixItems"] == [{"type": "number"}, {"type": "string"}]
    assert "description" not in schemas["Line"]
    assert schemas["Colour"] == {"title": "Colour", "enum": ["blue", "red"], "description": "What it looks like."}
    assert schemas["Model"]["properties"]["number"]["minimum"] == 0
    assert {"$ref": "#/components/schemas/Struct"} in schemas["Struct"]["properties"]["next"]["anyOf"]


def test_two_models_of_one_name() -> None:
    def make(fields: dict[str, Any]) -> Any:
        return pydantic.create_model("Same", **fields)

    @attrs.define
    class Same:
        x: int

    mine = Same
    schemas = Schemas(reserved=built_in())
    first, second, third = (schemas.of(each) for each in (mine, make({"a": (int, 1)}), make({"b": (str, "")})))
    assert len({first["$ref"], second["$ref"], third["$ref"]}) == 3
    assert schemas.of(mine) == first

    @attrs.define
    class Message:
        mine: int

    assert schemas.of(Message)["$ref"] != "#/components/schemas/Message"
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in schemas.components)


async def test_a_route_of_the_users_is_described_as_theirs() -> None:
    app = talkative_app()

    @app.post("/stop")
    async def stop_task(request: AgentRequest) -> dict[str, str]:
        """Mine."""
        return {}

    found = await document(app)
    operation = found["paths"]["/stop"]["post"]
    assert operation["summary"] == "Mine"
    assert operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/AgentRequest")


async def test_the_docs_give_way() -> None:
    app = AgentApp()

    @app.get("/docs")
    async def docs() -> str:
        return "my docs"

    @app.get("/openapi.json")
    async def openapi() -> dict[str, str]:
        return {"mine": "yes"}

    async with app.runtime():
        client = app.test_client()
        assert await (await client.get("/docs")).get_data() == b"my docs"
        assert await (await client.get("/openapi.json")).get_json() == {"mine": "yes"}


def test_the_document_can_be_made_without_a_server() -> None:
    app = talkative_app()
    found = document_of(app, name="x", description="", endpoint_path="/process")
    OpenAPIV31SpecValidator(found).validate()


# The page.


async def test_the_page_asks_nobody_else() -> None:
    response = docs_page()
    page = (await response.get_data()).decode()
    assert not re.search(r"https?://|src=|@import|url\(|<link|<img|<iframe", page)
    # What is shown comes from descriptions and answers: it is never taken for markup.
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", page)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert len(page.splitlines()) < 320


async def test_the_schema_of_an_event_has_the_fields_of_its_type() -> None:
    """So that types made of it let a client read deltas and tool calls."""
    judge = schema_for(await document(talkative_app()), "Event")
    builder = ResponseBuilder("run-12345", "s1", created_at=1)
    events = [*builder.start(), *builder.add("Hello"), *builder.add(Message.tool_call("look", {}, "c"))]
    events += builder.add(Message(content=[DataContent({"a": 1}), TextContent("b"), ImageContent("u")]))
    events += builder.add(AudioContent("AAAA", delta=True))
    spelled = [json.loads(codec.encode_event(event)) for event in [*events, *builder.complete(completed_at=2)]]
    for event in spelled:
        judge.validate(event)
    contents = [event for event in spelled if event["object"] == "content"]
    assert {event["type"] for event in contents} == {"text", "data", "image", "audio"}
    for event in contents:
        for name in FIELDS[event["type"]]:
            assert not judge.is_valid({field: value for field, value in event.items() if field != name}), name


async def test_the_websocket_is_told_of() -> None:
    app = talkative_app()
    async with app.runtime():
        routes = json.loads(await (await app.test_client().get("/")).get_data())["routes"]
    assert routes["/ws"] == ["WebSocket"]
    operation = (await document(app))["paths"]["/ws"]["get"]
    assert "101" in operation["responses"]
    assert "trio-agentapp.v1" in operation["description"]


async def test_a_websocket_of_the_users_own_is_not_described_as_ours() -> None:
    app = talkative_app()

    @app.websocket("/ws")
    async def own() -> None:
        raise AssertionError

    assert "/ws" not in (await document(app))["paths"]
