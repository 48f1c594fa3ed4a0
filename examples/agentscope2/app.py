"""An agent of agentscope 2 that is served as it is. Its model reads from a script, so it needs no network.

`python examples/agentscope2/app.py` starts it; HOST and PORT in the environment choose another address.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

from agentscope.agent import Agent
from agentscope.credential import CredentialBase
from agentscope.formatter import OpenAIChatFormatter
from agentscope.message import Msg, TextBlock, ThinkingBlock, ToolCallBlock
from agentscope.model import ChatModelBase, ChatResponse
from agentscope.tool import FunctionTool, ToolChunk, Toolkit

from trio_agentapp import AgentApp


class Script(ChatModelBase):
    """Plays a model: it asks for the tool, and then repeats what it was asked in this session."""

    def __init__(self) -> None:
        super().__init__(CredentialBase(), "script", self.Parameters())
        self.formatter = OpenAIChatFormatter()

    async def _call_api(self, model_name: str, messages: list[Msg], **_: Any) -> AsyncIterator[ChatResponse]:
        return self._stream(messages)

    async def _stream(self, messages: list[Msg]) -> AsyncIterator[ChatResponse]:
        if not messages[-1].has_content_blocks("tool_result"):
            yield ChatResponse([ThinkingBlock(thinking="I shall look outside.", id="1")], is_last=False)
            yield ChatResponse([ToolCallBlock(id="call", name="weather", input='{"city": "Oslo"}')], is_last=False)
            return
        questions = [msg.get_text_content() for msg in messages if msg.role == "user"]
        answer = f"It is sunny in Oslo. So far you have asked: {' '.join(map(str, questions))} "
        for word in re.findall(r"\S+\s*", answer * 3):
            yield ChatResponse([TextBlock(text=word, id="2")], is_last=False)
            await asyncio.sleep(0.1)


async def weather(city: str) -> ToolChunk:
    """Look at the weather of a city."""
    await asyncio.sleep(0.5)
    return ToolChunk(content=[TextBlock(text=f"{city}: sunny")])


# A tool without a permission asks the user first.
tool = FunctionTool(weather)
app = AgentApp(agent=Agent("Friday", "You know the weather.", Script(), Toolkit([tool])))

if __name__ == "__main__":
    app.run()
