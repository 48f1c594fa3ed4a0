"""OpenAI's Responses API over sockets: events and their numbers, turns at questions, stops, refusals."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
import trio

from ..e2e.harness import Answer, Server, fresh
from .frames import Stream, events_of, respond, text_of

AGENT = "assistant"
ALLOWED_LOG = r"^.*(the handler failed|a secret of the handler|ended without output).*$"

TEXT = ["output_item.added", "content_part.added", "output_text.delta", "output_text.done", "content_part.done"]
CHAINS: dict[str, list[str]] = {
    "hello": [*TEXT[:2], *[TEXT[2]] * 3, *TEXT[3:], "output_item.done"],
    "unicode": [*TEXT, "output_item.done"],
    "empty": [],
    "think": [
        *("output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.delta"),
        *("reasoning_text.done", "content_part.done", "output_item.done"),
        *TEXT,
        "output_item.done",
    ],
    "stream-call": [
        "output_item.added",
        *["function_call_arguments.delta"] * 3,
        *("function_call_arguments.done", "output_item.done"),
    ],
    "own-tools": [
        *(*TEXT, "output_item.done"),
        *("output_item.added", "mcp_call.in_progress", "mcp_call_arguments.delta", "mcp_call_arguments.done"),
        *("mcp_call.completed", "output_item.done"),
        *(*TEXT, "output_item.done"),
    ],
    "refuse": [
        *("output_item.added", "content_part.added", "refusal.delta", "refusal.delta", "refusal.done"),
        *("content_part.done", "output_item.done"),
    ],
    "approve": [*TEXT, "output_item.done", "output_item.added", "output_item.done"],
}


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def check_numbers(events: list[dict[str, Any]], first: int = 0) -> None:
    assert [event["sequence_number"] for event in events] == list(range(first, first + len(events)))


def check_assembled(events: list[dict[str, Any]]) -> None:
    """What a client puts together from the deltas is what the last event says."""
    output: dict[int, Any] = {}
    for event in deepcopy(events):
        place, kind = event.get("output_index"), event["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert place == len(output), "places are given in turn"
            output[place] = event["item"]
        elif kind == "content_part.added":
            assert event["content_index"] == len(output[place]["content"])
            output[place]["content"].append(event["part"])
        elif kind in ("output_text.delta", "reasoning_text.delta"):
            output[place]["content"][event["content_index"]]["text"] += event["delta"]
        elif kind == "refusal.delta":
            output[place]["content"][event["content_index"]]["refusal"] += event["delta"]
        elif kind in ("function_call_arguments.delta", "mcp_call_arguments.delta"):
            output[place]["arguments"] += event["delta"]
        elif kind == "content_part.done":
            assert output[place]["content"][event["content_index"]] == event["part"]
        elif kind == "output_item.done":
            made, item = output[place], event["item"]
            assert {**made, "status": None, "output": None} == {
                **item,
                "status": None,
                "output": None,
            } or item["type"].startswith("mcp_")
            output[place] = item
    assert [output[place] for place in sorted(output)] == events[-1]["response"]["output"]


@pytest.mark.parametrize("do", CHAINS)
async def test_a_stream_has_the_events_that_clients_assemble(server: Server, do: str) -> None:
    events = await respond(server, do, stream=True)
    assert kinds(events) == ["created", "in_progress", *CHAINS[do], "completed"]
    check_numbers(events)
    check_assembled(events)
    created, end = events[0]["response"], events[-1]["response"]
    assert (created["status"], created["output"], end["status"]) == ("in_progress", [], "completed")
    # Read again, and from any number on, it is the same.
    again = await server.call("GET", f"/v1/responses/{end['id']}?stream=true")
    assert events_of(again.body) == events
    rest = await server.call("GET", f"/compatible-mode/v1/responses/{end['id']}?stream=true&starting_after=2")
    assert events_of(rest.body) == events[3:]
    whole = await server.get(f"/v1/responses/{end['id']}")
    assert whole == end
    if do != "approve":
        answer = await respond(server, do)
        assert shape(answer["output"]) == shape(end["output"])


def shape(output: Any) -> str:
    return json.dumps([{key: value for key, value in item.items() if key != "id"} for item in output])


async def test_a_response_repeats_what_was_asked(server: Server) -> None:
    asked = {
        "model": "some-model",
        "instructions": "Be brief.",
        "metadata": {"a": "b"},
        "tools": [{"type": "function", "name": "f", "parameters": {}}],
        "temperature": 0.5,
        "max_output_tokens": 9,
        "user": "u1",
    }
    response = await respond(server, "think", **asked)
    assert {name: response[name] for name in asked} == asked
    assert response["object"] == "response"
    assert response["usage"]["output_tokens_details"] == {"reasoning_tokens": 2}
    assert (await server.get(f"/v1/responses/{response['id']}?user_id=u1")) == response
    plain = await respond(server, "hello")
    assert (plain["model"], plain["tools"], plain["metadata"]) == ("test-friday", [], {})


async def test_what_the_agent_is_given(server: Server) -> None:
    picture = "data:image/png;base64,AAAA"
    items = [
        {"role": "developer", "content": "Obey."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "look"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "5"},
        {"type": "mcp_call", "id": "m1", "name": "g", "arguments": "{}", "server_label": "agent", "output": "6"},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "what"},
                {"type": "input_image", "image_url": picture, "detail": "auto"},
                {"type": "input_image", "file_id": "file-1"},
                {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            ],
        },
    ]
    session = fresh()
    response = await respond(
        server,
        items,
        model="gpt-x",
        conversation={"id": session},
        user="u9",
        instructions="Be kind.",
        temperature=0.5,
        max_output_tokens=7,
        tools=[{"type": "function", "name": "f", "parameters": {"type": "object"}}, {"type": "web_search"}],
        reasoning={"effort": "low"},
        text={"format": {"type": "json_object"}},
    )
    given = json.loads(text_of(response))
    roles = [(role, kind) for role, kind, _ in given["msgs"]]
    assert roles == [
        *(("system", "message"), ("system", "message"), ("user", "message"), ("assistant", "reasoning")),
        *(("assistant", "function_call"), ("tool", "function_call_output")),
        *(("assistant", "mcp_call"), ("tool", "mcp_call_output"), ("user", "message")),
    ]
    assert given["msgs"][0][2] == [{"type": "text", "text": "Be kind."}]
    assert given["msgs"][5][2][0]["data"] == {"call_id": "c1", "output": "5"}
    parts = given["msgs"][-1][2]
    assert [part["type"] for part in parts] == ["text", "image", "file", "file", "audio"]
    assert (parts[1]["image_url"], parts[2]["file_id"], parts[3]["filename"]) == (picture, "file-1", "a.pdf")
    assert (given["user"], given["session"]) == ("u9", session)
    assert given["request"]["max_tokens"] == 7
    function = {"name": "f", "parameters": {"type": "object"}}
    assert given["request"]["tools"] == [{"type": "function", "function": function}, {"type": "web_search"}]
    assert given["extra"]["reasoning"] == {"effort": "low"}
    assert given["extra"]["instructions"] == "Be kind."
    assert response["conversation"] == {"id": session}


async def test_the_app_s_own_model_is_no_model_for_the_agent(server: Server) -> None:
    given = json.loads(text_of(await respond(server, "what", model="test-friday")))
    assert given["request"]["model"] is None


async def test_a_conversation_goes_on(server: Server) -> None:
    first = await respond(server, "hello")
    second = await respond(server, "history", previous_response_id=first["id"])
    assert text_of(second) == "user: hello | assistant: word0 word1 word2 "
    assert second["conversation"] == first["conversation"]
    third = await respond(server, "history", conversation=first["conversation"]["id"])
    assert "user: history" in text_of(third)


async def test_a_background_response(server: Server) -> None:
    begun = await respond(server, "slow", background=True)
    assert (begun["status"], begun["background"], begun["output"]) == ("in_progress", True, [])
    path = f"/v1/responses/{begun['id']}"
    async with server.connect() as client:
        await client.send("GET", f"{path}?stream=true")
        stream = Stream(client)
        seen = list(await stream.read(8))
    # The reader has left; the run goes on, and a new reader gets what comes after.
    answer = await server.call("GET", f"{path}?stream=true&starting_after=7")
    rest = events_of(answer.body)
    check_numbers(seen[:8] + rest)
    assert kinds(rest)[-1] == "completed"
    assert (await server.get(path))["status"] == "completed"
    assert text_of(await server.get(path)) == "".join(f"word{number} " for number in range(40))


async def test_a_background_response_is_cancelled(server: Server) -> None:
    begun = await respond(server, "endless", background=True)
    path = f"/v1/responses/{begun['id']}"
    async with server.connect() as client:
        await client.send("GET", f"{path}?stream=true")
        await Stream(client).read(6)
    cancelled = (await server.call("POST", f"{path}/cancel", b"")).json()
    assert cancelled["status"] == "cancelled"
    assert text_of(cancelled).startswith("word0 ")
    assert cancelled["output"][0]["status"] == "incomplete"
    events = events_of((await server.call("GET", f"{path}?stream=true")).body)
    assert kinds(events)[-1] == "incomplete"
    assert events[-1]["response"] == cancelled
    check_assembled(events)
    again = await server.call("POST", f"{path}/cancel", b"")
    assert (again.status, again.json()) == (200, cancelled)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_stops_the_run(server: Server, stream: bool) -> None:
    session = fresh()
    async with server.connect() as client:
        body = {"input": "endless", "stream": stream, "conversation": session}
        await client.send("POST", "/v1/responses", body)
        if stream:
            await Stream(client).read(6)
        else:
            await wait_running(server, session)
    await server.wait_mark(f"stopped {session}")


async def wait_running(server: Server, session: str) -> None:
    with server.deadline(15, "a live run"):
        while (await server.get(f"/sessions/{session}"))["state"] != "RUNNING":
            await trio.sleep(0.01)


@pytest.mark.parametrize(
    ("do", "code", "kind"), [("fail", "server_error", "exception"), ("reject", "invalid_prompt", "rejected")]
)
async def test_a_run_that_fails(server: Server, do: str, code: str, kind: str) -> None:
    events = await respond(server, do, stream=True)
    assert kinds(events)[-1] == "failed"
    check_assembled(events)
    response = await respond(server, do)
    assert response["status"] == "failed"
    assert (response["error"]["code"], response["error"]["type"]) == (code, kind)
    assert "secret" not in json.dumps(response)


async def test_a_time_limit(server: Server) -> None:
    """Fields of the runtime's own protocol are understood."""
    response = await respond(server, "endless", timeout_s=0.1)
    assert (response["status"], response["error"]["type"]) == ("failed", "deadline_exceeded")


