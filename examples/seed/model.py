"""A model that needs no network: it tells a long story, or runs a line of Python if it is asked to compute."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from agentscope.message import TextBlock, ToolUseBlock
from agentscope.model import ChatModelBase, ChatResponse

STORY = "Friday left the station at dawn, and the galaxy was quiet. It counted the stars, and lost count. "


class ScriptedModel(ChatModelBase):
    def __init__(self) -> None:
        super().__init__("scripted", stream=True)

    async def __call__(self, messages: list[dict[str, Any]], *_: Any, **__: Any) -> AsyncIterator[ChatResponse]:
        last = messages[-1]
        asked = str(last.get("content", ""))
        if last["role"] == "tool":
            return self._say(f"It is {asked.split('<stdout>')[-1].split('</stdout>')[0].strip()}.")
        if "compute" in asked.lower():
            return self._compute()
        if "story" in asked.lower():
            return self._say(STORY * 100)
        return self._say(_recall(messages))

    async def _compute(self) -> AsyncIterator[ChatResponse]:
        call = ToolUseBlock(
            type="tool_use", id="call_1", name="execute_python_code", input={"code": "print(6 * 7)"}
        )
        yield ChatResponse(content=[call])

    async def _say(self, text: str) -> AsyncIterator[ChatResponse]:
        said = ""
        for word in text.split():
            said += word + " "
            yield ChatResponse(content=[TextBlock(type="text", text=said)])
            await asyncio.sleep(0.05)


def _recall(messages: list[dict[str, Any]]) -> str:
    asked = sum(message["role"] == "user" for message in messages)
    said = [
        str(message["content"]) for message in messages if message["role"] == "assistant" and message["content"]
    ]
    return f"You have asked {asked} times. " + (f"I said: {said[0][:200]}" if said else "I have said nothing.")
