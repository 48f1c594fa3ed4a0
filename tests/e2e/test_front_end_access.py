"""Front ends of several users, on several nodes, and with requests that no front end sends."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest

from trio_agentapp.testing.redis_server import RedisServer

from ..fuzz.mutations import mutated
from .conftest import Start
from .front_ends import ag_ui, ask_ag_ui, chat_body, frames_of, text_of, ui
from .harness import Server
from .test_bad_input import OURS
from .test_client_nodes import ANY_WARNING, TIMINGS

MUTATIONS = 400


def as_(user: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {user}"}


async def test_a_question_of_another_user_is_not_found(start: Start) -> None:
    server = start("front", guarded=True)
    body = ag_ui("approve")
    frames = await ask_ag_ui(server, body, headers=as_("ann"))
    resume = [{"interruptId": frames[-1]["outcome"]["interrupts"][0]["id"], "status": "resolved", "payload": True}]
    again = {**ag_ui("x", thread=body["threadId"]), "resume": resume}
    refused = await server.call("POST", "/ag-ui", again, headers=as_("bob"))
    assert (refused.status, refused.json()["code"]) == (404, "run_not_found")
    path = f"/ai-sdk/chat/{body['threadId']}/stream"
    assert (await server.call("GET", path, headers=as_("bob"))).status == 204
    assert text_of(await ask_ag_ui(server, again, headers=as_("ann"))) == "approved: True"
    for user in ("ann", "bob"):  # Clients number their threads and runs without knowing of each other.
        numbered = {**ag_ui("hello", thread="t1"), "runId": "1"}
        assert text_of(await ask_ag_ui(server, numbered, headers=as_(user))) == "you said: hello"
    named = {**ag_ui("hello"), "forwardedProps": {"user_id": "ann"}}
    refused = await server.call("POST", "/ag-ui", named, headers=as_("bob"))
    assert (refused.status, refused.json()["code"]) == (403, "forbidden")
    server.close()


@pytest.mark.parametrize("path", ["/ag-ui", "/ai-sdk/chat"])
async def test_a_page_of_another_origin(start: Start, path: str) -> None:
    origin = "https://app.example.com"
    server = start("front", cors_origins=[origin])
    asks = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    allowed = await server.call("OPTIONS", path, headers=asks)
    assert (allowed.status, allowed.header("access-control-allow-origin")) == (204, origin)
    body = ag_ui("hello") if path == "/ag-ui" else chat_body("hello")
    answer = await server.call("POST", path, body, headers={"Origin": origin})
    assert answer.header("access-control-allow-origin") == origin
    assert text_of(frames_of(answer)) == "you said: hello"
    refused = await server.call("POST", path, {}, headers={"Origin": origin})
    assert (refused.status, refused.header("access-control-allow-origin")) == (422, origin)
    server.close()


@pytest.fixture
async def redis() -> AsyncIterator[str]:
    async with RedisServer("valkey") as server:
        yield server.url


async def test_an_answer_and_a_resumed_stream_on_another_node(start: Start, redis: str) -> None:
    options: dict[str, Any] = {"interrupt_redis_url": redis, "event_store": "redis", "timings": TIMINGS}
    first, second = (start("front", ready=False, **options) for _ in range(2))
    for server in (first, second):
        server.wait_ready()
    await an_answer_elsewhere(first, second)
    await a_stream_elsewhere(first, second)
    for server in (first, second):
        server.close(allowed=ANY_WARNING)


async def an_answer_elsewhere(first: Server, second: Server) -> None:
    body = ag_ui("choose")
    frames = await ask_ag_ui(first, body)
    for server, payload in ((second, "blue"), (first, True)):
        [interrupt] = frames[-1]["outcome"]["interrupts"]
        resume = [{"interruptId": interrupt["id"], "status": "resolved", "payload": payload}]
        frames = await ask_ag_ui(server, {**ag_ui("x", thread=body["threadId"]), "resume": resume})
    assert text_of(frames) == " sure: True"
    assert frames[-1]["outcome"] == {"type": "success"}


async def a_stream_elsewhere(first: Server, second: Server) -> None:
    body = chat_body("state", on_disconnect="continue", state={"theme": "dark"})
    async with first.connect() as client:
        await client.send("POST", "/ai-sdk/chat", body)
        await first.wait_mark(f"start {body['id']}")
        frames = frames_of(await second.call("GET", f"/ai-sdk/chat/{body['id']}/stream"))
    assert text_of(frames) == "atheme dark"
    states = [frame["data"] for frame in frames if isinstance(frame, dict) and frame["type"] == "data-state"]
    assert states[-1] == {"theme": "dark", "step": 3, "log": [1, 2, 3]}


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
AG_UI = {
    "threadId": "t",
    "runId": "run-12345678",
    "parentRunId": "p",
    "state": {"a": [1]},
    "messages": [
        {"id": "1", "role": "assistant", "content": "x", "toolCalls": [CALL]},
        {"id": "2", "role": "tool", "toolCallId": "c", "content": [{"type": "text", "text": "y"}]},
        {
            "id": "3",
            "role": "user",
            "content": [{"type": "image", "source": {"type": "data", "value": "AA", "mimeType": "image/png"}}],
        },
        {"id": "4", "role": "user", "content": "hello"},
    ],
    "tools": [{"name": "t", "description": "d", "parameters": {"type": "object"}}],
    "context": [{"description": "d", "value": "v"}],
    "forwardedProps": {"user_id": "u", "timeout_s": 5},
    "resume": [],
}
ANSWERED = {
    "type": "dynamic-tool",
    "toolName": "ask",
    "toolCallId": "run-12345678.3.approval.call_1",
    "state": "approval-responded",
    "input": {},
    "approval": {"id": "run-12345678.3.approval.call_1", "approved": True, "reason": "r"},
}
AI_SDK = {
    "id": "c",
    "trigger": "submit-message",
    "messageId": "m",
    "messages": [
        {
            "id": "1",
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "text": "r"},
                {"type": "tool-f", "toolCallId": "c", "state": "output-available", "input": {}, "output": 1},
                ANSWERED,
            ],
        },
        {
            "id": "2",
            "role": "user",
            "parts": [
                {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,AA", "filename": "a"},
                {"type": "data-x", "data": {"a": 1}},
                {"type": "text", "text": "hello"},
            ],
        },
    ],
    "user_id": "u",
    "state": {"a": 1},
    "timeout_s": 5,
}
RESUME = {**AG_UI, "resume": [{"interruptId": "run-12345678.3.input.call_1", "status": "resolved", "payload": 1}]}
RESUMED = {**AI_SDK, "messages": [ui("hello"), AI_SDK["messages"][0]]}  # type: ignore[index]


@pytest.mark.parametrize(
    ("path", "body"),
    [("/ag-ui", AG_UI), ("/ag-ui", RESUME), ("/ai-sdk/chat", AI_SDK), ("/ai-sdk/chat", RESUMED)],
    ids=["ag-ui", "ag-ui resumed", "ai-sdk", "ai-sdk resumed"],
)
async def test_mutated_requests(start: Start, path: str, body: Any) -> None:
    """Each is served or refused in the protocol's own form; nothing of the server's inside is shown or logged."""
    server = start("front")
    random = Random(path + json.dumps(body))
    statuses = set()
    for _ in range(MUTATIONS // 4):
        raw, media = mutated(body, random)
        answer = await server.call("POST", path, raw, headers={"Content-Type": media})
        statuses.add(answer.status)
        assert answer.status in (200, 400, 404, 409, 413, 415, 422), (raw, answer)
        assert not OURS.search(answer.body.replace(raw, b"")) or answer.status == 200, (raw, answer)
        if answer.status == 200:
            assert answer.header("content-type") == "text/event-stream; charset=utf-8"
            last = frames_of(answer)[-1]
            assert last == "[DONE]" or last["type"] in ("RUN_FINISHED", "RUN_ERROR"), (raw, answer)
        elif path == "/ag-ui":
            assert answer.json()["type"] == "RUN_ERROR"
        else:
            assert answer.header("content-type") == "text/plain; charset=utf-8"
    assert 422 in statuses
    assert (await server.call("POST", "/ag-ui", ag_ui("hello"))).status == 200
    server.close(allowed=r".*handler failed.*|.*IndexError.*")
