"""The sentences with MUST of the specification of A2A 1.0.1, each tested over both bindings where it is of both.

A test names the section, and the ids by which the project's conformance suite calls the sentences. The suite itself
is in no package registry, so these are tests of our own. What 0.3 has beside is at the end.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import attrs
import httpx
import pytest
import trio

from tests.frameworks import a2a_cuts as cuts
from trio_agentapp.protocol.sse_reader import SSEReader

AGENT = Path(__file__).parent / "told_agent.py"
BINDINGS = ["JSONRPC", "HTTP+JSON"]
ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
TERMINAL = {"TASK_STATE_COMPLETED", "TASK_STATE_FAILED", "TASK_STATE_CANCELED", "TASK_STATE_REJECTED"}
STATES = TERMINAL | {
    *("TASK_STATE_SUBMITTED", "TASK_STATE_WORKING"),
    *("TASK_STATE_INPUT_REQUIRED", "TASK_STATE_AUTH_REQUIRED"),
}
CODES = {
    "TASK_NOT_FOUND": (-32001, 404),
    "TASK_NOT_CANCELABLE": (-32002, 400),
    "PUSH_NOTIFICATION_NOT_SUPPORTED": (-32003, 400),
    "UNSUPPORTED_OPERATION": (-32004, 400),
    "CONTENT_TYPE_NOT_SUPPORTED": (-32005, 400),
    "EXTENDED_AGENT_CARD_NOT_CONFIGURED": (-32007, 400),
    "EXTENSION_SUPPORT_REQUIRED": (-32008, 400),
    "VERSION_NOT_SUPPORTED": (-32009, 400),
}
"""Section 5.4: the code of JSON-RPC and the status of HTTP+JSON."""

ROUTES = {
    "SendMessage": ("POST", "/message:send"),
    "SendStreamingMessage": ("POST", "/message:stream"),
    "GetTask": ("GET", "/tasks/{id}"),
    "ListTasks": ("GET", "/tasks"),
    "CancelTask": ("POST", "/tasks/{id}:cancel"),
    "SubscribeToTask": ("POST", "/tasks/{id}:subscribe"),
    "CreateTaskPushNotificationConfig": ("POST", "/tasks/{taskId}/pushNotificationConfigs"),
    "GetTaskPushNotificationConfig": ("GET", "/tasks/{taskId}/pushNotificationConfigs/{id}"),
    "ListTaskPushNotificationConfigs": ("GET", "/tasks/{taskId}/pushNotificationConfigs"),
    "DeleteTaskPushNotificationConfig": ("DELETE", "/tasks/{taskId}/pushNotificationConfigs/{id}"),
    "GetExtendedAgentCard": ("GET", "/extendedAgentCard"),
}
"""Section 11.3."""


@attrs.frozen
class Refusal(Exception):
    """An error, checked for what all errors must have."""

    reason: str
    code: int
    status: int


class Wire:
    """One binding of the agent."""

    def __init__(self, http: httpx.AsyncClient, url: str, binding: str) -> None:
        self.http, self.url, self.binding = http, url, binding

    def request(self, method: str, params: dict[str, Any], headers: dict[str, str]) -> httpx.Request:
        headers = {"A2A-Version": "1.0", **headers}
        if self.binding == "JSONRPC":
            body = {"jsonrpc": "2.0", "id": "r1", "method": method, "params": params}
            return self.http.build_request("POST", self.url + "/a2a", json=body, headers=headers)
        verb, path = ROUTES[method]
        rest = {name: value for name, value in params.items() if "{" + name + "}" not in path}
        path = path.format(**params)
        if verb == "POST":
            return self.http.build_request(verb, self.url + path, json=rest, headers=headers)
        return self.http.build_request(verb, self.url + path, params=rest, headers=headers)

    async def call(self, method: str, headers: dict[str, str] | None = None, /, **params: Any) -> Any:
        """Return the result. Raises Refusal."""
        response = await self.http.send(self.request(method, params, headers or {}))
        if method == "DeleteTaskPushNotificationConfig" and response.is_success and not response.content:
            return {}
        return self._result(response.status_code, response.headers["content-type"], response.json())

    def _result(self, status: int, kind: str, body: Any) -> Any:
        if self.binding == "JSONRPC":
            # Section 9.1: JSONRPC-FMT-001, -002.
            assert kind.startswith("application/json")
            assert (body["jsonrpc"], body["id"]) == ("2.0", "r1")
            if "error" not in body:
                return body["result"]
            raise self._jsonrpc_error(status, body["error"])
        assert kind.startswith(("application/a2a+json", "application/json"))
        if status < 400:
            return body
        # Section 11.6: HTTP_JSON-ERR-001.
        error = body["error"]
        assert error["code"] == status
        assert isinstance(error["message"], str)
        assert re.fullmatch(r"[A-Z_]+", error["status"])
        info = self._info(error["details"])
        if info["reason"] in CODES:
            assert status == CODES[info["reason"]][1]
        raise Refusal(info["reason"], 0, status)

    def _jsonrpc_error(self, status: int, error: dict[str, Any]) -> Refusal:
        # Section 9.5: JSONRPC-ERR-001, -002; 5.4: JSONRPC-SSE-002.
        assert isinstance(error["code"], int)
        assert isinstance(error["message"], str)
        info = self._info(error["data"])
        if info["reason"] in CODES:
            assert error["code"] == CODES[info["reason"]][0]
        return Refusal(info["reason"], error["code"], status)

    def _info(self, details: list[dict[str, Any]]) -> dict[str, Any]:
        """Section 11.6: HTTP_JSON-ERR-002; 9.5."""
        assert all("@type" in detail for detail in details)
        (info,) = (detail for detail in details if detail["@type"] == ERROR_INFO)
        assert info["domain"]
        return info

    @asynccontextmanager
    async def stream(self, method: str, **params: Any) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        response = await self.http.send(self.request(method, params, {}), stream=True)
        try:
            if not response.headers["content-type"].startswith("text/event-stream"):
                await response.aread()
                self._result(response.status_code, response.headers["content-type"], response.json())
            # Sections 9.4.2 and 11.7: JSONRPC-SSE-001, HTTP_JSON-SSE-001.
            assert response.headers["content-type"].startswith("text/event-stream")
            yield self._events(response)
        finally:
            with trio.CancelScope(shield=True):
                await response.aclose()

    async def _events(self, response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
        reader = SSEReader(1_000_000)
        async for piece in response.aiter_raw():
            for frame in reader.feed(piece):
                value = httpx.Response(200, content=frame.data).json()
                event = self._result(200, "application/json", value)
                # Section 3.2.3: exactly one of the four.
                assert len(event.keys() & {"task", "message", "statusUpdate", "artifactUpdate"}) == 1
                yield event

    async def events(self, method: str, **params: Any) -> list[dict[str, Any]]:
        async with self.stream(method, **params) as stream:
            return [event async for event in stream]

    async def send(self, text: str, **fields: Any) -> dict[str, Any]:
        """Send a message, and return the task."""
        configuration = fields.pop("configuration", {})
        result = await self.call("SendMessage", message=say(text, **fields), configuration=configuration)
        # Section 3.1.1: CORE-SEND-001.
        assert len(result.keys() & {"task", "message"}) == 1
        task: dict[str, Any] = result["task"]
        check_task(task)
        return task


def say(text: str, **fields: Any) -> dict[str, Any]:
    return {"messageId": uuid4().hex, "role": "ROLE_USER", "parts": [{"text": text}], **fields}


def check_task(task: dict[str, Any]) -> None:
    """4.1, 5.5 to 5.7: DM-TASK-001, -002, DM-STATUS-001, DM-MSG-001, -002, DM-PART-001, DM-ART-001, DM-SERIAL-*."""
    assert task["id"]
    assert task["contextId"]
    assert task["status"]["state"] in STATES
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", task["status"]["timestamp"])
    for message in (*task.get("history", ()), *filter(None, [task["status"].get("message")])):
        assert message["messageId"]
        assert message["role"] in ("ROLE_USER", "ROLE_AGENT")
        check_parts(message)
    for artifact in task.get("artifacts", ()):
        assert artifact["artifactId"]
        check_parts(artifact)
    assert not [name for name in names_in(task) if "_" in name]


def check_parts(holder: dict[str, Any]) -> None:
    assert holder["parts"]
    for part in holder["parts"]:
        assert len(part.keys() & {"text", "raw", "url", "data"}) == 1


def names_in(value: Any) -> Iterator[str]:
    """The names of all members that are the protocol's, not an agent's own."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            if name not in ("data", "metadata"):
                yield from names_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from names_in(inner)


