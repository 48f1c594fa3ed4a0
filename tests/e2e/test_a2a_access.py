"""Who may do what by A2A, and what the settings of `AgentCardWithRuntimeConfig` do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .a2a_client import NEW, OLD, error, headers_of, result, rpc, saying, says, streaming
from .harness import Server, fresh

Start = Callable[..., Server]
SECURED = {"SECURED": "1"}
ANN, BOB = "Bearer ann", "Bearer bob"


async def test_credentials_are_needed(start: Start) -> None:
    server = start("a2a_agent", env=SECURED)
    for authorization in ({}, {"Authorization": "Bearer nobody"}):
        answer = await rpc(server, "SendMessage", {"message": saying("say x")}, **authorization)
        assert answer.status == 401
        assert answer.header("www-authenticate") == "Bearer"
        assert answer.json()["error"]["data"][0]["reason"] == "UNAUTHENTICATED"
        rest = await server.call("GET", "/tasks", headers=headers_of(NEW, **authorization))
        assert (rest.status, rest.header("www-authenticate")) == (401, "Bearer")
    card = (await server.call("GET", "/.well-known/agent-card.json")).json()
    assert card["securitySchemes"] == {"token": {"type": "http", "scheme": "Bearer"}}
    assert card["security"] == [{"token": []}]
    assert card["securityRequirements"] == [{"schemes": {"token": {"list": []}}}]
    server.close()


async def test_a_foreign_task_looks_like_an_unknown_one(start: Start) -> None:
    server = start("a2a_agent", env=SECURED)
    waiting = {"message": saying("wait"), "configuration": {"returnImmediately": True}}
    task = (await result(server, "SendMessage", waiting, Authorization=ANN))["task"]
    calls: list[tuple[str, Any]] = [
        ("GetTask", {"id": "ID"}),
        ("CancelTask", {"id": "ID"}),
        ("SubscribeToTask", {"id": "ID"}),
        ("SendMessage", {"message": saying("x", taskId="ID")}),
        ("CreateTaskPushNotificationConfig", {"taskId": "ID", "url": "https://example.com/"}),
        ("GetTaskPushNotificationConfig", {"taskId": "ID", "id": "c"}),
        ("ListTaskPushNotificationConfigs", {"taskId": "ID"}),
        ("DeleteTaskPushNotificationConfig", {"taskId": "ID", "id": "c"}),
    ]
    unknown = "0" * 32
    for method, params in calls:
        foreign = await rpc(server, method, _with(params, task["id"]), Authorization=BOB)
        missing = await rpc(server, method, _with(params, unknown), Authorization=BOB)
        assert foreign.status == missing.status == 200
        assert foreign.json()["error"]["code"] == -32001
        assert foreign.body.replace(task["id"].encode(), unknown.encode()) == missing.body, method
    assert (await result(server, "ListTasks", {}, Authorization=BOB))["totalSize"] == 0
    assert (await result(server, "ListTasks", {}, Authorization=ANN))["totalSize"] == 1
    assert "cancelled wait" not in server.marks
    cancelled = await result(server, "CancelTask", {"id": task["id"]}, Authorization=ANN)
    assert cancelled["status"]["state"] == "TASK_STATE_CANCELED"
    server.close()


def _with(value: Any, task_id: str) -> Any:
    if isinstance(value, dict):
        return {name: _with(item, task_id) for name, item in value.items()}
    return task_id if value == "ID" else value


async def test_the_user_is_the_authenticated_one(start: Start) -> None:
    server = start("a2a_agent", env=SECURED)
    context = fresh("context")
    found = await result(server, "SendMessage", {"message": saying("whoami", contextId=context)}, Authorization=ANN)
    assert found["task"]["artifacts"][0]["parts"][0]["text"] == f"ann/{context}"
    named = {"message": saying("whoami", metadata={"user_id": "bob"})}
    answer = await rpc(server, "SendMessage", named, Authorization=ANN)
    assert (answer.status, answer.json()["error"]["data"][0]["reason"]) == (403, "PERMISSION_DENIED")
    server.close()


async def test_the_extended_card(start: Start) -> None:
    server = start("a2a_agent", env=SECURED)
    public = (await server.call("GET", "/.well-known/agent-card.json")).json()
    assert public["capabilities"]["extendedAgentCard"] is True
    assert public["supportsAuthenticatedExtendedCard"] is True
    card = await result(server, "GetExtendedAgentCard", Authorization=ANN)
    assert (public["description"], card["description"]) == ("Does what it is told.", "For friends.")
    assert (await result(server, "agent/getAuthenticatedExtendedCard", version=OLD, Authorization=ANN)) == card
    rest = await server.call("GET", "/extendedAgentCard", headers=headers_of(NEW, Authorization=ANN))
    assert rest.json() == card
    assert (await rpc(server, "GetExtendedAgentCard")).status == 401
    server.close()


async def test_there_is_no_extended_card(start: Start) -> None:
    server = start("a2a_agent")
    assert (await error(server, "GetExtendedAgentCard"))["code"] == -32004
    assert (await error(server, "agent/getAuthenticatedExtendedCard", version=OLD))["code"] == -32007
    server.close()


async def test_a_user_without_authentication_is_named_in_the_metadata(start: Start) -> None:
    server = start("a2a_agent")
    context = fresh("context")
    params = {"message": saying("whoami", contextId=context), "metadata": {"user_id": "ann"}}
    task = (await result(server, "SendMessage", params))["task"]
    assert task["artifacts"][0]["parts"][0]["text"] == f"ann/{context}"
    listed = await result(server, "ListTasks", {"contextId": context})
    assert [each["id"] for each in listed["tasks"]] == [task["id"]]
    server.close()


@pytest.mark.parametrize(("versions", "served", "refused"), [("1.0", NEW, OLD), ("0.3", OLD, NEW)])
async def test_a_pure_app(start: Start, versions: str, served: str, refused: str) -> None:
    server = start("a2a_agent", env={"VERSIONS": versions})
    methods = {NEW: "GetTask", OLD: "tasks/get"}
    assert (await error(server, methods[served], {"id": "x"}, served))["code"] == -32001
    assert (await error(server, methods[refused], {"id": "x"}, refused))["code"] == -32009
    card = (await server.call("GET", "/.well-known/agent-card.json")).json()
    assert ("supportedInterfaces" in card) is (served == NEW)
    assert ("preferredTransport" in card) is (served == OLD)
    rest = await server.call("GET", "/tasks", headers=headers_of(NEW))
    assert rest.status == (200 if served == NEW else 404)
    server.close()


async def test_modes_of_the_card_decide(start: Start) -> None:
    server = start("a2a_agent", env={"MODES": "text,image/*"})
    for kind, taken in (("text/plain", True), ("image/png", True), ("application/pdf", False)):
        message = {**saying(""), "parts": [{"text": "say x"}, {"raw": "aGk=", "mediaType": kind}]}
        answer = (await rpc(server, "SendMessage", {"message": message})).json()
        assert ("result" in answer) is taken, answer
        if not taken:
            assert answer["error"]["code"] == -32005
    server.close()


async def test_a_required_extension(start: Start) -> None:
    server = start("a2a_agent", env={"REQUIRED": "1"})
    params = {"message": saying("say x")}
    assert (await error(server, "SendMessage", params))["code"] == -32008
    assert (await error(server, "message/send", {"message": saying("x", OLD)}, OLD))["code"] == -32600
    uri = "https://example.com/ext/must"
    assert (await rpc(server, "SendMessage", params, A2A_Extensions=uri)).header("a2a-extensions") == uri
    old = {"message": saying("say x", OLD)}
    assert (await rpc(server, "message/send", old, OLD, X_A2A_Extensions=uri)).json()["result"]
    server.close()


async def test_task_timeout(start: Start) -> None:
    server = start("a2a_agent", env={"TASK_TIMEOUT": "0.3"})
    task = (await result(server, "SendMessage", {"message": saying("wait")}))["task"]
    assert task["status"]["state"] == "TASK_STATE_FAILED"
    assert task["status"]["message"]["metadata"]["code"] == "deadline_exceeded"
    assert "cancelled wait" in server.marks
    server.close()


async def test_task_event_timeout(start: Start) -> None:
    server = start("a2a_agent", env={"EVENT_TIMEOUT": "0.5"})
    asking = (await result(server, "SendMessage", {"message": saying("ask")}))["task"]
    task = (await result(server, "SendMessage", {"message": saying("silent")}))["task"]
    assert task["status"]["state"] == "TASK_STATE_FAILED"
    steps = (await result(server, "SendMessage", {"message": saying("steps 100")}))["task"]
    assert steps["status"]["state"] == "TASK_STATE_COMPLETED"
    # It waits for an answer, so it is not silent.
    again = await result(server, "GetTask", {"id": asking["id"]})
    assert again["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    await result(server, "CancelTask", {"id": asking["id"]})
    server.close()


async def test_a_drain(start: Start) -> None:
    """Live tasks may finish, their streams go on, and new ones are refused."""
    server = start("a2a_agent", env={"AGENTAPP_DRAIN_TIMEOUT": "20"})
    gate = fresh("gate")
    async with server.connect() as client:
        # A connection from before the drain: the listener is closed then.
        async with streaming(server, "SendStreamingMessage", {"message": saying(f"gate {gate}")}) as frames:
            await frames.until(says("before "))
            server.send_signal()
            await server.wait_until(lambda: "Draining" in server.log, "log line")
            body = {"jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": {"message": saying("say x")}}
            await client.send("POST", "/a2a", body, headers=headers_of(NEW))
            answer = await client.answer()
            assert answer.status == 503
            assert answer.json()["error"]["data"][0]["reason"] == "DRAINING"
            assert answer.header("retry-after")
            (server.folder / gate).touch()
            assert (await frames.all())[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
    assert await server.wait_exit() == 0


async def test_a_drain_that_takes_too_long_cancels(start: Start) -> None:
    server = start("a2a_agent", env={"AGENTAPP_DRAIN_TIMEOUT": "0.3"})
    async with streaming(server, "SendStreamingMessage", {"message": saying("wait")}) as frames:
        await frames.until(says("waiting "))
        server.send_signal()
        assert (await frames.all())[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_CANCELED"
    assert await server.wait_exit() == 0
    assert "cancelled wait" in server.marks


async def test_a_task_that_waits_for_its_session(start: Start) -> None:
    server = start("a2a_agent", env={"AGENTAPP_MULTITASK_STRATEGY": "enqueue"})
    context = fresh("context")
    waiting = {"message": saying("wait", contextId=context), "configuration": {"returnImmediately": True}}
    one = (await result(server, "SendMessage", waiting))["task"]
    async with streaming(server, "SendStreamingMessage", {"message": saying("say x", contextId=context)}) as frames:
        two = (await frames.until(lambda item: "task" in item))["task"]
        assert two["status"]["state"] == "TASK_STATE_SUBMITTED"
        shown = await result(server, "GetTask", {"id": two["id"]})
        assert shown["status"]["state"] == "TASK_STATE_SUBMITTED"
        listed = await result(server, "ListTasks", {"contextId": context, "status": "TASK_STATE_WORKING"})
        assert [task["id"] for task in listed["tasks"]] == [one["id"]]
        await result(server, "CancelTask", {"id": one["id"]})
        items = await frames.all()
    states = [item["statusUpdate"]["status"]["state"] for item in items if "statusUpdate" in item]
    assert states == ["TASK_STATE_WORKING", "TASK_STATE_COMPLETED"]
    server.close()


async def test_a_queued_task_is_canceled(start: Start) -> None:
    server = start("a2a_agent", env={"AGENTAPP_MULTITASK_STRATEGY": "enqueue"})
    context = fresh("context")
    waiting = {"message": saying("wait", contextId=context), "configuration": {"returnImmediately": True}}
    one = (await result(server, "SendMessage", waiting))["task"]
    queued = {"message": saying("say x", contextId=context), "configuration": {"returnImmediately": True}}
    two = (await result(server, "SendMessage", queued))["task"]
    cancelled = await result(server, "CancelTask", {"id": two["id"]})
    assert cancelled["status"]["state"] == "TASK_STATE_CANCELED"
    assert "begin say" not in server.marks
    await result(server, "CancelTask", {"id": one["id"]})
    server.close()
