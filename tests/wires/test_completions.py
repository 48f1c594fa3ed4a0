"""OpenAI's Chat Completions API over sockets: chunks, tool calls, questions, refusals; and its list of models."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ..e2e.harness import Server, fresh
from .frames import chat, chunks_of
from .test_responses import error_of, wait_running

AGENT = "assistant"
ALLOWED_LOG = r"^.*(the handler failed|a secret of the handler|ended without output).*$"

KINDS = ("hello", "unicode", "empty", "think", "call f g", "stream-call", "own-tools", "refuse", "show", "approve")


def assembled(chunks: list[dict[str, Any]]) -> tuple[dict[str, Any], str]:
    """The message that a client puts together, and why it ends."""
    message: dict[str, Any] = {}
    reasons = []
    for chunk in chunks:
        assert chunk["object"] == "chat.completion.chunk"
        assert {chunk[name] for name in ("id", "created", "model")} == {
            chunks[0][name] for name in ("id", "created", "model")
        }
        for choice in chunk["choices"]:
            assert choice["index"] == 0
            for name, value in choice["delta"].items():
                if name == "tool_calls":
                    for call in value:
                        calls = message.setdefault("tool_calls", [])
                        if call["index"] == len(calls):
                            calls.append(
                                {"id": call["id"], "type": call["type"], "function": dict(call["function"])}
                            )
                        else:
                            calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
                else:
                    message[name] = message.get(name, "") + value
            reasons.append(choice["finish_reason"])
    assert reasons[:-1] == [None] * (len(reasons) - 1)
    return message, reasons[-1]


@pytest.mark.parametrize("do", KINDS)
async def test_a_stream_is_the_completion_in_pieces(server: Server, do: str) -> None:
    chunks = await chat(server, do, stream=True, model="m")
    whole = await chat(server, do, model="m")
    message, reason = assembled(chunks)
    choice = whole["choices"][0]
    expected = {name: value for name, value in choice["message"].items() if value not in (None, [])}
    message = {name: value for name, value in message.items() if value != "" or name in expected}
    if do == "approve":
        message["tool_calls"][0]["id"] = expected["tool_calls"][0]["id"] = ""
    assert (message, reason) == (expected, choice["finish_reason"])
    assert whole["object"] == "chat.completion"
    assert whole["id"].startswith("chatcmpl-")
    assert (whole["model"], chunks[0]["model"]) == ("m", "m")
    assert reason == ("tool_calls" if do in ("call f g", "stream-call", "approve") else "stop")


async def test_the_usage(server: Server) -> None:
    usage = {
        "prompt_tokens": 11,
        "completion_tokens": 7,
        "total_tokens": 18,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    assert (await chat(server, "hello"))["usage"] == usage
    chunks = await chat(server, "hello", stream=True, stream_options={"include_usage": True})
    assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], usage)
    assert {chunk["usage"] for chunk in chunks[:-1]} == {None}
    assert all("usage" not in chunk for chunk in await chat(server, "hello", stream=True))


async def test_what_the_agent_is_given(server: Server) -> None:
    picture = "data:image/png;base64,AAAA"
    messages = [
        {"role": "developer", "content": "Obey."},
        {"role": "user", "content": "look", "name": "ann"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "5"}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what"},
                {"type": "image_url", "image_url": {"url": picture}},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "AA=="}},
            ],
        },
    ]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    session = fresh()
    completion = await chat(
        server,
        messages,
        model="gpt-x",
        user="u9",
        metadata={"session_id": session, "a": "b"},
        tools=tools,
        temperature=0.5,
        top_p=0.9,
        max_completion_tokens=7,
        stop=["x"],
        seed=3,
        response_format={"type": "json_object"},
    )
    given = json.loads(completion["choices"][0]["message"]["content"])
    assert [(role, kind) for role, kind, _ in given["msgs"]] == [
        *(("system", "message"), ("user", "message"), ("assistant", "message")),
        *(("assistant", "function_call"), ("tool", "function_call_output"), ("user", "message")),
    ]
    assert given["msgs"][3][2][0]["data"] == {"call_id": "c1", "name": "f", "arguments": "{}"}
    assert given["msgs"][4][2][0]["data"] == {"call_id": "c1", "output": "5"}
    parts = given["msgs"][5][2]
    assert [part["type"] for part in parts] == ["text", "image", "audio", "file"]
    assert (parts[1]["image_url"], parts[3]["filename"]) == (picture, "a.pdf")
    assert (given["user"], given["session"]) == ("u9", session)
    assert given["request"] == {
        "model": "gpt-x",
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 7,
        "tools": tools,
        "stop": ["x"],
        "seed": 3,
    }
    assert given["extra"] == {
        "metadata": {"session_id": session, "a": "b"},
        "response_format": {"type": "json_object"},
    }


async def test_sessions(server: Server) -> None:
    session = fresh()
    said = []
    for header in ({"X-Session-Id": session}, {}):
        body = {"messages": [{"role": "user", "content": "what"}]}
        answer = await server.call("POST", "/v1/chat/completions", body, headers=header)
        said.append(json.loads(answer.json()["choices"][0]["message"]["content"])["session"])
        assert answer.header("x-session-id") == said[-1]
    assert said[0] == session != said[1]


async def test_a_tool_round_trip(server: Server) -> None:
    tools = [{"type": "function", "function": {"name": "weather"}}]
    asked = [{"role": "user", "content": "call weather"}]
    first = (await chat(server, asked, tools=tools))["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": first["tool_calls"][0]["id"], "content": "sunny"}
    second = await chat(server, [*asked, first, result], tools=tools)
    assert second["choices"][0]["message"]["content"] == "The tool said sunny."


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_stops_the_run(server: Server, stream: bool) -> None:
    session = fresh()
    async with server.connect() as client:
        body = {"messages": [{"role": "user", "content": "endless"}], "stream": stream, "session_id": session}
        await client.send("POST", "/compatible-mode/v1/chat/completions", body)
        await wait_running(server, session)
    await server.wait_mark(f"stopped {session}")


@pytest.mark.parametrize(("do", "status", "code"), [("fail", 500, "exception"), ("reject", 400, "rejected")])
async def test_a_run_that_fails(server: Server, do: str, status: int, code: str) -> None:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": do}]}
    answer = await server.call("POST", "/v1/chat/completions", body)
    error = error_of(answer)
    assert (answer.status, error["code"]) == (status, code)
    # It has run: a client must not send it again by itself.
    assert answer.header("x-should-retry") == "false"
    chunks = await chat(server, do, stream=True)
    assert chunks[-1]["error"] == error
    assert b"secret" not in answer.body


async def test_a_stopped_run(server: Server) -> None:
    session = fresh()
    async with server.connect() as streaming, server.connect() as waiting:
        for client, stream in ((streaming, True), (waiting, False)):
            mine = f"{session}-{stream}"
            body = {"messages": [{"role": "user", "content": "endless"}], "stream": stream}
            await client.send("POST", "/v1/chat/completions", body, headers={"X-Session-Id": mine})
            await wait_running(server, mine)
            await server.stop(session_id=mine)
        chunks = chunks_of((await streaming.answer()).body)
        whole = await waiting.answer()
    assert chunks[-1]["error"]["code"] == "stopped"
    assert (whole.status, error_of(whole)["code"]) == (409, "stopped")
    assert whole.header("x-should-retry") == "false"


# Questions.


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("output", "said"),
    [("yes", "Deleted."), ('{"approve": false}', "Kept."), ('{"answer": true}', "Deleted."), ("no", "Kept.")],
)
async def test_a_question_is_a_tool_call(server: Server, stream: bool, output: str, said: str) -> None:
    asked = [{"role": "user", "content": "approve"}]
    first = (await chat(server, asked))["choices"][0]
    assert first["finish_reason"] == "tool_calls"
    assert first["message"]["content"] == "Hm. \n\nDelete all?"
    call = first["message"]["tool_calls"][0]
    assert call["function"]["name"] == "approval"
    assert json.loads(call["function"]["arguments"])["question"] == "Delete all?"
    result = {"role": "tool", "tool_call_id": call["id"], "content": output}
    second = await chat(server, [*asked, first["message"], result], stream=stream)
    if stream:
        assert assembled(second)[0]["content"] == said
        assert second[0]["id"].endswith(".2")
    else:
        assert (second["choices"][0]["message"]["content"], second["choices"][0]["finish_reason"]) == (said, "stop")
    late = await chat(server, [*asked, first["message"], result], 400)
    assert late["error"]["code"] == "question_not_open"


async def test_a_message_of_the_session_answers(server: Server) -> None:
    session = fresh()
    first = await chat(server, "name", session_id=session)
    assert first["choices"][0]["message"]["content"] == "Your name?"
    second = await chat(server, "Ann", session_id=session)
    assert second["choices"][0]["message"]["content"].endswith("Really Ann?")
    third = await chat(server, "yes", session_id=session, stream=True)
    assert assembled(third)[0]["content"] == "Hello Ann, True."
    assert (await chat(server, "hello", session_id=session))["choices"][0]["finish_reason"] == "stop"


# Refusals.

ONE = [{"role": "user", "content": "hello"}]
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({}, "messages", "is required"),
    ({"messages": []}, "messages", "at least one"),
    ({"messages": "hello"}, "messages", "must be a list"),
    ({"messages": ONE, "n": 2}, "n", "must be 1"),
    ({"messages": ONE, "functions": [{}]}, "functions", "use `tools`"),
    ({"messages": ONE, "logprobs": True}, "logprobs", "leave it out"),
    ({"messages": ONE, "modalities": ["text", "audio"]}, "modalities", "must be"),
    ({"messages": ONE, "store": True}, "store", "Responses API"),
    ({"messages": ONE, "stream_options": {"include_usage": True}}, "stream_options", "stream set to true"),
    ({"messages": [{"role": "function", "name": "f", "content": "5"}]}, "messages[0].role", "use role tool"),
    ({"messages": [{"role": "tool", "content": "5"}]}, "messages[0].tool_call_id", "must be a string"),
    ({"messages": [{"role": "assistant"}]}, "messages[0].content", "is required"),
    ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0].type", "unknown"),
    ({"messages": ONE, "max_tokens": "many"}, "max_tokens", "must be an integer"),
    ({"messages": ONE, "session_id": ""}, "session_id", "must not be empty"),
]


@pytest.mark.parametrize(("body", "param", "sentence"), REFUSED)
async def test_a_wrong_request_is_refused_with_a_sentence(
    server: Server, body: dict[str, Any], param: str, sentence: str
) -> None:
    answer = await server.call("POST", "/v1/chat/completions", body)
    error = error_of(answer)
    assert (answer.status, error["param"]) == (400, param)
    assert sentence in error["message"]


async def test_what_is_not_asked_for_may_be_named(server: Server) -> None:
    """Clients send defaults: they ask for nothing."""
    harmless = {"n": 1, "logprobs": False, "store": False, "modalities": ["text"], "functions": None}
    assert (await chat(server, "hello", **harmless))["choices"]


async def test_the_list_of_models(server: Server) -> None:
    for base in ("/v1", "/compatible-mode/v1"):
        models = await server.get(f"{base}/models")
        assert models["object"] == "list"
        assert [model["id"] for model in models["data"]] == ["test-friday"]
        assert (await server.get(f"{base}/models/test-friday")) == models["data"][0]
        missing = await server.call("GET", f"{base}/models/openai/gpt-x")
        assert (missing.status, error_of(missing)["code"]) == (404, "not_found")


async def test_a_page_of_another_origin(start: Any) -> None:
    """OpenAI's client in a browser sends headers of its own, so the browser asks first."""
    server = start("assistant", env={"AGENTAPP_CORS_ORIGINS": "https://app.example.com"})
    origin = {"Origin": "https://app.example.com"}
    for path in ("/v1/chat/completions", "/compatible-mode/v1/responses"):
        wanted = "authorization,content-type,x-session-id,x-stainless-lang"
        asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": wanted}
        allowed = await server.call("OPTIONS", path, headers={**origin, **asks})
        assert allowed.status == 204
        assert allowed.header("access-control-allow-origin") == origin["Origin"]
        assert allowed.header("access-control-allow-headers") == wanted
        body = {"input": "hello", "messages": [{"role": "user", "content": "hello"}], "stream": True}
        for sent in (body, {}):
            answer = await server.call("POST", path, sent, headers=origin)
            assert answer.status == (200 if sent else 400)
            assert answer.header("access-control-allow-origin") == origin["Origin"]
    server.close()