async def test_a_request_that_replaces_the_run_of_its_session(server: Server) -> None:
    session = fresh()
    first = await respond(server, "endless", background=True, conversation=session)
    second = await respond(server, "hello", conversation=session, multitask_strategy="interrupt")
    assert second["status"] == "completed"
    assert (await server.get(f"/v1/responses/{first['id']}"))["status"] == "cancelled"


async def test_a_stop_by_another_way_reaches_it(server: Server) -> None:
    session = fresh()
    async with server.connect() as client:
        await client.send(
            "POST", "/v1/responses", {"input": "endless", "stream": True, "conversation": session, "user": "u1"}
        )
        stream = Stream(client)
        await stream.read(6)
        await server.stop(session_id=session, user_id="u1")
        while stream.events[-1]["type"] != "response.incomplete":
            await stream.read(len(stream.events) + 1)
    assert stream.events[-1]["response"]["status"] == "cancelled"


# Questions.


def approval(question: str, approve: bool = True, **more: Any) -> list[dict[str, Any]]:
    return [{"type": "mcp_approval_response", "approval_request_id": question, "approve": approve, **more}]


@pytest.mark.parametrize(("approve", "said"), [(True, "Deleted."), (False, "Kept.")])
@pytest.mark.parametrize("stream", [True, False])
async def test_an_approval(server: Server, approve: bool, said: str, stream: bool) -> None:
    first = await respond(server, "approve", stream=stream)
    first = first[-1]["response"] if stream else first
    assert first["status"] == "completed"
    assert [item["type"] for item in first["output"]] == ["message", "mcp_approval_request"]
    question = first["output"][1]
    assert (question["name"], json.loads(question["arguments"])["question"]) == ("approval", "Delete all?")
    second = await respond(
        server, approval(question["id"], approve), previous_response_id=first["id"], stream=stream
    )
    if stream:
        check_numbers(second)
        check_assembled(second)
        again = await server.call("GET", f"/v1/responses/{second[0]['response']['id']}?stream=true")
        assert events_of(again.body) == second
        rest = await server.call("GET", f"/v1/responses/{second[0]['response']['id']}?stream=true&starting_after=3")
        assert events_of(rest.body) == second[4:]
        second = second[-1]["response"]
    assert text_of(second) == said
    assert second["id"] == first["id"] + ".2"
    assert [item["type"] for item in second["output"]] == ["mcp_approval_response", "message"]
    assert second["usage"]["total_tokens"] == 18
    for response in (first, second):
        assert (await server.get(f"/v1/responses/{response['id']}")) == response
    late = await respond(server, approval(question["id"]), 400, previous_response_id=first["id"])
    assert late["error"]["code"] == "question_not_open"
    unknown = await server.call("GET", f"/v1/responses/{first['id']}.3?stream=true")
    assert unknown.status == 404


