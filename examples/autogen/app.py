"""A team of AutoGen: a writer and a critic take turns. Their model is scripted: no network, no key."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core.models import ChatCompletionClient, CreateResult, ModelInfo, RequestUsage
from pydantic import BaseModel

from trio_agentapp import AgentApp


class ScriptedModel(ChatCompletionClient):
    """Says one sentence, a word at a time. Use a model client of `autogen_ext.models` in its place."""

    component_config_schema = BaseModel
    model_info = ModelInfo(
        vision=False, function_calling=True, json_output=False, family="unknown", structured_output=False
    )
    capabilities: Any = model_info

    def __init__(self, sentence: str) -> None:
        self.sentence = sentence

    async def create_stream(self, messages: Any, **options: Any) -> AsyncIterator[str | CreateResult]:
        text = f"{self.sentence} I have read {len(messages)} messages. "
        for word in text.split():
            yield f"{word} "
            await asyncio.sleep(0.2)
        usage = RequestUsage(prompt_tokens=len(messages), completion_tokens=len(text.split()))
        yield CreateResult(finish_reason="stop", content=text, usage=usage, cached=False)

    async def create(self, messages: Any, **options: Any) -> CreateResult:
        return [item async for item in self.create_stream(messages)][-1]

    async def close(self) -> None:
        pass

    def actual_usage(self) -> RequestUsage:
        return RequestUsage(0, 0)

    total_usage = actual_usage

    def count_tokens(self, messages: Any, **options: Any) -> int:
        return len(messages)

    remaining_tokens = count_tokens


def member(name: str, sentence: str) -> AssistantAgent:
    return AssistantAgent(name, ScriptedModel(sentence), system_message=None, model_client_stream=True)


writer = member("writer", "The sky is as blue as a robot's dream.")
critic = member("critic", "Robots do not dream, but the line may stay.")
app = AgentApp(agent=RoundRobinGroupChat([writer, critic], max_turns=2))

if __name__ == "__main__":
    app.run()
