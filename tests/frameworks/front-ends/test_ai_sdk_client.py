"""The chat of `ai`, as `useChat` has it, with its transport, against `/ai-sdk/chat`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("ag_ui", reason="it has an environment of its own: make test-frameworks")


@pytest.fixture
def chat(play: Callable[..., Any]) -> Callable[..., Any]:
    async def run(scenario: str) -> Any:
        seen = await play("aisdk.mjs", "/ai-sdk/chat", scenario)
        for status, version, _ in seen["headers"]:
            assert version == "v1" or status != 200
        return seen

    return run


def parts(seen: Any, place: int = -1) -> list[Any]:
    found: list[Any] = [part for part in seen["messages"][place]["parts"] if part["type"] != "step-start"]
    return found


async def test_a_chat_with_reasoning(chat: Any) -> None:
    seen = await chat("chat")
    assert [(each["type"], each["text"]) for each in parts(seen, 1)] == [
        ("reasoning", "Let me see."),
        ("text", "It is done."),
    ]
    assert seen["messages"][1]["metadata"]["usage"]["total_tokens"] == 7
    assert parts(seen) == [{"type": "text", "text": "you said: hello", "state": "done"}]
    assert (seen["status"], seen["errors"]) == ("ready", [])


@pytest.mark.parametrize("scenario", ["tools", "read"])
async def test_tools_of_the_agent(chat: Any, scenario: str) -> None:
    seen = await chat(scenario)
    message = seen["read"] if scenario == "read" else seen["messages"][-1]
    tools = [part for part in message["parts"] if part["type"] == "tool-weather"]
    assert [(part["state"], part["input"], part["output"]) for part in tools] == [
        ("output-available", {"city": "Rome"}, {"sun": True}),
        ("output-available", {"city": "Oslo"}, "rain"),
    ]
    assert [part["type"] for part in message["parts"]].count("step-start") == 3


async def test_tools_of_the_front_end(chat: Any) -> None:
    seen = await chat("front-end")
    assert [part["type"] for part in parts(seen)] == ["tool-confirm", "text"]
    assert parts(seen)[-1]["text"].endswith("'output': 'yes, do'}")
    assert len(seen["messages"]) == 2


async def test_the_state(chat: Any) -> None:
    seen = await chat("state")
    assert parts(seen)[0] == {"type": "data-state", "id": "state", "data": {"step": 3, "log": [1, 2, 3]}}
    assert [part["type"] for part in parts(seen)] == ["data-state", "text"]


async def test_files_sources_and_data(chat: Any) -> None:
    assert [part["type"] for part in parts(await chat("media"))] == [
        *("text", "file", "text", "source-url", "data-weather", "data-content", "data-error", "data-plan")
    ]
    assert (await chat("files"))["status"] == "ready"


async def test_an_abort_stops_the_run(chat: Any, server: Any) -> None:
    seen = await chat("abort")
    assert seen["finishes"][-1]["isAbort"] is True
    await server.wait_until(lambda: any(mark.startswith("stopped ui-abort") for mark in server.marks), "stop")


async def test_an_error(chat: Any) -> None:
    seen = await chat("error")
    assert (seen["status"], seen["errors"]) == ("error", ["Error: The agent failed."])


@pytest.mark.parametrize(("scenario", "state"), [("approve", "output-available"), ("deny", "output-denied")])
async def test_an_approval(chat: Any, scenario: str, state: str) -> None:
    seen = await chat(scenario)
    assert seen["asked"]["input"]["question"] == "Delete all?"
    assert len(seen["messages"]) == 2
    *_, call, answer = parts(seen)
    assert call["state"] == state
    assert answer["text"] == f"approved: {scenario == 'approve'}"


async def test_a_question_is_answered_by_an_output(chat: Any) -> None:
    seen = await chat("choose")
    assert [part["text"] for part in parts(seen) if part["type"] == "text"] == [
        "Hm. ",
        "chosen: red",
        " sure: True",
    ]


async def test_a_stream_is_resumed(chat: Any) -> None:
    seen = await chat("resume")
    assert parts(seen)[0]["text"] == "".join(f"t{number} " for number in range(30))
    assert [status for status, *_ in seen["headers"]] == [200, 200]


async def test_there_is_nothing_to_resume(chat: Any) -> None:
    seen = await chat("nothing")
    assert (seen["headers"][0][0], seen["status"], seen["errors"]) == (204, "ready", [])


async def test_a_refusal_has_its_reason(chat: Any) -> None:
    seen = await chat("refused")
    assert seen["errors"] == ["AI_APICallError: $.id: must have at most 256 characters, not 300"]