@asynccontextmanager
async def told(folder: Path, **env: str) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    port = cuts.free_port()
    async with cuts.agent(folder, [str(AGENT)], port, PORT=str(port), **env) as agent:
        async with httpx.AsyncClient(timeout=20, trust_env=False) as http:
            yield http, agent.url


@pytest.fixture(params=BINDINGS)
async def wire(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Wire]:
    async with told(tmp_path) as (http, url):
        yield Wire(http, url, request.param)


async def refusal(call: Any) -> str:
    with pytest.raises(Refusal) as caught:
        await call
    return caught.value.reason


async def test_send(wire: Wire) -> None:
    """3.1.1, 3.4: CORE-SEND-001 to -003, CORE-MULTI-001a to -006."""
    task, other = await wire.send("complete"), await wire.send("complete")
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    assert len({task["id"], other["id"]}) == len({task["contextId"], other["contextId"]}) == 2
    assert await refusal(wire.send("more", taskId=task["id"])) == "UNSUPPORTED_OPERATION"
    wrong = say("", parts=[{"raw": "dGNr", "mediaType": "application/x-unknown"}])
    assert await refusal(wire.call("SendMessage", message=wrong)) == "CONTENT_TYPE_NOT_SUPPORTED"
    assert (await wire.send("complete", contextId="mine"))["contextId"] == "mine"
    assert await refusal(wire.send("more", taskId="unknown")) == "TASK_NOT_FOUND"
    asked = await wire.send("input")
    assert await refusal(wire.send("more", taskId=asked["id"], contextId="other")) == "INVALID_PARAMS"
    assert (await wire.send("nothing", taskId=asked["id"]))["contextId"] == asked["contextId"]
    reply = await wire.call("SendMessage", message=say("message"))
    assert reply["message"]["contextId"]
    check_parts(reply["message"])