async def test_questions_for_a_text(server: Server) -> None:
    first = await respond(server, "name")
    question = first["output"][0]
    assert question["name"] == "input"
    second = await respond(server, approval(question["id"], reason="Ann"), previous_response_id=first["id"])
    assert json.loads(second["output"][1]["arguments"])["question"] == "Really Ann?"
    # A message of the user is an answer, too; a wrong one is asked for again.
    third = await respond(server, "perhaps", previous_response_id=second["id"])
    assert "fault" in json.loads(third["output"][0]["arguments"])
    fourth = await respond(server, "yes", previous_response_id=third["id"], stream=True)
    assert text_of(fourth[-1]["response"]) == "Hello Ann, True."
    assert fourth[0]["response"]["id"] == first["id"] + ".4"


async def test_two_questions_at_once(server: Server) -> None:
    first = await respond(server, "twins")
    one = first["output"][-1]
    second = await respond(server, approval(one["id"], reason="up"), previous_response_id=first["id"])
    other = second["output"][-1]
    asked = [json.loads(question["arguments"])["question"] for question in (one, other)]
    assert sorted(asked) == ["left?", "right?"]
    third = await respond(server, approval(other["id"], reason="down"), previous_response_id=second["id"])
    said = [f"{asked[0].removesuffix('?')} up", f"{asked[1].removesuffix('?')} down"]
    assert sorted(text_of(third).split(". ")) == sorted(["", *said])


