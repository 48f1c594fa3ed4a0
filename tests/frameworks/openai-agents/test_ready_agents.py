"""Ready agents, `AgentApp(agent=Agent(...))`: the state of each session, also after a stop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

pytest.importorskip("agents.items", reason="it has an environment of its own: make test-frameworks")

from agents import (
    Agent,
    GuardrailFunctionOutput,
    function_tool,
    handoff,
    input_guardrail,
    output_guardrail,
    set_tracing_disabled,
)
from agents.models.interface import Model
from agents.realtime import RealtimeAgent
from agents.sandbox import SandboxAgent
from openai.types import responses as r
from pydantic import TypeAdapter

from trio_agentapp import AgentApp
from trio_agentapp.errors import ConfigurationError
from trio_agentapp.frameworks.openai_agent import OpenAIAgentCopy
from trio_agentapp.protocol.message import INTERRUPTED

set_tracing_disabled(True)

EVENT: TypeAdapter[Any] = TypeAdapter(r.ResponseStreamEvent)
SEEN: list[tuple[str, list[tuple[str, str]]]] = []
"""What the models were given, call by call: the name of the agent, and the conversation."""

STARTED: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    SEEN.clear()
    STARTED.clear()


def shown(item: Any) -> tuple[str, str]:
    kind = item.get("type", "message")
    if kind != "message":
        return kind, str(item.get("output") or item.get("name"))
    content = item["content"]
    text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
    return item["role"], text


def event(kind: str, **fields: Any) -> Any:
    return EVENT.validate_python({"type": f"response.{kind}", "sequence_number": 0, **fields})


class Scripted(Model):
    """Says "word word "; "endless" makes it talk without end, "fail" fail, "call A B" call tools."""

    async def get_response(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError

    async def stream_response(self, instructions: Any, input: Any, *args: Any, **options: Any) -> Any:
        SEEN.append((instructions, [shown(item) for item in input]))
        role, text = shown(input[-1])
        output: list[Any] = []
        if role == "user" and text.startswith("call "):
            for name in text.split()[1:]:
                fields = {"id": f"fc-{name}", "call_id": f"c-{name}-{len(input)}", "name": name, "arguments": "{}"}
                output.append(r.ResponseFunctionToolCall(type="function_call", **fields))
                yield event("output_item.done", item=output[-1], output_index=len(output) - 1)
        else:
            async for delta in self._words(text):
                yield event(
                    "output_text.delta", delta=delta, logprobs=[], item_id="m", output_index=0, content_index=0
                )
            part = {"type": "output_text", "text": "word word ", "annotations": []}
            output.append(
                r.ResponseOutputMessage(
                    id="m", type="message", role="assistant", status="completed", content=[part]
                )
            )
            yield event("output_item.done", item=output[0], output_index=0)
        yield event(
            "completed",
            response=r.Response(
                id="resp",
                created_at=0,
                model="scripted",
                object="response",
                output=output,
                parallel_tool_calls=True,
                tool_choice="auto",
                tools=[],
            ),
        )

    async def _words(self, text: str) -> AsyncIterator[str]:
        for _ in range(10_000 if text == "endless" else 2):
            yield "word "
            if text == "fail":
                raise RuntimeError("the provider is down")
            await asyncio.sleep(0.01)


@function_tool
async def wait() -> str:
    """Wait for ever."""
    STARTED.append("wait")
    await asyncio.sleep(3600)
    return "never"


@function_tool
async def quick() -> str:
    """Answer at once."""
    return "done"


@function_tool(needs_approval=True)
async def delete() -> str:
    """Delete a thing."""
    return "deleted"


@input_guardrail(run_in_parallel=False)
async def polite(context: Any, agent: Any, input: Any) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(None, tripwire_triggered=any("rude" in str(item) for item in input))


def agent(**options: Any) -> Agent[Any]:
    return Agent(name="first", instructions="first", model=Scripted(), tools=[wait, quick, delete], **options)


async def play(app: AgentApp, text: Any, *, stop_at: str = "", **ids: str) -> Any:
    ids = {"user_id": "u", "session_id": "s", **ids}
    with trio.fail_after(30):
        async with app.stream_query({"input": text, **ids}) as events:
            async for each in events:
                shown = getattr(each, "text", None) or str(getattr(each, "data", ""))
                if stop_at and stop_at in shown:
                    stop_at = ""
                    await app.stop_chat(ids["user_id"], ids["session_id"])
    return each


async def play_and_stop_in_tool(app: AgentApp, text: str) -> Any:
    end: Any = None

    async def chat() -> None:
        nonlocal end
        end = await play(app, text)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(chat)
            while not STARTED:
                await trio.sleep(0.005)
            await app.stop_chat("u", "s")
    return end


async def state_of(app: AgentApp) -> Any:
    state = (await app.state.session_service.load_modules("u", "s"))["agent"]
    return json.loads(json.dumps(state))


async def test_the_next_turn_continues_the_conversation() -> None:
    app = AgentApp(agent=agent())
    async with app.runtime():
        assert (await play(app, "call quick")).status == "completed"
        await play(app, "two")
        assert await state_of(app)
    conversation = [("user", "call quick"), ("function_call", "quick"), ("function_call_output", "done")]
    assert SEEN[-1][1] == [*conversation, ("assistant", "word word "), ("user", "two")]


async def test_users_and_sessions_do_not_share_a_conversation() -> None:
    app = AgentApp(agent=agent())
    keys = (("u", "s"), ("u/s", "t"), ("u", "s/t"), ("v", "s"))
    async with app.runtime():
        async with trio.open_nursery() as nursery:
            for user, session in keys:
                nursery.start_soon(lambda u=user, s=session: play(app, f"of {u} {s}", user_id=u, session_id=s))
        for user, session in keys:
            await play(app, "again", user_id=user, session_id=session)
            assert SEEN[-1][1] == [("user", f"of {user} {session}"), ("assistant", "word word "), ("user", "again")]


async def test_the_partial_answer_of_a_stopped_run_is_kept() -> None:
    app = AgentApp(agent=agent())
    async with app.runtime():
        assert (await play(app, "endless", stop_at="word")).status == "canceled"
        await play(app, "two")
        await play(app, "three")
    kinds = [kind for kind, _ in SEEN[-2][1]]
    assert kinds == ["user", "assistant", "user"]
    assert SEEN[-2][1][1][1].startswith("word")
    assert [kind for kind, _ in SEEN[-1][1]] == [*kinds, "assistant", "user"]


async def test_a_stop_in_a_tool_leaves_no_open_call() -> None:
    app = AgentApp(agent=agent())
    async with app.runtime():
        assert (await play_and_stop_in_tool(app, "call quick wait")).status == "canceled"
        await play(app, "two")
    conversation = SEEN[-1][1]
    assert conversation[:3] == [
        ("user", "call quick wait"),
        ("function_call", "quick"),
        ("function_call", "wait"),
    ]
    outputs = dict(zip(["quick", "wait"], sorted(text for _, text in conversation[3:5]), strict=True))
    assert {kind for kind, _ in conversation[3:5]} == {"function_call_output"}
    assert INTERRUPTED in outputs.values()
    assert conversation[5:] == [("user", "two")]


async def test_a_failed_model_keeps_the_question() -> None:
    app = AgentApp(agent=agent())
    async with app.runtime():
        assert (await play(app, "fail")).status == "failed"
        await play(app, "two")
    assert SEEN[-1][1] == [("user", "fail"), ("assistant", "word "), ("user", "two")]


async def test_what_an_input_guardrail_refuses_is_not_kept() -> None:
    app = AgentApp(agent=agent(input_guardrails=[polite]))
    async with app.runtime():
        await play(app, "one")
        assert (await play(app, "rude")).status == "failed"
        assert (await play(app, "two")).status == "completed"
    assert SEEN[-1][1] == [("user", "one"), ("assistant", "word word "), ("user", "two")]


async def test_what_an_output_guardrail_refuses_is_not_added() -> None:
    @output_guardrail
    async def short(context: Any, agent: Any, output: str) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(None, tripwire_triggered=True)

    app = AgentApp(agent=agent(output_guardrails=[short]))
    async with app.runtime():
        assert (await play(app, "one")).status == "failed"
        await play(app, "two")
    assert "word" not in str(SEEN[-1][1])


@pytest.mark.parametrize("wrap", [handoff, lambda agent: agent])
async def test_the_agent_that_took_over_continues(wrap: Any) -> None:
    third = Agent(name="third", instructions="third", model=Scripted())
    second = Agent(name="second", instructions="second", model=Scripted(), handoffs=[wrap(third)])
    third.handoffs.append(second)
    app = AgentApp(agent=agent(handoffs=[wrap(second)]))
    async with app.runtime():
        end = await play(app, "call transfer_to_second")
        assert [each.type for each in end.output] == ["plugin_call", "plugin_call_output", "message"]
        assert end.output[2].metadata["original_name"] == "second"
        await play(app, "call transfer_to_third")
        await play(app, "one")
        assert (await state_of(app))["agent"] == "third"
    assert SEEN[-1][0] == "third"


def test_an_agent_that_is_gone_is_replaced_by_the_first() -> None:
    async def main() -> None:
        copy = OpenAIAgentCopy(agent(), {"items": [], "agent": "gone"})
        async for _ in copy.stream([{"role": "user", "content": "one"}]):
            pass
        assert (await copy.state())["agent"] == "first"

    asyncio.run(main())


@pytest.mark.parametrize(("approve", "output"), [(True, "deleted"), (False, "not approved")])
async def test_an_approval_resumes_the_run(approve: bool, output: str) -> None:
    app = AgentApp(agent=agent())
    async with app.runtime():
        end = await play(app, "call delete")
        asked = end.output[-1].content[0].data
        assert asked["interrupt"] == {"name": "delete", "arguments": "{}"}
        data = {"approval_request_id": asked["interrupt_id"], "approve": approve}
        content = [{"type": "data", "data": data}]
        answer = {"role": "user", "type": "mcp_approval_response", "content": content}
        end = await play(app, [answer, {"role": "user", "content": [{"type": "text", "text": "Well?"}]}])
        assert end.status == "completed"
        conversation = SEEN[-1][1]
        assert [kind for kind, _ in conversation] == ["user", "function_call", "function_call_output", "user"]
        assert output in conversation[2][1]
        assert (await state_of(app))["waiting"] is None


async def test_text_in_place_of_an_approval_closes_the_call() -> None:
    app = AgentApp(agent=agent())
    async with app.runtime():
        await play(app, "call delete")
        await play(app, "two")
        assert (await state_of(app))["waiting"] is None
    call, output = ("function_call", "delete"), ("function_call_output", INTERRUPTED)
    assert SEEN[-1][1] == [("user", "call delete"), call, output, ("user", "two")]


@pytest.mark.parametrize("wrong", [RealtimeAgent(name="a"), SandboxAgent(name="a"), Scripted()], ids=type)
def test_what_is_no_agent_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"agents\.Agent|in a handler|must be a function or an agent"):
        AgentApp(agent=wrong)