async def test_execution_modes(wire: Wire) -> None:
    """3.2.2: CORE-EXECUTION-MODE-001, -002."""
    for text, state in (("delay", "COMPLETED"), ("input", "INPUT_REQUIRED"), ("auth", "AUTH_REQUIRED")):
        assert (await wire.send(text))["status"]["state"] == f"TASK_STATE_{state}"
    task = await wire.send("delay", configuration={"returnImmediately": True})
    assert task["status"]["state"] not in TERMINAL
    assert (await wire.send("reject"))["status"]["state"] == "TASK_STATE_REJECTED"


async def test_artifacts(wire: Wire) -> None:
    """4.1.6, 4.1.7: each kind of part."""
    parts = {text: (await wire.send(text))["artifacts"][0]["parts"][0] for text in ("text", "file", "url", "data")}
    assert parts["text"] == {"text": "Generated text"}
    assert parts["file"] == {"raw": "aGVsbG8=", "filename": "output.txt", "mediaType": "text/plain"}
    assert parts["url"]["url"] == "https://example.com/output.txt"
    assert (parts["url"]["filename"], parts["url"]["mediaType"]) == ("output.txt", "text/plain")
    assert parts["data"]["data"] == {"key": "value", "count": 42}


async def test_streams(wire: Wire) -> None:
    """3.1.2, 3.5.2: CORE-STREAM-001 to -003, STREAM-ORDER-001."""
    events = await wire.events("SendStreamingMessage", message=say("count"))
    assert "task" in events[0]
    assert not [event for event in events[1:] if event.keys() & {"task", "message"}]
    assert events[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
    texts = [each["artifactUpdate"]["artifact"]["parts"][0]["text"] for each in events if "artifactUpdate" in each]
    assert "".join(texts) == "".join(f"{number} " for number in range(20))
    assert [list(event) for event in await wire.events("SendStreamingMessage", message=say("message"))] == [
        ["message"]
    ]


async def test_several_streams_of_one_task(wire: Wire) -> None:
    """3.1.6, 3.5.2: STREAM-SUB-001, -002, STREAM-ORDER-002 to -004."""
    task = await wire.send("delay", configuration={"returnImmediately": True})
    seen: list[list[dict[str, Any]]] = []

    async def read() -> None:
        seen.append(await wire.events("SubscribeToTask", id=task["id"]))

    async def leave() -> None:
        async with wire.stream("SubscribeToTask", id=task["id"]):
            pass

    async with trio.open_nursery() as nursery:
        for function in (read, read, leave):
            nursery.start_soon(function)
    for events in seen:
        assert events[0]["task"]["id"] == task["id"]
        assert events[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
    assert seen[0][1:] == seen[1][1:]


async def test_subscriptions_that_are_refused(wire: Wire) -> None:
    """3.1.6: STREAM-SUB-003, -004."""
    task = await wire.send("complete")
    assert await refusal(wire.events("SubscribeToTask", id=task["id"])) == "UNSUPPORTED_OPERATION"
    assert await refusal(wire.events("SubscribeToTask", id="unknown")) == "TASK_NOT_FOUND"


async def test_get_and_history(wire: Wire) -> None:
    """3.1.3, 3.2.4: CORE-GET-001, -002, CORE-HIST-001 to -006."""
    asked = await wire.send("input")
    done = await wire.send("nothing", taskId=asked["id"])
    task = await wire.call("GetTask", id=done["id"])
    check_task(task)
    assert task["artifacts"] == done["artifacts"]
    assert [message["role"] for message in task["history"]] == ["ROLE_USER", "ROLE_AGENT", "ROLE_USER"]
    assert [message["parts"][0]["text"] for message in task["history"]] == ["input", "What else?", "nothing"]
    # What was sent is what is kept, once, in its place.
    answer = say("wine", taskId=(await wire.send("input"))["id"])
    answer["parts"].append({"data": {"red": True}, "mediaType": "application/json"})
    kept = (await wire.call("SendMessage", message=answer))["task"]["history"]
    assert [message["messageId"] for message in kept].count(answer["messageId"]) == 1
    assert (kept[-1]["messageId"], kept[-1]["parts"]) == (answer["messageId"], answer["parts"])
    assert not (await wire.call("GetTask", id=done["id"], historyLength=0)).get("history")
    latest = await wire.call("GetTask", id=done["id"], historyLength=1)
    assert latest["history"] == task["history"][-1:]
    assert not (await wire.send("complete", configuration={"historyLength": 0})).get("history")
    assert await refusal(wire.call("GetTask", id="unknown")) == "TASK_NOT_FOUND"


async def test_list(wire: Wire) -> None:
    """3.1.4: CORE-LIST-002 to -005."""
    made = [await wire.send("complete", contextId="listed") for _ in range(3)]
    first = await wire.call("ListTasks", contextId="listed", pageSize=2)
    assert (len(first["tasks"]), first["pageSize"], first["totalSize"]) == (2, 2, 3)
    assert not [task for task in first["tasks"] if "artifacts" in task]
    last = await wire.call("ListTasks", contextId="listed", pageSize=2, pageToken=first["nextPageToken"])
    assert last["nextPageToken"] == ""
    listed = first["tasks"] + last["tasks"]
    assert [task["id"] for task in listed] == [task["id"] for task in reversed(made)]
    times = [task["status"]["timestamp"] for task in listed]
    assert times == sorted(times, reverse=True)
    whole = await wire.call("ListTasks", contextId="listed", includeArtifacts=True)
    assert all(task["artifacts"] for task in whole["tasks"])


async def test_cancel(wire: Wire) -> None:
    """3.1.5: CORE-CANCEL-001 to -003."""
    for text in ("work", "input"):
        task = await wire.send(text, configuration={"returnImmediately": True})
        canceled = await wire.call("CancelTask", id=task["id"])
        check_task(canceled)
        assert canceled["status"]["state"] == "TASK_STATE_CANCELED"
        assert await refusal(wire.call("CancelTask", id=task["id"])) == "TASK_NOT_CANCELABLE"
    assert await refusal(wire.call("CancelTask", id="unknown")) == "TASK_NOT_FOUND"


async def test_input_is_checked(wire: Wire) -> None:
    """3.3.2, 5.7: CORE-ERR-001, -002, DM-SERIAL-004, -005."""
    for message in ({}, {"parts": []}, say("x", parts=[]), say("x", role="ROLE_OTHER"), say("x", parts=[{}])):
        assert await refusal(wire.call("SendMessage", message=message)) == "INVALID_PARAMS"
    without_id = {name: value for name, value in say("x").items() if name != "messageId"}
    assert await refusal(wire.call("SendMessage", message=without_id)) == "INVALID_PARAMS"
    result = await wire.call("SendMessage", message=say("complete", unknownField={"a": 1}), other=1)
    assert "unknownField" not in str(result)


async def test_versions(wire: Wire) -> None:
    """3.6: VER-SERVER-001, -002, VER-CLIENT-002."""
    for version in ("1.0", "1.0.7"):
        assert await wire.call("SendMessage", {"A2A-Version": version}, message=say("complete"))
    for version in ("99.0", "1.9", "x"):
        call = wire.call("SendMessage", {"A2A-Version": version}, message=say("complete"))
        assert await refusal(call) == "VERSION_NOT_SUPPORTED"


async def test_push_notification_configs(wire: Wire) -> None:
    """3.1.7 to 3.1.10: PUSH-CREATE-001, -002, PUSH-GET-001, -002, PUSH-LIST-001, PUSH-DEL-001, -002."""
    task = (await wire.send("work", configuration={"returnImmediately": True}))["id"]
    url = "http://127.0.0.1:9/hook"
    made = await wire.call("CreateTaskPushNotificationConfig", taskId=task, url=url, token="t")
    assert (made["url"], made["taskId"]) == (url, task)
    assert made["id"]
    assert (await wire.call("GetTaskPushNotificationConfig", taskId=task, id=made["id"]))["url"] == url
    listed = await wire.call("ListTaskPushNotificationConfigs", taskId=task)
    assert [config["id"] for config in listed["configs"]] == [made["id"]]
    for _ in range(2):
        await wire.call("DeleteTaskPushNotificationConfig", taskId=task, id=made["id"])
    with pytest.raises(Refusal):
        await wire.call("GetTaskPushNotificationConfig", taskId=task, id=made["id"])
    assert not (await wire.call("ListTaskPushNotificationConfigs", taskId=task)).get("configs")
    await wire.call("CancelTask", id=task)


async def test_deliveries(wire: Wire) -> None:
    """4.3.3: PUSH-DELIVER-001 to -003."""
    posted, send_posted = [], trio.Event()

    async def hook(stream: trio.SocketStream) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some()
        head, _, body = data.partition(b"\r\n\r\n")
        size = int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE)[1])  # type: ignore[index]
        while len(body) < size:
            body += await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        posted.append((head.decode().lower(), httpx.Response(200, content=body).json()))
        if b"TASK_STATE_COMPLETED" in body:
            send_posted.set()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, hook, listeners)
        config = {
            "url": f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/hook",
            "authentication": {"scheme": "Bearer", "credentials": "abc"},
        }
        await wire.send("complete", configuration={"taskPushNotificationConfig": config})
        with trio.fail_after(20):
            await send_posted.wait()
        nursery.cancel_scope.cancel()
    for head, body in posted:
        assert "authorization: bearer abc" in head
        assert len(body.keys() & {"task", "message", "statusUpdate", "artifactUpdate"}) == 1