async def test_a_response_that_asks_lives_on_until_it_is_cancelled(server: Server) -> None:
    first = await respond(server, "approve", stream=True)
    id = first[-1]["response"]["id"]
    busy = await respond(server, [{"role": "user", "content": "a"}] * 2, 409, previous_response_id=id)
    assert busy["error"]["code"] == "session_busy"
    assert (await server.call("POST", f"/v1/responses/{id}/cancel", b"")).status == 200
    question = first[-1]["response"]["output"][-1]["id"]
    answer = await respond(server, approval(question), 400, previous_response_id=id)
    assert answer["error"]["code"] == "question_not_open"


async def test_an_approval_by_the_runtime_s_own_route(server: Server) -> None:
    begun = await respond(server, "approve", background=True)
    run = begun["id"].removeprefix("resp_")
    path = f"/v1/responses/{begun['id']}"
    with server.deadline(15, "a question"):
        while (found := await server.get(path))["status"] != "completed":
            await trio.sleep(0.01)
    data = {"approval_request_id": found["output"][-1]["id"], "approve": True}
    message = {"type": "mcp_approval_response", "role": "user", "content": [{"type": "data", "data": data}]}
    assert (await server.call("POST", f"/runs/{run}/input", message)).status == 202
    await server.get(f"/runs/{run}/wait")
    assert text_of(await server.get(f"{path}.2")) == "Deleted."


# Refusals.


def error_of(answer: Answer) -> Any:
    body = answer.json()
    assert set(body) == {"error"}, body
    assert {"message", "type", "param", "code"} <= set(body["error"])
    assert answer.header("content-type") == "application/json"
    assert answer.header("x-request-id")
    return body["error"]


def deep(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"a": value}
    return value


