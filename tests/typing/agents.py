"""Agents without a framework: tools of every kind, agents in agents, a model of one's own."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any

from trio_agentapp import AgentApp, Message, Run
from trio_agentapp.agents import Agent, ChatModel, Chunk, Tool, chat_messages, tool
from trio_agentapp.testing import model_server, refuse, think


@tool
async def clock(city: str) -> str:
    return city


@tool(timeout=5)
def count(run: Run | None, to: int = 3) -> int:
    return to


class Own(ChatModel):
    async def stream(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] = (), **options: Any
    ) -> AsyncGenerator[Chunk, None]:
        yield Chunk("Hello")


async def plain(text: str) -> dict[str, int]:
    return {text: 1}


model = ChatModel("m", base_url="http://localhost", api_key=None, options={"temperature": 0}, timeout=5)
inner = Agent(Own("m"), tools=[clock, count, plain, Tool(plain, name="other", timeout=1.5)])
agent = Agent(model, instructions="Be brief.", tools=[inner.as_tool("ask", "Ask.")], max_turns=3)
app = AgentApp(agent=agent, lifespan=model.lifespan)


@app.query()
async def chat(msgs: list[Message]) -> AsyncIterator[str | Message | tuple[Message, bool]]:
    async for item in agent.stream(chat_messages(msgs)):
        yield item


async def script() -> str:
    async with model_server(["Hello", think("Hm.")], [refuse(503, "busy")]) as server:
        async with ChatModel("m", base_url=server.url) as opened:
            return await Agent(opened).ask("Hello")


# What must not pass.

ChatModel()  # type: ignore[call-arg]
Agent("gpt")  # type: ignore[arg-type]
Agent(model, tools=["clock"])  # type: ignore[list-item]
Agent(model, turns=3)  # type: ignore[call-arg]
tool(timeout="5")  # type: ignore[call-overload]