@pytest.mark.parametrize("binding", BINDINGS)
async def test_capabilities_that_the_card_does_not_have(tmp_path: Path, binding: str) -> None:
    """3.3.4: CORE-CAP-001 to -003."""
    async with told(tmp_path, LESS="1") as (http, url):
        wire = Wire(http, url, binding)
        task = (await wire.send("complete"))["id"]
        push = wire.call("CreateTaskPushNotificationConfig", taskId=task, url="https://example.com")
        assert await refusal(push) == "PUSH_NOTIFICATION_NOT_SUPPORTED"
        for method in ("GetTaskPushNotificationConfig", "DeleteTaskPushNotificationConfig"):
            assert await refusal(wire.call(method, taskId=task, id="x")) == "PUSH_NOTIFICATION_NOT_SUPPORTED"
        listed = wire.call("ListTaskPushNotificationConfigs", taskId=task)
        assert await refusal(listed) == "PUSH_NOTIFICATION_NOT_SUPPORTED"
        stream = wire.events("SendStreamingMessage", message=say("complete"))
        assert await refusal(stream) == "UNSUPPORTED_OPERATION"
        assert await refusal(wire.events("SubscribeToTask", id=task)) == "UNSUPPORTED_OPERATION"
        assert await refusal(wire.call("GetExtendedAgentCard")) == "UNSUPPORTED_OPERATION"