REFUSED: list[tuple[Any, str | None, str]] = [
    ({}, "input", "is required"),
    ({"input": []}, "input", "at least one"),
    ({"input": 5}, "input", "must be a list"),
    ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type", "send the item itself"),
    ({"input": [{"type": "computer_call_output"}]}, "input[0].type", "not supported"),
    ({"input": [{"role": "robot", "content": "a"}]}, "input[0].role", "unknown role"),
    ({"input": [{"role": "user", "content": [{"type": "x"}]}]}, "input[0].content[0].type", "unknown type"),
    ({"input": [{"role": "user"}]}, "input[0].content", "is required"),
    ({"input": "a", "prompt": {"id": "pmpt_1"}}, "prompt", "instructions"),
    ({"input": "a", "background": True, "store": False}, "background", "leave out store"),
    ({"input": "a", "conversation": "c", "previous_response_id": "resp_12345678"}, "previous_response_id", "both"),
    ({"input": "a", "previous_response_id": "response_1"}, "previous_response_id", "must be the id"),
    ({"input": "a", "previous_response_id": "resp_unknown1"}, "previous_response_id", "no response"),
    ({"input": "a", "stream": "yes"}, "stream", "must be a boolean"),
    ({"input": "a", "user": 5}, "user", "must be a string"),
    ({"input": "a", "conversation": ""}, "conversation", "must not be empty"),
    ({"input": "a", "max_output_tokens": 1.5}, "max_output_tokens", "must be an integer"),
    ({"input": "a", "temperature": "hot"}, "temperature", "must be a number"),
    ({"input": "a", "metadata": {"a": 1}}, "metadata.a", "must be a string"),
    ({"input": "a", "reasoning": deep(400)}, "reasoning", "deeper than 200"),
    ({"input": approval("call_1")}, "previous_response_id", "names the run"),
    ({"input": "a", "top_logprobs": 3}, "top_logprobs", "leave it out"),
    ([], "", "must be an object"),
    (None, "", "must be an object"),
]


@pytest.mark.parametrize(("body", "param", "sentence"), REFUSED)
async def test_a_wrong_request_is_refused_with_a_sentence(
    server: Server, body: Any, param: str | None, sentence: str
) -> None:
    answer = await server.call("POST", "/v1/responses", json.dumps(body).encode())
    error = error_of(answer)
    assert (answer.status, error["type"]) == (400, "invalid_request_error")
    assert sentence in error["message"]
    assert (error["param"] or "") in (param, "$")


async def test_other_refusals(server: Server) -> None:
    call = server.call
    async with server.connect() as client:
        # Refused for its length alone, before the rest of the body is sent.
        request = client.spell("POST", "/v1/responses", {"input": "a" * 300_000})
        await client.stream.send_all(request[:500])
        large = await client.answer()
    assert (large.status, error_of(large)["code"]) == (413, "payload_too_large")
    typed = await call("POST", "/v1/responses", b"a=b", headers={"Content-Type": "text/plain"})
    assert (typed.status, error_of(typed)["code"]) == (415, "unsupported_media_type")
    broken = await call("POST", "/v1/responses", b"{")
    assert (broken.status, error_of(broken)["code"]) == (400, "malformed_body")
    for method, path in (
        ("GET", "/v1/responses/resp_unknown1"),
        ("GET", "/v1/responses/nonsense"),
        ("GET", "/v1/responses/resp_unknown1?stream=true"),
        ("POST", "/v1/responses/resp_unknown2/cancel"),
        ("DELETE", "/v1/responses/resp_unknown1"),
    ):
        unknown = await call(method, path)
        assert unknown.status == 404, path
        error_of(unknown)
    made = (await call("POST", "/v1/conversations", {"metadata": {"a": "b"}})).json()
    assert (made["object"], made["metadata"]) == ("conversation", {"a": "b"})
    known = await respond(server, "hello", conversation=made["id"])
    assert known["conversation"] == {"id": made["id"]}
    refused = await call("POST", "/v1/conversations", {"items": [{"role": "user", "content": "x"}]})
    assert (refused.status, error_of(refused)["param"]) == (400, "items")
    for method, path in (("DELETE", ""), ("GET", "/input_items")):
        kept = await call(method, f"/v1/responses/{known['id']}{path}")
        assert (kept.status, error_of(kept)["code"]) == (405, "method_not_allowed")
    past = await call("GET", f"/v1/responses/{known['id']}?stream=maybe")
    assert (past.status, error_of(past)["param"]) == (400, "query.stream")


@pytest.mark.parametrize("base", ["/v1", "/compatible-mode/v1"])
async def test_paths_and_methods_that_no_route_takes(server: Server, base: str) -> None:
    for method, path in (("POST", "/embeddings"), ("GET", "/conversations/a"), ("DELETE", ""), ("GET", "/a//b")):
        unknown = await server.call(method, base + path)
        assert (unknown.status, error_of(unknown)["code"]) == (404, "not_found"), path
        assert error_of(unknown)["type"] == "invalid_request_error"
    for method, path, allowed in (("GET", "/chat/completions", "POST"), ("PUT", "/models", "GET")):
        refused = await server.call(method, base + path)
        assert (refused.status, error_of(refused)["code"]) == (405, "method_not_allowed"), path
        assert allowed in (refused.header("allow") or "")
    elsewhere = await server.call("GET", base + "1/models")
    assert (elsewhere.status, elsewhere.header("content-type")) == (404, "application/problem+json")


