"""A ready agent of Agno, with a model that is a script: it looks up the weather, and then talks about it.

`python examples/agno/app.py`
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from agno.agent import Agent
from agno.models.base import Model
from agno.models.response import ModelResponse

from trio_agentapp import AgentApp


async def weather(place: str) -> str:
    """The weather of a place."""
    await asyncio.sleep(1)  # a real tool would ask another server
    return f"mild, some rain in {place}"


@dataclass
class ScriptedModel(Model):
    """Stands for a real model, such as `agno.models.openai.OpenAIChat`."""

    id: str = "script"

    async def ainvoke_stream(self, messages: list[Any], **options: Any) -> AsyncIterator[ModelResponse]:
        if messages[-1].role == "user":
            turns = sum(message.role == "user" for message in messages)
            yield ModelResponse(content=f"This is question {turns} of our conversation. Let me see. ")
            function = {"name": "weather", "arguments": '{"place": "Lisbon"}'}
            yield ModelResponse(tool_calls=[{"id": f"call-{turns}", "type": "function", "function": function}])
            return
        for word in f"In short: {messages[-1].content}. Take an umbrella, and enjoy the walk.".split():
            yield ModelResponse(content=f"{word} ")
            await asyncio.sleep(0.2)

    def _parse_provider_response_delta(self, response: Any, **options: Any) -> Any:
        return response

    _parse_provider_response = _parse_provider_response_delta

    def invoke(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError("this model only streams, on an asyncio loop")

    ainvoke = invoke_stream = invoke


# With telemetry, which is Agno's default, each run calls a server of Agno.
agent = Agent(name="Forecaster", model=ScriptedModel(), tools=[weather], telemetry=False)
app = AgentApp(agent=agent, app_name="Forecaster", app_description="Knows the weather")


if __name__ == "__main__":
    app.run()