@pytest.mark.parametrize("binding", BINDINGS)
async def test_an_extension_that_is_required(tmp_path: Path, binding: str) -> None:
    """3.3.4: CORE-CAP-004."""
    async with told(tmp_path, REQUIRED="1") as (http, url):
        wire = Wire(http, url, binding)
        assert await refusal(wire.send("complete")) == "EXTENSION_SUPPORT_REQUIRED"
        named = {"A2A-Extensions": "https://example.com/needed"}
        assert await wire.call("SendMessage", named, message=say("complete"))


async def test_the_card(tmp_path: Path) -> None:
    """4.4.1, 8.1, 8.3, 8.6: CARD-DISC-001, CARD-PROTO-001, -002, CARD-STRUCT-001, CARD-CACHE-001, -002."""
    async with told(tmp_path) as (http, url):
        response = await http.get(url + cuts.CARD)
        card = response.json()
        for name in ("name", "description", "version", "defaultInputModes", "defaultOutputModes", "skills"):
            assert card[name], name
        assert isinstance(card["capabilities"], dict)
        for skill in card["skills"]:
            assert all(skill[name] for name in ("id", "name", "description", "tags"))
        interfaces = card["supportedInterfaces"]
        assert [(one["protocolBinding"], one["protocolVersion"]) for one in interfaces][:2] == [
            ("JSONRPC", "1.0"),
            ("HTTP+JSON", "1.0"),
        ]
        assert all(one["url"].startswith(url) for one in interfaces)
        assert "max-age" in response.headers["cache-control"]
        again = await http.get(url + cuts.CARD, headers={"If-None-Match": response.headers["etag"]})
        assert again.status_code == 304


