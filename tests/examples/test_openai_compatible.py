"""The example works with a small server for chat completions, over real sockets."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

PAGE = "examples/openai_compatible/README.md"


class ModelServer:
    """Answers as `mode` says, and records requests and disconnects."""

    def __init__(self) -> None:
        self.mode = "answer"
        self.requests: list[tuple[str, dict]] = []
        self.hung_up = trio.Event()
        self.url = ""

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            head, body = await self._read(stream)
            self.requests.append((head, json.loads(body)))
            try:
                await getattr(self, f"_{self.mode}")(stream)
            except trio.BrokenResourceError:
                self.hung_up.set()

    async def _read(self, stream: trio.SocketStream) -> tuple[str, bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some()
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE)[1])
        while len(body) < length:
            body += await stream.receive_some()
        return head.decode(), body

    async def _begin(self, stream: trio.SocketStream) -> None:
        await stream.send_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n: welcome\n\n"
        )

    async def _delta(self, stream: trio.SocketStream, **delta: str) -> None:
        chunk = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]}
        await stream.send_all(f"data: {json.dumps(chunk)}\n\n".encode())

    async def _answer(self, stream: trio.SocketStream) -> None:
        await self._begin(stream)
        await self._delta(stream, role="assistant", content="")
        await self._delta(stream, reasoning_content="Light ")
        await self._delta(stream, reasoning_content="scatters.")
        for word in ("Blue ", "scatters ", "most."):
            await self._delta(stream, content=word)
        usage = {"choices": [], "usage": {"total_tokens": 7}}
        await stream.send_all(f"data: {json.dumps(usage)}\n\ndata: [DONE]\n\n".encode())

    async def _endless(self, stream: trio.SocketStream) -> None:
        await self._begin(stream)
        while True:
            await self._delta(stream, content="more ")
            await trio.sleep(0.02)

    async def _silent(self, stream: trio.SocketStream) -> None:
        await self._begin(stream)
        await self._delta(stream, content="Wait ")
        assert await stream.receive_some() == b""
        self.hung_up.set()

    async def _refuse(self, stream: trio.SocketStream) -> None:
        await stream.send_all(
            b'HTTP/1.1 401 Unauthorized\r\nContent-Length: 16\r\nConnection: close\r\n\r\n{"secret": "s"} '
        )

    async def _break(self, stream: trio.SocketStream) -> None:
        await self._begin(stream)
        await self._delta(stream, content="Half a ")

    async def _nonsense(self, stream: trio.SocketStream) -> None:
        await self._begin(stream)
        await stream.send_all(b"data: {oops\n\n")

    async def _error(self, stream: trio.SocketStream) -> None:
        await self._begin(stream)
        await stream.send_all(b'data: {"error": {"message": "internals"}}\n\n')


@asynccontextmanager
async def model_server() -> AsyncIterator[ModelServer]:
    server = ModelServer()
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/v1"
        nursery.start_soon(trio.serve_listeners, server.serve, [listener])
        yield server
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def example(start, **environment: str):
    async with model_server() as model:
        environment = {"OPENAI_API_KEY": "k-123", "OPENAI_BASE_URL": model.url, **environment}
        chat = start("python examples/openai_compatible/app.py", **environment)
        await chat.wait_ready()
        yield model, chat
        assert await chat.stop() == 0


async def test_an_answer_with_reasoning_and_a_second_turn(start, document) -> None:
    page = document(PAGE)
    (ask,) = page.commands("/process")
    assert "OPENAI_API_KEY=your-key .venv/bin/python examples/openai_compatible/app.py" in page.code("bash")[0]
    async with example(start, OPENAI_MODEL="tiny") as (model, chat):
        stream = chat.stream(ask)
        end = await stream.wait_end()
        assert end["status"] == "completed"
        assert [(m["type"], m["content"][0]["text"]) for m in end["output"]] == [
            ("reasoning", "Light scatters."),
            ("message", "Blue scatters most."),
        ]
        assert len([e for e in stream.events if e.get("delta")]) == 5
        head, body = model.requests[0]
        assert head.startswith("POST /v1/chat/completions ")
        assert "authorization: bearer k-123" in head.lower()
        assert body == {
            "model": "tiny",
            "messages": [{"role": "user", "content": "Why is the sky blue?"}],
            "stream": True,
        }
        await chat.stream(ask).wait_end()
        assert [m["role"] for m in model.requests[1][1]["messages"]] == ["user", "assistant", "user"]


@pytest.mark.parametrize(("mode", "word"), [("endless", "more "), ("silent", "Wait ")])
async def test_a_stop_closes_the_upstream_connection(start, document, mode: str, word: str) -> None:
    """A stop also works while the model is silent: the handler then waits for bytes."""
    page = document(PAGE)
    async with example(start) as (model, chat):
        model.mode = mode
        stream = chat.stream(page.commands("/process")[0])
        await stream.wait_for(f'"text":"{word}"')
        assert not model.hung_up.is_set()
        receipt = await chat.call(page.commands("/stop")[0])
        assert receipt["stopped"]
        with trio.fail_after(2):
            await model.hung_up.wait()
        assert (await stream.wait_end())["status"] == "canceled"
        # What was seen is part of the conversation.
        model.mode = "answer"
        await chat.stream(page.commands("/process")[0]).wait_end()
        history = model.requests[-1][1]["messages"]
        assert history[1] == {"role": "assistant", "content": stream.words}


async def test_upstream_errors_are_told_in_words(start, document) -> None:
    async with example(start) as (model, chat):
        for model.mode, told in (
            ("refuse", "The model's server answered 401 Unauthorized."),
            ("break", "The model's server broke off before the end of its answer."),
            ("nonsense", "The model's server sent something that is not JSON."),
            ("error", "The model's server reported an error in the middle of its answer."),
        ):
            stream = chat.stream(document(PAGE).commands("/process")[0])
            end = await stream.wait_end()
            assert (end["status"], end["error"]["code"]) == ("failed", "exception")
            error = end["output"][-1]
            assert (error["type"], error["code"], error["message"]) == ("error", "model_error", told)
            assert "secret" not in stream.text
            assert "internals" not in stream.text
            assert f"ModelError: {told}" in chat.err


async def test_a_server_that_is_not_there(start, document) -> None:
    chat = start(
        "python examples/openai_compatible/app.py", OPENAI_API_KEY="k", OPENAI_BASE_URL="http://127.0.0.1:1/v1"
    )
    await chat.wait_ready()
    end = await chat.stream(document(PAGE).commands("/process")[0]).wait_end()
    assert end["output"][-1]["message"] == "The model's server cannot be reached, or hung up."


async def test_a_missing_key_is_told_at_the_start(start) -> None:
    chat = start("python examples/openai_compatible/app.py")
    assert chat.process.wait(10) == 1
    assert chat.err.startswith("OPENAI_API_KEY is not set")
    assert "Traceback" not in chat.err
