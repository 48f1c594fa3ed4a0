"""OpenAI's Python client against an agent: what it assembles, and its types of every event and object."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai", reason="it has an environment of its own: make test-frameworks")

import httpx
import openai
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter, ValidationError

from ...e2e.harness import Server, fresh

KINDS = (
    *("hello", "think", "call f g", "stream-call", "own-tools", "refuse", "show", "approve", "unicode", "empty"),
    *("fail", "reject"),
)
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


@pytest.fixture(params=["/v1", "/compatible-mode/v1"])
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"http://127.0.0.1:{server.port}{request.param}", api_key="x", max_retries=0) as client:
        yield client


def wait(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + 20
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def raw_events(client: OpenAI, path: str, body: Any) -> list[dict[str, Any]]:
    answer = httpx.post(f"{str(client.base_url).rstrip('/')}{path}", json=body, timeout=20)
    assert answer.status_code == 200
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@pytest.mark.parametrize("do", KINDS)
def test_every_event_has_the_type_that_the_client_says(client: OpenAI, do: str) -> None:
    for event in raw_events(client, "/responses", {"input": do, "stream": True}):
        EVENT.validate_python(event)
        if "response" in event:
            Response.model_validate(event["response"])
    Response.model_validate(client.responses.create(input=do).to_dict())


@pytest.mark.parametrize("do", [do for do in KINDS if do not in ("fail", "reject")])
def test_every_chunk_has_the_type_that_the_client_says(client: OpenAI, do: str) -> None:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": do}], "stream": True}
    for chunk in raw_events(client, "/chat/completions", {**body, "stream_options": {"include_usage": True}}):
        ChatCompletionChunk.model_validate(chunk)
    ChatCompletion.model_validate(client.chat.completions.create(model="m", messages=body["messages"]).to_dict())


def test_that_these_types_are_strict() -> None:
    with pytest.raises(ValidationError):
        EVENT.validate_python({"type": "response.output_text.delta", "sequence_number": 0, "delta": "a"})


@pytest.mark.parametrize("do", [do for do in KINDS if do not in ("fail", "reject")])
def test_the_stream_helper_assembles_the_response(client: OpenAI, do: str) -> None:
    with client.responses.stream(model="m", input=do) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kept = client.responses.retrieve(final.id)
    assert kept.output_text == final.output_text
    assert [item.to_dict() for item in kept.output] == [
        {name: value for name, value in item.to_dict().items() if not name.startswith("parsed")}
        if item.type != "message"
        else {**item.to_dict(), "content": [plain(part) for part in item.to_dict()["content"]]}
        for item in final.output
    ]


def plain(part: Any) -> Any:
    return {name: value for name, value in part.items() if name != "parsed"}


def test_text_and_usage(client: OpenAI) -> None:
    response = client.responses.create(model="m", input="hello", metadata={"a": "b"})
    assert (response.output_text, response.status) == ("word0 word1 word2 ", "completed")
    assert response.usage is not None
    assert (response.usage.total_tokens, response.metadata) == (18, {"a": "b"})
    assert response._request_id


def test_background_resume_and_cancel(client: OpenAI) -> None:
    begun = client.responses.create(model="m", input="slow", background=True)
    assert begun.status in ("queued", "in_progress")
    seen = []
    with client.responses.retrieve(begun.id, stream=True) as stream:
        for event in stream:
            seen.append(event)
            if len(seen) == 9:
                break
    rest = list(client.responses.retrieve(begun.id, stream=True, starting_after=seen[-1].sequence_number))
    assert [event.sequence_number for event in seen + rest] == list(range(len(seen + rest)))
    text = "".join(event.delta for event in seen + rest if event.type == "response.output_text.delta")
    ended = client.responses.retrieve(begun.id)
    assert (ended.status, ended.output_text) == ("completed", text)

    endless = client.responses.create(model="m", input="endless", background=True, stream=True)
    first = next(iter(endless))
    wait(lambda: client.responses.retrieve(first.response.id).status == "in_progress")
    stopped = client.responses.cancel(first.response.id)
    assert stopped.status == "cancelled"
    assert list(endless)[-1].response.status == "cancelled"
    assert client.responses.retrieve(first.response.id).status == "cancelled"


def test_a_closed_stream_stops_the_run(client: OpenAI, server: Server) -> None:
    session = fresh()
    stream = client.responses.create(model="m", input="endless", conversation=session, stream=True)
    for event in stream:
        if event.type == "response.output_text.delta":
            break
    stream.close()
    wait(lambda: f"stopped {session}" in server.marks)


def test_conversations(client: OpenAI) -> None:
    first = client.responses.create(model="m", input="hello")
    second = client.responses.create(model="m", input="history", previous_response_id=first.id)
    assert second.output_text == "user: hello | assistant: word0 word1 word2 "
    assert first.conversation is not None
    third = client.responses.create(model="m", input="history", conversation=first.conversation.id)
    assert "user: history" in third.output_text


def test_a_tool_round_trip(client: OpenAI) -> None:
    tools: Any = [{"type": "function", "name": "weather", "parameters": {}, "strict": False}]
    asked: list[Any] = [{"role": "user", "content": "call weather"}]
    first = client.responses.create(model="m", input=asked, tools=tools)
    calls = [item for item in first.output if item.type == "function_call"]
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [("weather", {"city": "Paris"})]
    output: Any = {"type": "function_call_output", "call_id": calls[0].call_id, "output": "sunny"}
    by_hand = client.responses.create(model="m", input=[*asked, *first.output, output], tools=tools)
    assert by_hand.output_text == "The tool said sunny."
    by_id = client.responses.create(model="m", input=[output], previous_response_id=first.id, tools=tools)
    assert by_id.output_text == "The tool said sunny."


def test_all_output_can_be_sent_back(client: OpenAI) -> None:
    for do in ("think", "own-tools", "refuse", "show", "call f"):
        first = client.responses.create(model="m", input=do)
        items: Any = [*first.output, {"role": "user", "content": "hello"}]
        assert client.responses.create(model="m", input=items).status == "completed"


def test_an_approval(client: OpenAI) -> None:
    with client.responses.stream(model="m", input="approve") as stream:
        first = stream.get_final_response()
    question = first.output[-1]
    assert question.type == "mcp_approval_request"
    answer: Any = {"type": "mcp_approval_response", "approval_request_id": question.id, "approve": True}
    with client.responses.stream(model="m", input=[answer], previous_response_id=first.id) as stream:
        second = stream.get_final_response()
    assert (second.output_text, second.id) == ("Deleted.", first.id + ".2")
    assert client.responses.retrieve(second.id).output_text == "Deleted."


def test_chat_completions(client: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "stream-call"}]
    with client.chat.completions.stream(model="m", messages=messages) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion()
    assert [(event.name, event.arguments) for event in done] == [("weather", '{"city": "Paris"}')]
    assert final.choices[0].finish_reason == "tool_calls"
    call = final.choices[0].message.tool_calls[0]
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    messages += [final.choices[0].message.to_dict(), result]
    assert client.chat.completions.create(model="m", messages=clean(messages)).choices[0].message.content == (
        "The tool said sunny."
    )
    text = ""
    for chunk in client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "hello"}], stream=True
    ):
        text += chunk.choices[0].delta.content or ""
    assert text == "word0 word1 word2 "


def clean(messages: Any) -> Any:
    return [{name: value for name, value in each.items() if value is not None} for each in messages]


def test_a_closed_completion_stops_the_run(client: OpenAI, server: Server) -> None:
    session = fresh()
    stream = client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "endless"}], stream=True, metadata={"session_id": session}
    )
    for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    stream.close()
    wait(lambda: f"stopped {session}" in server.marks)


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["test-friday"]
    assert client.models.retrieve("test-friday").owned_by == "Test Friday"


def test_errors_are_the_client_s_classes(client: OpenAI, guarded: Server) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.responses.retrieve("resp_unknown1")
    assert missing.value.code == "run_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "a"}], n=2)
    assert (wrong.value.param, wrong.value.type) == ("n", "invalid_request_error")
    session = fresh()
    begun = client.responses.create(model="m", input="endless", background=True, conversation=session)
    with pytest.raises(openai.ConflictError) as busy:
        client.responses.create(model="m", input="hello", conversation=session)
    assert busy.value.code == "session_busy"
    client.responses.cancel(begun.id)
    with pytest.raises(openai.APIError, match="The agent failed"):
        list(client.chat.completions.create(model="m", messages=[{"role": "user", "content": "fail"}], stream=True))
    with pytest.raises(openai.APIStatusError) as deleting:
        client.responses.delete(begun.id)
    assert deleting.value.status_code == 405
    base = f"http://127.0.0.1:{guarded.port}/v1"
    with pytest.raises(openai.AuthenticationError):
        OpenAI(base_url=base, api_key="wrong").responses.create(model="m", input="hello")
    ann, bob = (OpenAI(base_url=base, api_key=f"key-of-{name}") for name in ("ann", "bob"))
    made = ann.responses.create(model="m", input="hello")
    assert ann.responses.retrieve(made.id).id == made.id
    with pytest.raises(openai.NotFoundError):
        bob.responses.retrieve(made.id)
    with pytest.raises(openai.PermissionDeniedError):
        bob.responses.create(model="m", input="hello", user="ann")


def test_a_failed_run_is_not_started_again(client: OpenAI, server: Server) -> None:
    patient = client.with_options(max_retries=2)
    started = server.log.count("has started")
    with pytest.raises(openai.InternalServerError):
        patient.chat.completions.create(model="m", messages=[{"role": "user", "content": "fail"}])
    assert server.log.count("has started") == started + 1


def test_the_blocks_of_the_page_run(server: Server) -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "use-openai-clients.md").read_text()
    blocks = re.findall(r"```py\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 4, "blocks of the page"
    code = "".join(blocks).replace("127.0.0.1:8090", f"127.0.0.1:{server.port}")
    names: dict[str, Any] = {}
    exec(compile(code, "use-openai-clients.md", "exec"), names)
    assert names["response"].output_text == "word0 word1 word2 "
    assert names["second"].output_text == "Deleted."


async def test_the_asyncio_client(server: Server) -> None:
    import asyncio

    import trio

    async def talk() -> str:
        async with AsyncOpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="x") as client:
            stream = await client.responses.create(model="m", input="hello", stream=True)
            return "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])

    assert await trio.to_thread.run_sync(lambda: asyncio.run(talk())) == "word0 word1 word2 "