@pytest.mark.parametrize("version", ["1.0", "0.3"])
async def test_requests_that_are_not_json_rpc(tmp_path: Path, version: str) -> None:
    """9.5, and 8.1 of 0.3: the errors of JSON-RPC 2.0."""
    method = "SendMessage" if version == "1.0" else "message/send"
    requests: list[tuple[Any, int]] = [
        (b'{"jsonrpc": "2.0", "method": "x"', -32700),
        ({"jsonrpc": "1.0", "id": 1, "method": method, "params": {}}, -32600),
        ({"jsonrpc": "2.0", "id": 1, "params": {}}, -32600),
        ({"jsonrpc": "2.0", "id": {"a": 1}, "method": method, "params": {}}, -32600),
        ({"jsonrpc": "2.0", "id": 1, "method": "Nothing", "params": {}}, -32601),
        ({"jsonrpc": "2.0", "id": 1, "method": method, "params": {"": "x"}}, -32602),
        ({"jsonrpc": "2.0", "id": 1, "method": method, "params": "x"}, -32602),
        ({"jsonrpc": "2.0", "id": 1, "method": method, "params": {"message": {"parts": "x"}}}, -32602),
    ]
    async with told(tmp_path) as (http, url):
        headers = {"A2A-Version": version, "Content-Type": "application/json"}
        for body, code in requests:
            content = body if isinstance(body, bytes) else httpx.Request("POST", url, json=body).content
            response = await http.post(url + "/a2a", content=content, headers=headers)
            assert (response.status_code, response.json()["error"]["code"]) == (200, code), body
            assert response.json()["jsonrpc"] == "2.0"
            if isinstance(body, dict) and body.get("id") == 1:
                assert response.json()["id"] == 1


