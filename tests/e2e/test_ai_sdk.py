"""The UI message stream of the AI SDK over real sockets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .front_ends import ask_ai_sdk, chat_body, frames_of, text_of, ui
from .harness import Server, fresh

AGENT = "front"
ALLOWED_LOG = r".*handler failed.*"


def types(frames: list[Any]) -> list[str]:
    return [frame if isinstance(frame, str) else frame["type"] for frame in frames]


async def test_every_part_of_a_conversation(server: Server) -> None:
    def tool(name: str, state: str, **fields: Any) -> dict[str, Any]:
        return {"type": f"tool-{name}", "toolCallId": f"c-{state}", "state": state, "input": {"a": 1}, **fields}

    user = [
        {"type": "text", "text": "see"},
        {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,AAAA"},
        {"type": "file", "mediaType": "application/pdf", "url": "https://example.org/a.pdf", "filename": "a.pdf"},
        {"type": "file", "mediaType": "audio/wav", "url": "data:audio/wav;base64,BBBB"},
        {"type": "file", "mediaType": "text/plain", "url": "data:text/plain;base64,CCCC"},
        {"type": "data-place", "data": {"x": 1}},
    ]
    agent = [
        {"type": "step-start"},
        {"type": "reasoning", "text": "hm"},
        {"type": "text", "text": "I look."},
        tool("look", "output-available", output={"sun": True}),
        tool("look", "output-error", errorText="bad"),
        tool("look", "output-denied", approval={"id": "x", "approved": False}),
        tool("look", "input-streaming"),
        {**tool("x", "input-available"), "type": "dynamic-tool", "toolName": "dyn"},
        {"type": "source-url", "sourceId": "s", "url": "https://example.org"},
        {"type": "step-start"},
        {"type": "text", "text": "Done."},
    ]
    messages = [
        {"id": "0", "role": "system", "parts": [{"type": "text", "text": "Be kind."}]},
        {"id": "1", "role": "user", "parts": user},
        {"id": "2", "role": "assistant", "parts": agent},
        ui("messages", "3"),
    ]
    got = json.loads(text_of(await ask_ai_sdk(server, {**chat_body("x"), "messages": messages, "model": "m"})))
    assert [(each["role"], each["type"], each["id"]) for each in got["messages"]] == [
        ("system", "message", "0"),
        ("user", "message", "1"),
        ("assistant", "reasoning", None),
        ("assistant", "message", "2"),
        *[("assistant", "function_call", None), ("tool", "function_call_output", None)] * 3,
        ("assistant", "function_call", None),
        ("assistant", "message", None),
    ]
    assert [part["type"] for part in got["messages"][1]["content"]] == [
        *("text", "image", "file", "audio", "file", "data")
    ]
    outputs = [each["content"][0]["data"]["output"] for each in got["messages"] if each["role"] == "tool"]
    assert outputs == [{"sun": True}, {"error": "bad"}, {"error": "The user has refused this call."}]


async def test_a_stop_is_an_abort(server: Server) -> None:
    body = chat_body("slow")
    async with server.connect() as client:
        await client.send("POST", "/ai-sdk/chat", body)
        await server.wait_mark(f"start {body['id']}")
        assert (await server.stop(session_id=body["id"], wait=True))["stopped"]
        frames = frames_of(await client.answer())
    assert types(frames)[-4:] == ["text-end", "finish-step", "abort", "[DONE]"]
    assert frames[-2]["reason"] == "stopped"


async def test_a_client_that_hangs_up_stops_its_run(server: Server) -> None:
    body = chat_body("slow")
    async with server.connect() as client:
        await client.send("POST", "/ai-sdk/chat", body)
        await server.wait_mark(f"start {body['id']}")
    await server.wait_mark(f"stopped {body['id']}")
    assert (await server.call("GET", f"/ai-sdk/chat/{body['id']}/stream")).status == 204


async def test_a_run_that_goes_on_is_resumed_from_its_beginning(server: Server) -> None:
    body = chat_body("ticks", on_disconnect="continue")
    async with server.connect() as client:
        await client.send("POST", "/ai-sdk/chat", body)
        await server.wait_mark(f"start {body['id']}")
    head = await server.call("HEAD", f"/ai-sdk/chat/{body['id']}/stream")
    answer = await server.call("GET", f"/ai-sdk/chat/{body['id']}/stream")
    assert head.header("x-vercel-ai-ui-message-stream") == answer.header("x-vercel-ai-ui-message-stream") == "v1"
    assert text_of(frames_of(answer)) == "".join(f"t{number} " for number in range(30))
    assert types(frames_of(answer))[0] == "start"
    assert (await server.call("GET", f"/ai-sdk/chat/{body['id']}/stream")).status == 204


async def test_a_replay_goes_past_a_question_that_was_answered(server: Server) -> None:
    body = chat_body("choose", on_disconnect="continue")
    frames = await ask_ai_sdk(server, body)
    run = frames[0]["messageMetadata"]["runId"]
    assert (await server.call("POST", f"/runs/{run}/input", {"role": "user", "content": "blue"})).status == 202
    # The second question ends the replay, and the first one does not.
    answer = await server.call("GET", f"/ai-sdk/chat/{body['id']}/stream")
    frames = frames_of(answer)
    while types(frames).count("tool-approval-request") < 2:
        frames = frames_of(await server.call("GET", f"/ai-sdk/chat/{body['id']}/stream"))
    assert types(frames)[-4:] == ["tool-approval-request", "finish-step", "finish", "[DONE]"]
    assert {"type": "tool-output-available", "output": "blue"}.items() <= next(
        frame.items() for frame in frames if frame["type"] == "tool-output-available"
    )
    await server.stop(run_id=run, wait=True)


def answered(body: dict[str, Any], frames: list[Any], **part: Any) -> dict[str, Any]:
    """The next request of the client, with an answer to the question in `frames`."""
    asked = next(frame for frame in reversed(frames) if frame["type"] == "tool-input-available")
    shown = {"type": "dynamic-tool", "toolName": "ask", "toolCallId": asked["toolCallId"], "input": asked["input"]}
    message = {"id": frames[0]["messageId"], "role": "assistant", "parts": [{"type": "step-start"}, shown | part]}
    return {**body, "messages": [*body["messages"], message]}


def approval(frames: list[Any], **fields: Any) -> dict[str, Any]:
    asked = next(frame for frame in reversed(frames) if frame["type"] == "tool-approval-request")
    return {"state": "approval-responded", "approval": {"id": asked["approvalId"], **fields}}


async def test_a_question_is_asked_again_and_then_answered(server: Server) -> None:
    body = chat_body("choose")
    frames = (await ask_ai_sdk(server, body))[:-1]
    frames = (await ask_ai_sdk(server, answered(body, frames, state="output-available", output="green")))[:-1]
    assert next(frame for frame in frames if frame["type"] == "tool-output-error")["errorText"].startswith(
        "Invalid"
    )
    frames = (await ask_ai_sdk(server, answered(body, frames, **approval(frames, approved=True, reason="red"))))[
        :-1
    ]
    assert text_of(frames) == "chosen: red"
    frames = await ask_ai_sdk(server, answered(body, frames, **approval(frames, approved=False)))
    assert text_of(frames) == " sure: False"
    assert types(frames)[-3:] == ["finish-step", "finish", "[DONE]"]


async def test_a_question_that_is_refused_stops_the_run(server: Server) -> None:
    body = chat_body("choose")
    frames = (await ask_ai_sdk(server, body))[:-1]
    frames = await ask_ai_sdk(server, answered(body, frames, **approval(frames, approved=False)))
    assert types(frames)[-2:] == ["abort", "[DONE]"]


async def test_the_history_has_each_message_once(server: Server) -> None:
    body = chat_body("hello")
    await ask_ai_sdk(server, body)
    said = [{"type": "text", "text": "you said: hello"}]
    messages = [*body["messages"], {"id": "m2", "role": "assistant", "parts": said}, ui("again", "m3")]
    await ask_ai_sdk(server, {**body, "messages": messages})
    history = (await server.get(f"/sessions/{body['id']}/history"))["messages"]
    assert [each["content"][0]["text"] for each in history] == [
        *("hello", "you said: hello", "again", "you said: again")
    ]


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"{", 400, "The body is not JSON"),
        ({"messages": []}, 422, "$.id"),
        ({"id": "c", "messages": []}, 422, "$.messages: must have at least one message"),
        ({"id": "c", "messages": [{"role": "user"}]}, 422, "$.messages[0].parts"),
        ({"id": "c", "messages": [ui("x")], "timeout_s": -1}, 422, "$.timeout_s"),
        ({"id": "c", "messages": [ui("x" * 70_000)]}, 413, "larger than"),
    ],
)
async def test_a_refusal_is_a_text(server: Server, body: Any, status: int, text: str) -> None:
    answer = await server.call("POST", "/ai-sdk/chat", body)
    assert (answer.status, answer.header("content-type")) == (status, "text/plain; charset=utf-8")
    assert text in answer.body.decode()


async def test_a_chat_that_is_not_known(server: Server) -> None:
    for id in ("never", fresh("chat"), "%2e%2e", "x" * 300):
        assert (await server.call("GET", f"/ai-sdk/chat/{id}/stream")).status == 204
