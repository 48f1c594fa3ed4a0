"""AG-UI over real sockets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .front_ends import ag_ui, ask_ag_ui, frames_of, text_of
from .harness import Server, fresh

AGENT = "front"
ALLOWED_LOG = r'.*secret of the server.*|.*"event":"the handler failed".*|.*handler failed.*'


def types(frames: list[Any]) -> list[str]:
    return [frame["type"] for frame in frames]


async def test_a_request_in_either_spelling(server: Server) -> None:
    body = ag_ui("messages")
    snake = {"thread_id": body["threadId"] + "2", "run_id": fresh("run"), "messages": body["messages"]}
    for each in (
        {**body, "forwardedProps": {"userId": "ann"}, "context": [{"description": "d", "value": "v"}]},
        {**snake, "forwarded_props": {"user_id": "ann"}, "context": [{"description": "d", "value": "v"}]},
    ):
        answer = await server.call("POST", "/ag-ui", each)
        frames = frames_of(answer)
        run = each.get("runId") or each["run_id"]
        assert frames[0] == {
            "type": "RUN_STARTED",
            "threadId": each.get("threadId") or each["thread_id"],
            "runId": run,
            "protocolVersion": "1.0",
        }
        assert frames[-1]["type"] == "RUN_FINISHED"
        extra = json.loads(text_of(frames))["extra"]
        assert extra["context"] == [{"description": "d", "value": "v"}]
        assert answer.header("x-run-id") == run
        known = await server.get(f"/runs/{run}?user_id=ann")
        assert (known["user_id"], known["session_id"]) == ("ann", frames[0]["threadId"])


async def test_every_message_of_a_conversation(server: Server) -> None:
    source = {"type": "data", "value": "AAAA", "mimeType": "image/png"}
    file = {"type": "url", "value": "https://example.org/a.pdf", "mime_type": "application/pdf"}
    function = {"name": "look", "arguments": "{}"}
    messages = [
        {"id": "1", "role": "developer", "content": "Be kind."},
        {
            "id": "2",
            "role": "user",
            "name": "Ann",
            "content": [
                {"type": "text", "text": "see"},
                {"type": "image", "source": source},
                {"type": "document", "source": file},
                {"type": "audio", "source": {**source, "mimeType": "audio/wav"}},
                {"type": "binary", "mimeType": "image/png", "data": "BBBB"},
            ],
        },
        {"id": "3", "role": "reasoning", "content": "hm"},
        {"id": "4", "role": "assistant", "content": "I look.", "toolCalls": [{"id": "c1", "function": function}]},
        {"id": "5", "role": "tool", "toolCallId": "c1", "content": "sun"},
        {"id": "6", "role": "tool", "tool_call_id": "c2", "content": "", "error": "no"},
        {"id": "7", "role": "activity", "activityType": "plan", "content": {"a": 1}},
        {"id": "8", "role": "user", "content": "messages"},
    ]
    body = {**ag_ui("x"), "messages": messages, "tools": [{"name": "t", "description": "d", "parameters": {}}]}
    got = json.loads(text_of(await ask_ag_ui(server, body)))
    assert [(each["role"], each["type"], each["id"]) for each in got["messages"]] == [
        ("system", "message", "1"),
        ("user", "message", "2"),
        ("assistant", "reasoning", "3"),
        ("assistant", "message", "4"),
        ("assistant", "function_call", None),
        ("tool", "function_call_output", "5"),
        ("tool", "function_call_output", "6"),
    ]
    assert [part["type"] for part in got["messages"][1]["content"]] == ["text", "image", "file", "audio", "image"]
    assert got["messages"][1]["content"][1]["image_url"] == "data:image/png;base64,AAAA"
    outputs = [each["content"][0]["data"] for each in got["messages"][5:]]
    assert outputs == [{"call_id": "c1", "output": "sun"}, {"call_id": "c2", "output": "error: no"}]
    assert got["tools"] == [{"type": "function", "function": {"name": "t", "description": "d", "parameters": {}}}]


async def test_a_stop_is_an_error_with_its_code(server: Server) -> None:
    body = ag_ui("lost call")
    async with server.connect() as client:
        await client.send("POST", "/ag-ui", body)
        await server.wait_mark(f"start {body['threadId']}")
        assert (await server.stop(session_id=body["threadId"], wait=True))["stopped"]
        frames = frames_of(await client.answer())
    assert frames[-1] == {
        "type": "RUN_ERROR",
        "message": "The run was stopped (reason: stopped).",
        "code": "CANCELED",
    }
    assert types(frames)[-3:-1] == ["TOOL_CALL_RESULT", "STEP_FINISHED"]


async def test_a_client_that_hangs_up_stops_its_run(server: Server) -> None:
    body = ag_ui("slow")
    async with server.connect() as client:
        await client.send("POST", "/ag-ui", body)
        await server.wait_mark(f"start {body['threadId']}")
    await server.wait_mark(f"stopped {body['threadId']}")


async def test_a_thread_has_one_run(server: Server) -> None:
    body = ag_ui("slow")
    async with server.connect() as client:
        await client.send("POST", "/ag-ui", body)
        await server.wait_mark(f"start {body['threadId']}")
        refused = await server.call("POST", "/ag-ui", ag_ui("hello", thread=body["threadId"]))
        assert refused.status == 409
        assert refused.header("retry-after")
        assert (refused.json()["type"], refused.json()["code"]) == ("RUN_ERROR", "session_busy")


async def test_any_run_id_is_taken(server: Server) -> None:
    body = {**ag_ui("hello"), "runId": "run 1 / ä"}
    answer = await server.call("POST", "/ag-ui", body)
    assert frames_of(answer)[0]["runId"] == "run 1 / ä"
    assert (answer.header("x-run-id") or "").startswith("agui-")


async def test_an_answer_from_elsewhere_while_nobody_watches(server: Server) -> None:
    body = ag_ui("approve")
    frames = await ask_ag_ui(server, body)
    [interrupt] = frames[-1]["outcome"]["interrupts"]
    said = {"role": "user", "content": "yes"}
    assert (await server.call("POST", f"/runs/{body['runId']}/input", said)).status == 202
    end = await server.get(f"/runs/{body['runId']}/wait")
    assert end["status"] == "completed"
    assert end["output"][-1]["content"][0]["text"] == "approved: True"
    # The client comes too late, and is shown what has happened.
    late = {"interruptId": interrupt["id"], "status": "resolved", "payload": False}
    frames = await ask_ag_ui(server, {**ag_ui("x", thread=body["threadId"]), "messages": [], "resume": [late]})
    assert text_of(frames) == "approved: True"
    # Who gives it up wants to go on.
    given_up = {"interruptId": interrupt["id"], "status": "cancelled"}
    frames = await ask_ag_ui(server, {**ag_ui("hello", thread=body["threadId"]), "resume": [given_up]})
    assert text_of(frames) == "you said: hello"


async def test_time_is_up_before_the_answer(server: Server) -> None:
    body = ag_ui("impatient")
    frames = await ask_ag_ui(server, body)
    [interrupt] = frames[-1]["outcome"]["interrupts"]
    assert interrupt["expiresAt"].endswith("+00:00")
    assert (await server.get(f"/runs/{body['runId']}/wait"))["status"] == "completed"
    resume = [{"interruptId": interrupt["id"], "status": "resolved", "payload": "x"}]
    frames = await ask_ag_ui(server, {**ag_ui("x", thread=body["threadId"]), "resume": resume})
    assert text_of(frames) == "too slow"


async def test_the_history_has_each_message_once(server: Server) -> None:
    body = ag_ui("hello")
    await ask_ag_ui(server, body)
    said = [*body["messages"], {"id": "m2", "role": "assistant", "content": "you said: hello"}]
    said.append({"id": "m3", "role": "user", "content": "again"})
    await ask_ag_ui(server, {**ag_ui("x", thread=body["threadId"]), "messages": said})
    history = (await server.get(f"/sessions/{body['threadId']}/history"))["messages"]
    assert [each["content"][0]["text"] for each in history] == [
        "hello",
        "you said: hello",
        "again",
        "you said: again",
    ]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "malformed_body"),
        (b"", 422, "validation_error"),
        ([], 422, "validation_error"),
        ({"threadId": "t"}, 422, "validation_error"),
        ({**ag_ui("x"), "state": "open"}, 422, "validation_error"),
        ({**ag_ui("x"), "resume": [{"interruptId": "no", "status": "resolved"}]}, 422, "validation_error"),
        ({**ag_ui("x"), "more": "x" * 70_000}, 413, "payload_too_large"),
        (
            {**ag_ui("x"), "resume": [{"interruptId": "run-12345678.1.input.call_1", "status": "resolved"}]},
            404,
            "run_not_found",
        ),
    ],
)
async def test_a_refusal_has_its_form(server: Server, body: Any, status: int, code: str) -> None:
    answer = await server.call("POST", "/ag-ui", body)
    assert answer.status == status, answer
    assert answer.header("content-type") == "application/json"
    refusal = answer.json()
    assert (refusal["type"], refusal["code"], set(refusal)) == ("RUN_ERROR", code, {"type", "code", "message"})


async def test_a_body_that_never_comes(server: Server) -> None:
    async with server.connect() as client:
        head = "POST /ag-ui HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        await client.stream.send_all(f"{head}Content-Length: 9\r\n\r\n{{".encode())
        assert b"408" in await client.wait_eof()


def test_the_configuration_of_the_replaced_product() -> None:
    from trio_agentapp import AgentApp
    from trio_agentapp.errors import ConfigurationError
    from trio_agentapp.wires import AGUIAdapter, AGUIAdaptorConfig

    assert AGUIAdapter(config=AGUIAdaptorConfig(route_path="/own")).route_path == "/own"
    assert AGUIAdapter(config={"route_path": "/own"}).route_path == "/own"
    AgentApp(agui_config=AGUIAdaptorConfig())
    for wrong in ({"path": "/x"}, {"route_path": "x"}, 3):
        with pytest.raises(ConfigurationError, match=r"(agui_config|route_path) "):
            AgentApp(agui_config=wrong)
