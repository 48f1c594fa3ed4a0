"""A ready agent of Pydantic AI: it looks at the sky, and asks before it buys a telescope.

Its model is a function, so it needs no network. Give `Agent` a name such as "openai:gpt-5.2" instead.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from pydantic_ai import Agent, DeferredToolRequests
from pydantic_ai.messages import ModelMessage, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import DeltaThinkingPart, DeltaToolCall, FunctionModel

from trio_agentapp import AgentApp

PACE = 0.1  # seconds between two words


async def scripted(messages: list[ModelMessage], info: Any) -> AsyncIterator[Any]:
    """Call the tool that the question is about, and then talk about its result."""
    parts = [part for message in messages for part in message.parts]
    questions = [part.content for part in parts if isinstance(part, UserPromptPart)]
    if isinstance(parts[-1], ToolReturnPart):
        answer = f"I have this for you: {parts[-1].content}. It is your question number {len(questions)}."
        for word in answer.split():
            yield f"{word} "
            await asyncio.sleep(PACE)
        return
    yield {0: DeltaThinkingPart(content="A tool knows that.")}
    name = "buy_a_telescope" if "telescope" in str(questions[-1]) else "look_at_the_sky"
    yield {1: DeltaToolCall(name=name, json_args='{"what": "the moon"}', tool_call_id=f"call_{len(parts)}")}


agent = Agent(
    FunctionModel(stream_function=scripted),
    instructions="You are Friday. You know the sky.",
    output_type=[str, DeferredToolRequests],
)


@agent.tool_plain
async def look_at_the_sky(what: str) -> str:
    """Look at something in the sky."""
    await asyncio.sleep(10 * PACE)
    return f"{what} is bright tonight"


@agent.tool_plain(requires_approval=True)
async def buy_a_telescope(what: str) -> str:
    """Buy a telescope for looking at something."""
    return f"a telescope for {what}"


app = AgentApp(agent=agent, app_name="Friday")

if __name__ == "__main__":
    app.run()
