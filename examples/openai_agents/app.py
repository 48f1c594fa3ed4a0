"""An agent of the OpenAI Agents SDK with a scripted model, so it needs no key.

`python examples/openai_agents/app.py`
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from agents import Agent, function_tool, set_tracing_disabled
from agents.testing import ModelCall, ModelStep, ScriptedModel, assistant_message, function_call
from openai.types.responses import Response, ResponseCompletedEvent, ResponseTextDeltaEvent

from trio_agentapp import AgentApp

set_tracing_disabled(True)  # traces would be sent to OpenAI

STORY = "Once upon a time a loop asked a nursery how to stop, and the nursery said: together. "


@function_tool
async def measure_sea(place: str) -> str:
    """Measure how warm the sea is."""
    print(f"measuring the sea at {place}", flush=True)
    try:
        await asyncio.sleep(3)  # a real tool would ask another server
    except asyncio.CancelledError:
        print("the measurement was stopped", flush=True)
        raise
    return "21 degrees"


async def think(call: ModelCall) -> AsyncIterator[Any]:
    """What a model would answer: a call of the tool, its result, or a story."""
    last = call.input[-1]
    if last.get("type") == "function_call_output":
        async for event in say(f"The sea has {last['output']}."):
            yield event
    elif "sea" in str(last["content"]):
        call_id = f"call-{len(call.input)}"
        yield completed(function_call("measure_sea", {"place": "Lisbon"}, call_id=call_id))
    else:
        async for event in say(STORY * 20):
            yield event


async def say(text: str) -> AsyncIterator[Any]:
    for number, word in enumerate(text.split(" ")):
        where = {"item_id": "msg", "output_index": 0, "content_index": 0, "sequence_number": number}
        delta = f" {word}" if number else word
        yield ResponseTextDeltaEvent(type="response.output_text.delta", delta=delta, logprobs=[], **where)
        await asyncio.sleep(0.05)
    yield completed(assistant_message(text, item_id="msg"))


def completed(item: Any) -> ResponseCompletedEvent:
    rest = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
    response = Response(id="r", created_at=0, model="scripted", object="response", output=[item], **rest)
    return ResponseCompletedEvent(type="response.completed", response=response, sequence_number=0)


model = ScriptedModel([ModelStep.stream(think)] * 10_000)
app = AgentApp(agent=Agent(name="Harbour", instructions="Help sailors.", model=model, tools=[measure_sea]))

if __name__ == "__main__":
    app.run()
