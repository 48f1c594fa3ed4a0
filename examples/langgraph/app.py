"""A ready graph of LangGraph, with a model that is a script: it asks a person before it sends a letter.

`python examples/langgraph/app.py`
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGenerationChunk
from langgraph.types import interrupt

from trio_agentapp import AgentApp


async def send_letter(to: str) -> str:
    """Send a letter, if a person allows it."""
    answer = interrupt(f"May I send the letter to {to}?")
    return f"sent to {to}" if answer.lower() == "yes" else "not sent"


class ScriptedModel(BaseChatModel):
    """Stands for a real model, such as `langchain_openai.ChatOpenAI`."""

    @property
    def _llm_type(self) -> str:
        return "script"

    def bind_tools(self, tools: Any, **options: Any) -> "ScriptedModel":
        return self

    async def _astream(self, messages: list[BaseMessage], *_: Any, **__: Any) -> AsyncIterator[ChatGenerationChunk]:
        last = messages[-1]
        if "letter" in last.text.lower() and not isinstance(last, ToolMessage):
            call = {"name": "send_letter", "args": '{"to": "Ada"}', "id": f"call-{len(messages)}", "index": 0}
            yield ChatGenerationChunk(message=AIMessageChunk("", tool_call_chunks=[call]))
            return
        asked = sum(message.type == "human" for message in messages)
        news = f"The letter was {last.text}. " if isinstance(last, ToolMessage) else ""
        for word in f"{news}This was question {asked} of our conversation, and I remember all of it.".split():
            yield ChatGenerationChunk(message=AIMessageChunk(f"{word} "))
            await asyncio.sleep(0.2)

    def _generate(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError("this model only streams, on an asyncio loop")


app = AgentApp(agent=create_agent(ScriptedModel(), [send_letter]), app_name="Secretary")


if __name__ == "__main__":
    app.run()
