"""An agent with two tools, and with another agent as the third one. No framework, and a model that is a script.

`python examples/agent/app.py` starts it. With OPENAI_API_KEY set it asks a real model; OPENAI_BASE_URL and
OPENAI_MODEL choose another one.
"""

import os
from collections.abc import AsyncIterator
from typing import Any

import orjson
import trio

from trio_agentapp import AgentApp
from trio_agentapp.agents import Agent, ChatModel, Chunk, tool


class Script(ChatModel):
    """In place of a model: calls every tool once, and then repeats what they have returned."""

    async def stream(self, messages: Any, *, tools: Any = (), **options: Any) -> AsyncIterator[Chunk]:
        await trio.sleep(0.2)
        if messages[-1]["role"] == "user":
            yield Chunk("Let me see. ")
            yield Chunk(tool_calls=[self.call(each["function"], messages[-1]["content"]) for each in tools])
            return
        for result in [message["content"] for message in messages[-len(tools) :]]:
            yield Chunk(f"{result} ")
            await trio.sleep(0.1)

    def call(self, function: Any, text: str) -> dict[str, Any]:
        (name,) = function["parameters"]["properties"]
        called = {"name": function["name"], "arguments": orjson.dumps({name: text}).decode()}
        return {"id": f"call_{function['name']}", "type": "function", "function": called}


@tool(timeout=10)
async def weather(place: str) -> str:
    """The weather at a place.

    Args:
        place: a city
    """
    await trio.sleep(0.5)  # a request to a service, for instance
    return "Mild, some rain."


def trains(place: str) -> str:
    """The trains to a place. A sync tool runs in a thread, and looks whether it was stopped."""
    try:
        for _ in range(20):
            trio.from_thread.check_cancelled()
            trio.from_thread.run(trio.sleep, 0.1)
    finally:
        print("trains: ended", flush=True)
    return "Trains leave every hour."


async def hotels(place: str) -> str:
    """The hotels at a place."""
    await trio.sleep(1)
    return "The Patient Heron has a room."


model: ChatModel = Script("script")
if key := os.environ.get("OPENAI_API_KEY"):
    url = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
    model = ChatModel(os.environ.get("OPENAI_MODEL", "gpt-4o-mini"), base_url=url, api_key=key)

guide = Agent(model, instructions="You recommend one hotel.", tools=[hotels])
ask_guide = guide.as_tool("ask_guide", "Ask a local guide where to stay.", timeout=30)
planner = Agent(model, instructions="You plan a trip. Use your tools.", tools=[weather, trains, ask_guide])

app = AgentApp(agent=planner, app_name="Planner", app_description="Plans a trip", lifespan=model.lifespan)

if __name__ == "__main__":
    app.run()