async def test_a_busy_session(server: Server) -> None:
    session = fresh()
    begun = await respond(server, "endless", background=True, conversation=session)
    answer = await server.call("POST", "/v1/responses", {"input": "hello", "conversation": session})
    error = error_of(answer)
    assert (answer.status, error["code"], answer.header("retry-after")) == (409, "session_busy", "1")
    assert error["active_run_id"] == begun["id"].removeprefix("resp_")
    queued = []
    for _ in range(16):
        queued.append(
            await respond(server, "hello", background=True, conversation=session, multitask_strategy="enqueue")
        )
    assert (await server.get(f"/v1/responses/{queued[0]['id']}"))["status"] == "queued"
    body = {"input": "hello", "conversation": session, "multitask_strategy": "enqueue"}
    full = await server.call("POST", "/v1/responses", body)
    assert (full.status, error_of(full)["type"]) == (429, "rate_limit_error")
    assert full.header("retry-after")
    assert (await server.call("POST", f"/v1/responses/{begun['id']}/cancel", b"")).status == 200
    with server.deadline(15, "the queue to end"):
        while (await server.get(f"/v1/responses/{queued[-1]['id']}"))["status"] != "completed":
            await trio.sleep(0.01)


async def test_an_idempotency_key(server: Server) -> None:
    headers = {"Idempotency-Key": fresh("key")}
    first = await server.call("POST", "/v1/responses", {"input": "hello"}, headers=headers)
    second = await server.call("POST", "/v1/responses", {"input": "hello"}, headers=headers)
    assert first.json() == second.json()
    other = await server.call("POST", "/v1/responses", {"input": "think"}, headers=headers)
    assert (other.status, error_of(other)["code"]) == (409, "idempotency_conflict")


async def test_keys_and_other_users(start: Any) -> None:
    server = start("assistant", keys=True)
    ann, bob = ({"Authorization": f"Bearer key-of-{name}"} for name in ("ann", "bob"))
    for method, path in (("POST", "/v1/responses"), ("GET", "/v1/responses/resp_unknown1"), ("GET", "/v1/models")):
        refused = await server.call(method, path, {"input": "hello"} if method == "POST" else None)
        assert (refused.status, error_of(refused)["type"]) == (401, "authentication_error")
        assert refused.header("www-authenticate") == "Bearer"
    made = (await server.call("POST", "/v1/responses", {"input": "what"}, headers=ann)).json()
    assert json.loads(text_of(made))["user"] == "ann"
    unknown = await server.call("GET", "/v1/responses/resp_unknown1", headers=bob)
    hidden = await server.call("GET", f"/v1/responses/{made['id']}", headers=bob)
    assert (hidden.status, hidden.body) == (404, unknown.body)
    body = {"input": "hello", "previous_response_id": made["id"]}
    taken = await server.call("POST", "/v1/responses", body, headers=bob)
    assert (taken.status, error_of(taken)["code"]) == (400, "previous_response_not_found")
    other = await server.call("POST", "/v1/responses", {"input": "hello", "user": "ann"}, headers=bob)
    assert (other.status, error_of(other)["type"]) == (403, "permission_error")
    waits = (await server.call("POST", "/v1/responses", {"input": "approve"}, headers=ann)).json()
    answer = {"input": approval(waits["output"][-1]["id"]), "previous_response_id": waits["id"]}
    assert (await server.call("POST", "/v1/responses", answer, headers=bob)).status == 400
    done = await server.call("POST", "/v1/responses", answer, headers=ann)
    assert text_of(done.json()) == "Deleted."
    server.close()


async def test_a_draining_node(start: Any) -> None:
    server = start("assistant")
    async with server.connect() as client, server.connect() as late:
        await client.send("POST", "/v1/responses", {"input": "slow", "stream": True})
        stream = Stream(client)
        await stream.read(6)
        # A connection that is known: a node that drains takes no new ones.
        await late.send("GET", "/v1/models")
        assert (await late.answer()).status == 200
        server.send_signal()
        await server.wait_until(lambda: "Draining" in server.log, "the drain")
        late.next_request()
        await late.send("POST", "/v1/responses", {"input": "hello"})
        refused = await late.answer()
        assert (refused.status, error_of(refused)["code"]) == (503, "draining")
        assert refused.header("retry-after")
        while stream.events[-1]["type"] != "response.completed":
            await stream.read(len(stream.events) + 1)
    assert await server.wait_exit() == 0
