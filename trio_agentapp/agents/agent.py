"""The agent: asks a model, runs the tools that it calls, and asks again, until the model calls no more tools."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeAlias

import trio

from ..errors import ConfigurationError, ModelError, TurnLimitReached
from ..protocol.content import DataContent
from ..protocol.message import Message
from ..runs import Run, current_run
from .conversation import Answer, ChatMessage, chat_messages, recent
from .model import ChatModel
from .tools import Tool

__all__ = ["Agent", "Item"]

Item: TypeAlias = str | Message | tuple[Message, bool]
"""What an agent yields: text deltas, messages, and reasoning as `(message so far, last)`."""

STATE = "agent"
"""The name under which the conversation is stored in a session's state."""

USAGE = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens", "total_tokens": "total_tokens"}


class Agent:
    """A model with instructions and tools.

    `tools`: functions, or objects of `Tool`. `max_turns`: limit of model requests for one answer. `max_output`:
    limit of characters of a tool's output that the model gets. `max_messages`: limit of messages of a conversation
    that `AgentApp(agent=...)` keeps. `options`: members of the requests to the model, such as `{"temperature": 0}`.

    An agent keeps no state of runs, so any number of runs share one. It is a handler, `AgentApp(agent=agent)`. Use
    `stream` in your own handlers, and `as_tool` for an agent that another one calls.

    Raises ConfigurationError if two tools have the same name, or a limit is below 1.
    """

    def __init__(
        self,
        model: ChatModel,
        *,
        instructions: str = "",
        tools: Sequence[Tool | Callable[..., Any]] = (),
        max_turns: int = 10,
        max_output: int = 20_000,
        max_messages: int = 200,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if min(max_turns, max_output, max_messages) < 1:
            raise ConfigurationError("max_turns, max_output and max_messages must be at least 1")
        self.model = model
        self.instructions = instructions
        self.tools: dict[str, Tool] = {}
        for each in tools:
            tool = each if isinstance(each, Tool) else Tool(each)
            if tool.name in self.tools:
                raise ConfigurationError(
                    f"two tools have the name {tool.name!r}; give one another: Tool(fn, name=...)"
                )
            self.tools[tool.name] = tool
        self.max_turns = max_turns
        self.max_output = max_output
        self.max_messages = max_messages
        self.options = dict(options or {})

    async def stream(self, conversation: list[ChatMessage]) -> AsyncGenerator[Item, None]:
        """Answer a conversation, and add the answer to it. Yield what a handler yields.

        `conversation` is changed while the answer is made. A model server accepts it at any time, so save it in a
        `finally`: after a stop it has the partial answer, and each tool call has a result. The tokens of all
        requests are added to `run.usage`.

        Raises:
            ModelError: the model has failed.
            TurnLimitReached: the model still calls tools after `max_turns` requests.
        """
        for turns_left in reversed(range(self.max_turns)):
            answer = Answer(conversation)
            calls: list[ChatMessage] = []
            async with aclosing(self._ask(conversation, answer, calls)) as items:
                async for item in items:
                    yield item
            if not calls:
                return
            results = answer.call(calls)
            for call in calls:
                yield _called(call)
            if turns_left:
                await self._use_all(calls, results)
                for call, result in zip(calls, results, strict=True):
                    yield _answered(call, result)
        raise TurnLimitReached(self.max_turns)

    async def ask(self, text: str) -> str:
        """Answer one message, and return the text of the answer. Raises what `stream` raises."""
        conversation: list[ChatMessage] = [{"role": "user", "content": text}]
        async with aclosing(self.stream(conversation)) as items:
            async for _ in items:
                pass
        last = conversation[-1]
        return str(last["content"]) if last["role"] == "assistant" else ""

    def as_tool(self, name: str, description: str, *, timeout: float | None = None) -> Tool:
        """Return a tool by which another agent calls this one with a task. Its result is the text of the answer.

        The call is a part of the run that makes it, so a stop or a time limit of that run also ends the call.
        """

        async def answer(task: str) -> str:
            return await self.ask(task)

        return Tool(answer, name=name, description=description, timeout=timeout)

    async def __call__(self, msgs: list[Message], run: Run, app: Any) -> AsyncGenerator[Item, None]:
        """The handler of `AgentApp(agent=agent)`. It loads and saves the conversation of the session."""
        sessions = app.state.session_service
        states = await sessions.load_modules(run.user_id, run.session_id) or {}
        kept = states.get(STATE, {}).get("messages", [])
        conversation = recent([*kept, *chat_messages(msgs)], self.max_messages)
        try:
            async with aclosing(self.stream(conversation)) as items:
                async for item in items:
                    yield item
        except (ModelError, TurnLimitReached) as error:
            # Clients do not get the text of an exception, so it is sent as a message.
            yield Message(type="error", code=error.code, message=error.summary)
            raise
        finally:
            states[STATE] = {"messages": recent(conversation, self.max_messages)}
            await sessions.save_modules(run.user_id, run.session_id, states)

    async def _ask(
        self, conversation: list[ChatMessage], answer: Answer, calls: list[ChatMessage]
    ) -> AsyncGenerator[Item, None]:
        """Stream one answer of the model, and put its tool calls into `calls`."""
        system = [{"role": "system", "content": self.instructions}] if self.instructions else []
        tools = [tool.schema for tool in self.tools.values()]
        thought = ""
        chunks = self.model.stream([*system, *conversation], tools=tools, **self.options)
        async with aclosing(chunks):
            async for chunk in chunks:
                if chunk.reasoning:
                    thought += chunk.reasoning
                    yield Message.reasoning(thought), False
                elif thought:
                    yield Message.reasoning(thought), True
                    thought = ""
                if chunk.text:
                    answer.write(chunk.text)
                    yield chunk.text
                calls += chunk.tool_calls
                _add_usage(chunk.usage or {})
        if thought:
            yield Message.reasoning(thought), True

    async def _use_all(self, calls: list[ChatMessage], results: list[ChatMessage]) -> None:
        """Run the calls concurrently. Set the content of each result as soon as its call has ended."""

        async def use(call: ChatMessage, result: ChatMessage) -> None:
            result["content"] = self._cut(await self._use(call["function"]))

        stopped = False
        try:
            async with trio.open_nursery() as nursery:
                for call, result in zip(calls, results, strict=True):
                    nursery.start_soon(use, call, result, name=f"tool {call['function']['name']}")
        except BaseExceptionGroup as group:
            if group.split(trio.Cancelled)[1] is not None:
                raise
            stopped = True
        if stopped:
            # If a stop cancels several tools, the nursery raises a group. Handlers expect a single Cancelled.
            await trio.lowlevel.checkpoint()

    async def _use(self, function: Mapping[str, str]) -> str:
        tool = self.tools.get(function["name"])
        if tool is None:
            return f"Error: there is no tool {function['name']!r}; there are: {', '.join(self.tools)}"
        return await tool.use(function["arguments"])

    def _cut(self, output: str) -> str:
        if len(output) <= self.max_output:
            return output
        return f"{output[: self.max_output]}\n[cut: the output has {len(output)} characters]"


def _called(call: ChatMessage) -> Message:
    data = {"call_id": call["id"], **call["function"]}
    return Message(type="plugin_call", content=[DataContent(data)])


def _answered(call: ChatMessage, result: ChatMessage) -> Message:
    data = {"call_id": call["id"], "name": call["function"]["name"], "output": result["content"]}
    return Message(role="tool", type="plugin_call_output", content=[DataContent(data)])


def _add_usage(usage: Mapping[str, Any]) -> None:
    run = current_run.get(None)
    if run is None or not usage:
        return
    total = dict(run.usage or {})
    for theirs, name in USAGE.items():
        count = usage.get(theirs)
        total[name] = total.get(name, 0) + (count if isinstance(count, int) else 0)
    run.usage = total