async def test_0_3(tmp_path: Path) -> None:
    """0.3.0, sections 5.5, 6 and 7: the objects and methods of 0.3, which is also meant by an empty version."""
    async with told(tmp_path) as (http, url):

        async def call(method: str, params: Any, headers: dict[str, str]) -> Any:
            body = {"jsonrpc": "2.0", "id": 5, "method": method, "params": params}
            return (await http.post(url + "/a2a", json=body, headers=headers)).json()

        message = {
            "kind": "message",
            "messageId": "m1",
            "role": "user",
            "parts": [{"kind": "text", "text": "complete"}],
        }
        # VER-SERVER-003.
        for headers in ({}, {"A2A-Version": ""}, {"A2A-Version": "0.3"}):
            task = (await call("message/send", {"message": message}, headers))["result"]
            assert (task["kind"], task["status"]["state"]) == ("task", "completed")
            assert task["artifacts"][0]["parts"] == [{"kind": "text", "text": "Done."}]
            assert {each["kind"] for each in task["history"]} == {"message"}
        assert (await call("tasks/get", {"id": task["id"]}, {}))["result"]["id"] == task["id"]
        assert (await call("tasks/get", {"id": "unknown"}, {}))["error"]["code"] == -32001
        assert (await call("tasks/cancel", {"id": task["id"]}, {}))["error"]["code"] == -32002
        assert (await call("tasks/cancel", {"id": "unknown"}, {}))["error"]["code"] == -32001
        unknown = {"message": {**message, "taskId": "unknown"}}
        assert (await call("message/send", unknown, {}))["error"]["code"] == -32001
        streamed = {"jsonrpc": "2.0", "id": 6, "method": "message/stream", "params": {"message": message}}
        frames = SSEReader(1_000_000).feed((await http.post(url + "/a2a", json=streamed)).content)
        results = [httpx.Response(200, content=frame.data).json()["result"] for frame in frames]
        assert results[0]["kind"] == "task"
        assert (results[-1]["kind"], results[-1]["final"]) == ("status-update", True)
        card = (await http.get(url + cuts.CARD)).json()
        assert card["protocolVersion"].startswith("0.3")
        assert (card["url"], card["preferredTransport"]) == (url + "/a2a", "JSONRPC")
