"""The model client, with a real server on a socket."""

from __future__ import annotations

import json
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import trio

from trio_agentapp.agents import ChatModel, Chunk, ModelError
from trio_agentapp.errors import ConfigurationError
from trio_agentapp.nursery import nursery_around
from trio_agentapp.testing import call, hang_up, model_server, refuse, think, wait

TALK = [{"role": "user", "content": "Hello"}]


async def chunks_of(model: ChatModel, **options: Any) -> list[Chunk]:
    async with aclosing(model.stream(TALK, **options)) as chunks:
        return [chunk async for chunk in chunks]


async def answer(*answers: Any, **options: Any) -> list[Chunk]:
    with trio.fail_after(5):
        async with model_server(*answers) as server:
            async with ChatModel("m", base_url=server.url, **options) as model:
                return await chunks_of(model)


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


async def test_an_answer_with_reasoning_text_calls_and_usage() -> None:
    clock = call("clock", city="Rome")
    look = call("look", "")
    *deltas, last = await answer([think("Hm. "), think("Well."), "It ", "is ", clock, look])
    assert deltas == [Chunk(reasoning="Hm. "), Chunk(reasoning="Well."), Chunk("It "), Chunk("is ")]
    assert [each["id"] for each in last.tool_calls] == [clock.id, look.id]
    assert last.tool_calls[0]["function"] == {"name": "clock", "arguments": '{"city":"Rome"}'}
    assert last.tool_calls[1]["function"] == {"name": "look", "arguments": "{}"}
    assert last.usage == {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


async def test_what_is_sent() -> None:
    tools = [{"type": "function", "function": {"name": "clock"}}]
    async with model_server(["a"], ["b"]) as server:
        options = {"temperature": 0, "seed": 1, "stream_options": None}
        async with ChatModel(
            "m", base_url=server.url, api_key="k-1\n", headers={"X-Team": "t"}, options=options
        ) as model:
            await chunks_of(model, tools=tools, seed=2)
            await chunks_of(model)
    assert server.requests == [
        {"model": "m", "stream": True, "temperature": 0, "seed": 2, "messages": TALK, "tools": tools},
        {"model": "m", "stream": True, "temperature": 0, "seed": 1, "messages": TALK},
    ]
    assert server.headers[0]["authorization"] == "Bearer k-1"
    assert server.headers[0]["x-team"] == "t"
    assert server.connections == 1  # it was used again
    assert "k-1" not in repr(model)


def delta(**members: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": members}]}, ensure_ascii=False).encode() + b"\n\n"


async def test_calls_of_servers_that_number_them_badly() -> None:
    """All have the index 0, or none; ids are repeated, or missing."""
    gemini = [
        delta(tool_calls=[{"index": 0, "id": name, "function": {"name": name, "arguments": "{}"}}]) for name in "ab"
    ]
    (last,) = await answer(gemini)
    assert [each["id"] for each in last.tool_calls] == ["a", "b"]

    repeating = [
        delta(tool_calls=[{"id": "a", "function": {"name": "f", "arguments": part}}]) for part in ("{", "}")
    ]
    (last,) = await answer(repeating)
    assert [each["function"] for each in last.tool_calls] == [{"name": "f", "arguments": "{}"}]

    without = [
        delta(tool_calls=[{"function": {"name": "f"}}]),
        delta(tool_calls=[{"function": {"arguments": "{}"}}]),
    ]
    (last,) = await answer(without)
    assert len(last.tool_calls) == 1
    assert last.tool_calls[0]["id"].startswith("call_")


async def test_other_forms_of_text() -> None:
    odd = [
        b": welcome\r\n\r\n",
        b"event: ping\ndata: {}\n\n",
        delta(role="assistant", content=""),
        delta(content="a\u2028b"),
        delta(refusal=" No."),
        delta(reasoning={"of": "another form"}),
        b"data: {'choices':null}\n\n".replace(b"'", b'"'),
    ]
    assert await answer(odd) == [
        Chunk("a\u2028b"),
        Chunk(" No."),
        Chunk(usage={"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}),
    ]


async def test_a_stream_that_ends_after_its_finish_reason_is_complete() -> None:
    done = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"

    assert text_of(await served(head + delta(content="Whole.") + done)) == "Whole."


async def test_a_server_that_does_not_stream() -> None:
    message = {"content": "Whole.", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]}
    body = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": {"total_tokens": 3}})
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"

    first, last = await served((head + body).encode())
    assert first.text == "Whole."
    assert last.tool_calls[0]["id"] == "a"
    assert last.usage == {"total_tokens": 3}


async def served(response: bytes, **options: Any) -> list[Chunk]:
    """Ask a server that sends these bytes, and closes the connection."""

    async def handler(stream: trio.SocketStream) -> None:
        data = b""
        while not data.endswith(b"}"):
            data += await stream.receive_some()
        await stream.send_all(response)
        await stream.aclose()

    with trio.fail_after(5):
        async with nursery_around() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, handler, [listener])
            url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/v1/"
            try:
                async with ChatModel("m", base_url=url, **options) as model:
                    return await chunks_of(model)
            finally:
                nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([refuse(401, "Wrong key sk-1")], "The model's server answered 401 Unauthorized. It said: Wrong key sk-1"),
        ([refuse(404, "")], "The model's server answered 404 Not Found. It said: {'message': ''}"),
        (["Half a ", hang_up()], "The model's server broke off before the end of its answer."),
        (
            ["a", b"data: {oops\n\n"],
            "The model's server sent something that is not JSON. It said: JSON is malformed",
        ),
        (["a", b"data: [1]\n\n"], "sent something that is not an answer. It said: Expected `object`, got `array`"),
        (
            ["a", b'data: {"choices": [{"delta": {"content": 5}}]}\n\n'],
            "not an answer. It said: Expected `str | null`, got `int` - at `$.choices[0].delta.content`",
        ),
        (
            ["a", b'data: {"error": {"message": "overloaded"}}\n\n'],
            "The model's server reported an error in the middle of its answer. It said: overloaded",
        ),
        (["a", b'data: {"error": "text"}\n\n'], "It said: text"),
        (
            ["a", b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n'],
            "something that is not JSON. It said: 'utf-8'",
        ),
        (
            ["a", b'data: {"choices": [{"delta": {"reasoning": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}]}\n\n"],
            "something that is not JSON. It said: maximum recursion depth exceeded",
        ),
        (["a", *[call("clock")] * 129], "The model called more than 128 tools at once."),
        (["a" * 2**20, think("b" * 2**20), "c", wait()], "The model's answer has more than 2097152 characters."),
        ([call("clock", "a" * 2**21), wait()], "The model's answer has more than 2097152 characters."),
    ],
)
async def test_failures_are_told_with_the_message_of_the_server(parts: Any, said: str) -> None:
    with pytest.raises(ModelError) as caught:
        await answer(parts)
    assert said in str(caught.value)
    assert caught.value.detail not in caught.value.summary or not caught.value.detail


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('[{"error": {"code": 400, "message": "of Gemini"}}]', "It said: of Gemini"),
        ('{"detail": "of FastAPI"}', "It said: of FastAPI"),
        ("<html>a page</html>", "It said: <html>a page</html>"),
        ("x" * 100_000, "It said: " + "x" * 500),
        ("[" * 50_000, "It said: " + "[" * 500),
        ("", "answered 400 Bad Request."),
    ],
)
async def test_the_message_of_a_refusal_has_many_forms(body: str, said: str) -> None:
    with pytest.raises(ModelError) as caught:
        await served(f"HTTP/1.1 400 Bad Request\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    assert str(caught.value).endswith(said)
    assert caught.value.status == 400


async def test_a_stream_without_an_end() -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>login</html>"
    with pytest.raises(ModelError, match="broke off before the end"):
        await served(page, attempts=1)


async def test_a_line_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_agentapp.agents.model.MAX_LINE", 1000)
    with pytest.raises(ModelError, match="a line of more than 1000 bytes"):
        await answer(["a", b"data: " + b"x" * 2000, wait()])


async def test_a_silent_server_takes_too_long() -> None:
    with pytest.raises(ModelError, match="The model's server took too long"):
        await answer(["a", wait()], timeout=0.1)


async def test_a_url_that_is_wrong() -> None:
    async with model_server(["a"]) as server:
        async with ChatModel("m", base_url=server.url + "/chat") as model:
            with pytest.raises(
                ModelError, match=r"404 Not Found\. It said: there is no POST /v1/chat/chat/completions"
            ):
                await chunks_of(model)


async def test_a_server_that_is_not_there() -> None:
    async with ChatModel("m", base_url="http://127.0.0.1:1/v1") as model:
        with pytest.raises(ModelError, match="cannot be reached"):
            await chunks_of(model)


# Retries.


@pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
async def test_an_overloaded_server_is_asked_again(status: int, caplog: pytest.LogCaptureFixture) -> None:
    chunks = await answer([refuse(status, "busy")], [refuse(status, "busy")], ["Hello"])
    assert text_of(chunks) == "Hello"
    assert [record.message.partition(";")[2][:13] for record in caplog.records] == [" trying again"] * 2


async def test_a_connection_that_breaks_before_the_first_token_is_made_again() -> None:
    assert text_of(await answer([hang_up()], [b'data: {"error": "busy"}\n\n'], ["Hello"])) == "Hello"


async def test_attempts_are_counted() -> None:
    async with model_server(lambda body: [refuse(503, "busy")]) as server:
        async with ChatModel("m", base_url=server.url, attempts=4) as model:
            with pytest.raises(ModelError) as caught:
                await chunks_of(model)
    assert len(server.requests) == 4
    assert caught.value.status == 503


@pytest.mark.parametrize("parts", [[refuse(400, "bad")], ["Half", hang_up()], [refuse(404, "unknown model")]])
async def test_others_are_not_asked_again(parts: Any) -> None:
    async with model_server(parts, ["Hello"]) as server:
        async with ChatModel("m", base_url=server.url) as model:
            with pytest.raises(ModelError):
                await chunks_of(model)
    assert len(server.requests) == 1


@pytest.mark.parametrize(("seconds", "tried"), [(0, 2), (3600, 1)])
@pytest.mark.parametrize("as_date", [False, True])
async def test_retry_after_is_honoured_up_to_a_bound(
    seconds: int, tried: int, as_date: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
    header = date if as_date else str(seconds)
    monkeypatch.setattr("trio_agentapp.agents.model.FIRST_DELAY", 1000)
    async with model_server([refuse(429, "slow down", {"Retry-After": header})], ["Hello"]) as server:
        async with ChatModel("m", base_url=server.url) as model:
            with trio.fail_after(5):
                if tried == 2:
                    assert text_of(await chunks_of(model)) == "Hello"
                else:
                    with pytest.raises(ModelError) as caught:
                        await chunks_of(model)
                    assert caught.value.status == 429
                    assert caught.value.retry_after > 3000
    assert len(server.requests) == tried


async def test_retry_after_is_waited_for() -> None:
    began = trio.current_time()
    await answer([refuse(429, "slow down", {"Retry-After": "0.3"})], ["Hello"])
    assert trio.current_time() - began >= 0.3


async def test_a_retry_after_that_is_no_time_is_not_used() -> None:
    assert text_of(await answer([refuse(429, "slow down", {"Retry-After": "soon"})], ["Hello"])) == "Hello"


# Opening and closing.


async def test_a_stop_closes_the_connection() -> None:
    async with model_server(["a", wait()]) as server:
        async with ChatModel("m", base_url=server.url) as model:
            with trio.CancelScope() as scope:
                async with aclosing(model.stream(TALK)) as chunks:
                    async for chunk in chunks:
                        assert chunk.text == "a"
                        scope.cancel()
            with trio.fail_after(2):
                await server.left.wait()


async def test_a_model_has_to_be_open() -> None:
    model = ChatModel("m", base_url="http://127.0.0.1:1/v1")
    with pytest.raises(RuntimeError, match=r"<ChatModel m at .*> is not open; use `async with`"):
        await chunks_of(model)
    for _ in range(2):
        async with model:
            with pytest.raises(RuntimeError, match="is open already"):
                await model.__aenter__()


def test_settings_that_cannot_work() -> None:
    with pytest.raises(ConfigurationError, match="base_url must begin with http"):
        ChatModel("m", base_url="localhost:8000/v1")
    with pytest.raises(ConfigurationError, match="attempts must be at least 1"):
        ChatModel("m", attempts=0)


async def test_many_answers_at_once() -> None:
    """More than httpx allows by default. None is answered before all have asked."""

    def script(body: dict[str, Any]) -> Any:
        while len(server.requests) < 150:
            yield wait(0.02)
        yield "a"

    async with model_server(script) as server:
        async with ChatModel("m", base_url=server.url) as model:
            with trio.fail_after(9):
                async with trio.open_nursery() as nursery:
                    for _ in range(150):
                        nursery.start_soon(chunks_of, model)


async def test_a_connection_is_used_again_if_its_end_comes_late() -> None:
    late = ["a", b"data: [DONE]\n\n", wait(0.05)]
    async with model_server(late, late) as server:
        async with ChatModel("m", base_url=server.url) as model:
            for _ in range(2):
                assert text_of(await chunks_of(model)) == "a"
    assert server.connections == 1


async def test_a_server_that_resets_the_connection_after_its_last_event() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n"
    data = delta(content="Whole.") + b"data: [DONE]\n\n"
    chunked = head + f"{len(data):x}\r\n".encode() + data + b"\r\n"
    assert text_of(await served(chunked, attempts=1)) == "Whole."
