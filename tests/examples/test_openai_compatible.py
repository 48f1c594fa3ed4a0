"""The example works with a small server for chat completions, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from trio_agentapp.testing import ModelServer, hang_up, model_server, refuse, think, wait

PAGE = "examples/openai_compatible/README.md"


def endless() -> Iterator[Any]:
    while True:
        yield "more "
        yield wait(0.02)


ANSWERS: dict[str, Any] = {
    "answer": lambda: [think("Light "), think("scatters."), "Blue ", "scatters ", "most."],
    "endless": endless,
    "silent": lambda: ["Wait ", wait()],
    "refuse": lambda: [refuse(401, "secret")],
    "break": lambda: ["Half a ", hang_up()],
    "nonsense": lambda: [b"data: {oops\n\n"],
    "error": lambda: ["Half a ", b'data: {"error": {"message": "internals"}}\n\n'],
}


class Model:
    """The server of the model, which answers as `mode` says."""

    def __init__(self) -> None:
        self.mode = "answer"
        self.server = ModelServer(lambda body: [])

    def answer(self, body: dict[str, Any]) -> Any:
        return ANSWERS[self.mode]()


@asynccontextmanager
async def example(start, **environment: str) -> AsyncIterator[Any]:
    model = Model()
    async with model_server(model.answer) as model.server:
        environment = {"OPENAI_API_KEY": "k-123", "OPENAI_BASE_URL": model.server.url, **environment}
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
        assert model.server.headers[0]["authorization"] == "Bearer k-123"
        assert model.server.requests[0] == {
            "model": "tiny",
            "messages": [{"role": "user", "content": "Why is the sky blue?"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        await chat.stream(ask).wait_end()
        assert [m["role"] for m in model.server.requests[1]["messages"]] == ["user", "assistant", "user"]


@pytest.mark.parametrize(("mode", "word"), [("endless", "more "), ("silent", "Wait ")])
async def test_a_stop_closes_the_upstream_connection(start, document, mode: str, word: str) -> None:
    """A stop also works while the model is silent: the handler then waits for bytes."""
    page = document(PAGE)
    async with example(start) as (model, chat):
        model.mode = mode
        stream = chat.stream(page.commands("/process")[0])
        await stream.wait_for(f'"text":"{word}"')
        assert not model.server.left.is_set()
        receipt = await chat.call(page.commands("/stop")[0])
        assert receipt["stopped"]
        with trio.fail_after(2):
            await model.server.left.wait()
        assert (await stream.wait_end())["status"] == "canceled"
        # What was seen is part of the conversation.
        model.mode = "answer"
        await chat.stream(page.commands("/process")[0]).wait_end()
        history = model.server.requests[-1]["messages"]
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
