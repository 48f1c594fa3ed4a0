"""`@ag-ui/client` against `/ag-ui`, and each event that it has got, checked by the types of `ag-ui-protocol`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("ag_ui", reason="it has an environment of its own: make test-frameworks")

from ag_ui.core import Event
from pydantic import TypeAdapter

EVENT = TypeAdapter(Event)


@pytest.fixture
def agui(play: Callable[..., Any]) -> Callable[..., Any]:
    async def run(scenario: str) -> Any:
        seen = await play("agui.mjs", "/ag-ui", scenario)
        for event in seen["events"]:
            made = EVENT.validate_python(event)
            # What the types do not know, they keep; there must be nothing of that kind.
            assert not made.model_extra, made
        return seen

    return run


def types(seen: Any) -> list[str]:
    return [event["type"] for event in seen["events"]]


def texts(seen: Any) -> list[tuple[str, Any]]:
    return [(message["role"], message.get("content")) for message in seen["messages"]]


async def test_a_chat_with_reasoning(agui: Any) -> None:
    seen = await agui("chat")
    assert texts(seen) == [
        ("user", "think"),
        ("reasoning", "Let me see."),
        ("assistant", "It is done."),
        ("user", "hello"),
        ("assistant", "you said: hello"),
    ]
    finished = next(event for event in seen["events"] if event["type"] == "RUN_FINISHED")
    assert finished["usage"] == [{"inputTokens": 3, "outputTokens": 4, "totalTokens": 7, "model": "m"}]


async def test_tools_of_the_agent(agui: Any) -> None:
    seen = await agui("tools")
    calls = [message["toolCalls"][0] for message in seen["messages"] if message.get("toolCalls")]
    assert [(call["id"], call["function"]["arguments"]) for call in calls] == [
        ("call-1", '{"city": "Rome"}'),
        ("call-2", '{"city":"Oslo"}'),
    ]
    results = [message for message in seen["messages"] if message["role"] == "tool"]
    assert [(each["toolCallId"], each["content"]) for each in results] == [
        ("call-1", '{"sun":true}'),
        ("call-2", "rain"),
    ]
    assert types(seen).count("TOOL_CALL_ARGS") == 5
    assert types(seen).count("STEP_STARTED") == types(seen).count("STEP_FINISHED") == 3


async def test_tools_of_the_front_end(agui: Any) -> None:
    seen = await agui("front-end")
    first = next(event for event in seen["events"] if event["type"] == "RUN_FINISHED")
    assert first["outcome"] == {"type": "success", "pendingToolCallIds": [seen["messages"][2]["toolCallId"]]}
    assert seen["messages"][-1]["content"].endswith("'output': 'yes, do'}")


async def test_the_state(agui: Any) -> None:
    seen = await agui("state")
    assert seen["state"] == {"theme": "dark", "step": 3, "log": [1, 2, 3]}
    assert types(seen).count("STATE_SNAPSHOT") == 1
    assert types(seen).count("STATE_DELTA") == 3
    assert seen["messages"][-1]["content"] == "atheme dark"


async def test_images_data_and_other_messages(agui: Any) -> None:
    seen = await agui("media")
    customs = [event["name"] for event in seen["events"] if event["type"] == "CUSTOM"]
    assert customs == ["image", "data", "data", "data", "error", "plan"]


async def test_an_abort_stops_the_run(agui: Any, server: Any) -> None:
    seen = await agui("abort")
    assert seen["messages"][-1]["content"] == "begin "
    await server.wait_until(lambda: any(mark.startswith("stopped ag-abort") for mark in server.marks), "stop")


async def test_an_error(agui: Any) -> None:
    seen = await agui("error")
    assert seen["events"][-1] == {"type": "RUN_ERROR", "message": "The agent failed.", "code": "exception"}


async def test_an_interrupt_is_resumed(agui: Any) -> None:
    seen = await agui("approve")
    [pending] = seen["pending"]
    assert (pending["reason"], pending["message"]) == ("approval", "Delete all?")
    assert pending["responseSchema"] == {"type": "boolean"}
    assert seen["messages"][-1]["content"] == "approved: True"
    assert types(seen).count("RUN_STARTED") == types(seen).count("RUN_FINISHED") == 2
    assert seen["pending_now"] == []


async def test_an_interrupt_is_refused(agui: Any) -> None:
    assert (await agui("deny"))["messages"][-1]["content"] == "approved: False"


async def test_a_wrong_answer_is_asked_for_again(agui: Any) -> None:
    seen = await agui("choose")
    assert "green" in seen["fault"]["fault"]
    assert [content for role, content in texts(seen) if role == "assistant"] == [
        "Hm. ",
        "chosen: red",
        " sure: True",
    ]


async def test_a_question_that_is_given_up_stops_the_run(agui: Any) -> None:
    seen = await agui("give up")
    assert seen["events"][-1]["outcome"] == {"type": "cancelled"}
    assert seen["pending_now"] == []


async def test_a_refusal_has_its_reason(agui: Any) -> None:
    seen = await agui("refused")
    assert seen["status"] == 422
    assert seen["payload"]["type"] == "RUN_ERROR"
    assert seen["payload"]["code"] == "validation_error"
