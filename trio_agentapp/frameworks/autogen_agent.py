"""An agent or a team of AutoGen as a ready agent: `AgentApp(agent=...)`."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import attrs
from autogen_agentchat.agents import BaseChatAgent
from autogen_agentchat.base import Response
from autogen_agentchat.messages import ModelClientStreamingChunkEvent, TextMessage, ToolCallRequestEvent
from autogen_agentchat.teams import BaseGroupChat
from autogen_agentchat.tools import AgentTool, TeamTool
from autogen_core import SingleThreadedAgentRuntime
from autogen_core.code_executor import CodeExecutor
from autogen_core.models import (
    AssistantMessage,
    ChatCompletionClient,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
)
from autogen_core.tools import BaseTool, StaticWorkbench, Workbench

from ..abc.frameworks import AgentCopy
from ..errors import ConfigurationError
from ..protocol.message import INTERRUPTED
from .autogen_stop import StopToken
from .items import current_items
from .reasoning import parts_of

__all__ = ["AutoGenCopy"]

SHARED = (ChatCompletionClient, BaseTool, Workbench, CodeExecutor)
"""Classes of objects that all copies of an agent share. They hold connections, and no conversation."""

COPIED = (AgentTool, TeamTool, StaticWorkbench)
"""Classes of tools that contain an agent, and of the workbench that contains tools. They are copied."""

ATOMS = (type, FunctionType, BuiltinFunctionType, ModuleType, str, bytes)


class AutoGenCopy(AgentCopy):
    """A copy of an agent or a team, with the state of one session.

    The state is what `save_state()` returns. AutoGen adds only complete answers to it. After a stop or an error
    this class adds the rest: the partial answer, results of open tool calls, and, for the other agents of a team,
    the messages that they have not received.
    """

    def __init__(self, agent: Any, state: Any) -> None:
        if not isinstance(agent, BaseChatAgent | BaseGroupChat):
            raise ConfigurationError(f"agent= must be an agent or a team of AutoGen, not a {type(agent).__name__}")
        self._agent: Any = _copy_of(agent)
        self._saved = state
        self._loaded = False
        self._given: Sequence[Any] = ()
        self._turns: dict[Any, _Turn] = {}
        self._watch(self._agent)

    async def stream(self, messages: Any) -> AsyncIterator[Any]:
        if self._saved is not None:
            await self._agent.load_state(self._saved)
        self._loaded = True
        self._given = messages
        token = StopToken()
        current_items.get().call.on_stop(token.stop)
        async with aclosing(self._agent.run_stream(task=messages, cancellation_token=token)) as stream:
            async for item in stream:
                yield item

    async def state(self) -> Any:
        if not self._loaded:
            return self._saved
        # `save_state` returns objects that the agent still uses. The copy of JSON values can be changed.
        state = json.loads(json.dumps(await self._agent.save_state()))
        if isinstance(self._agent, BaseGroupChat):
            self._complete_team(self._agent, state, [message.dump() for message in self._given])
        else:
            self._complete(self._agent, state)
        return state

    # The messages of the agents.

    def _watch(self, agent: Any) -> None:
        """Record the messages that an agent, or each agent of a team, receives and sends."""
        if isinstance(agent, BaseGroupChat):
            for participant in agent._participants:
                self._watch(participant)
            method = "run_stream"
        else:
            method = "on_messages_stream"
        turn = self._turns[agent] = _Turn()
        setattr(agent, method, turn.noting(agent.name, getattr(agent, method)))

    def _complete(self, agent: Any, state: Any) -> list[Mapping[str, Any]]:
        """Complete the state of an agent after its last turn. Returns the answer that its team may not have."""
        turn = self._turns[agent]
        parts = parts_of(turn.text)
        context = state.get("llm_context", {}).get("messages")
        if context is not None and (open_calls := _open_calls(context)):
            results = [
                FunctionExecutionResult(content=INTERRUPTED, name=call["name"], call_id=call["id"], is_error=True)
                for call in open_calls
            ]
            context.append(FunctionExecutionResultMessage(content=results).model_dump(mode="json"))
        if turn.is_open and parts.text:
            answer = AssistantMessage(content=parts.text, thought=parts.reasoning or None, source=agent.name)
            if context is not None:
                context.append(answer.model_dump(mode="json"))
            return [TextMessage(content=parts.text, source=agent.name).dump()]
        return [turn.answer.dump()] if turn.answer is not None else []

    def _complete_team(self, team: Any, state: Any, given: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Complete the state of a team. Returns the messages that its own team may not have.

        Messages that an agent has not read are put into the agent's message buffer.
        """
        states = state["agent_states"]
        thread = states[team._group_chat_manager_name]["message_thread"]
        said: list[tuple[Any, Mapping[str, Any]]] = [(None, message) for message in given]
        for participant in team._participants:
            kept, turn = states[participant.name], self._turns[participant]
            if isinstance(participant, BaseGroupChat):
                new = self._complete_team(participant, kept["agent_state"], [])
            else:
                new = self._complete(participant, kept["agent_state"])
            said += [(participant, message) for message in new]
            # AutoGen clears the buffer only when a turn is complete.
            kept["message_buffer"] = [each for each in kept["message_buffer"] if each["id"] not in turn.read]
        known = {message["id"] for message in thread}
        unknown = [(speaker, message) for speaker, message in said if message["id"] not in known]
        for speaker, message in unknown:
            thread.append(message)
            for participant in team._participants:
                buffer = states[participant.name]["message_buffer"]
                ids = self._turns[participant].read.union(each["id"] for each in buffer)
                if participant is not speaker and message["id"] not in ids:
                    buffer.append(message)
        return [message for speaker, message in unknown if speaker is not None]


@attrs.define
class _Turn:
    """The last turn of an agent or team."""

    is_open: bool = False
    text: str = ""
    """What the model has written since the last message that is in the agent's memory."""
    answer: Any = None
    read: set[str] = attrs.field(factory=set)
    """The ids of all messages that the agent or team has received."""

    def noting(self, name: str, stream: Any) -> Any:
        """Wrap `stream`, the method that runs one turn, so that this object records its messages."""

        async def noted(*args: Any, **options: Any) -> AsyncIterator[Any]:
            messages = options["task"] if "task" in options else args[0]
            self.read.update(message.id for message in messages)
            self.is_open, self.text, self.answer = True, "", None
            async for event in stream(*args, **options):
                if isinstance(event, Response):
                    self.is_open, self.answer = False, event.chat_message
                elif isinstance(event, ModelClientStreamingChunkEvent) and event.source == name:
                    self.text += event.content
                elif isinstance(event, ToolCallRequestEvent) and event.source == name:
                    self.text = ""
                yield event

        return noted


def _open_calls(context: list[Any]) -> list[Any]:
    """Return the tool calls of the last message. They are open: results would have followed in a later message."""
    last = context[-1] if context else {}
    return last["content"] if last.get("type") == "AssistantMessage" and isinstance(last["content"], list) else []


# Copies.


def _copy_of(agent: Any) -> Any:
    memo: dict[int, Any] = {}
    _note_shared(agent, memo, set())
    try:
        copied = copy.deepcopy(agent, memo)
    except Exception as error:
        raise ConfigurationError(
            f"agent= cannot be this {type(agent).__name__}, because a copy for each run cannot be made ({error}); "
            "make it in a handler: @app.query(framework='autogen')"
        ) from error
    return copied


def _note_shared(value: Any, memo: dict[int, Any], seen: set[int]) -> None:
    """Fill the memo of `deepcopy`: shared objects stand for themselves, and runtimes and queues get new ones.

    All objects that can be reached from `value` are visited.
    """
    if id(value) in seen or isinstance(value, ATOMS):
        return
    seen.add(id(value))
    if isinstance(value, MethodType) or (isinstance(value, SHARED) and not isinstance(value, COPIED)):
        memo[id(value)] = value
        return
    if isinstance(value, BaseGroupChat):
        if not value._embedded_runtime:
            raise ConfigurationError(
                "agent= cannot be a team with a runtime of its own, which its copies would share; "
                "make the team without runtime=, or in a handler: @app.query(framework='autogen')"
            )
        if value._initialized:
            raise ConfigurationError("agent= must be a team that has not run yet")
        memo[id(value._runtime)] = SingleThreadedAgentRuntime(ignore_unhandled_exceptions=False)
        memo[id(value._output_message_queue)] = asyncio.Queue()
    if isinstance(value, Mapping):
        within = list(value.values())
    elif isinstance(value, list | tuple | set | frozenset):
        within = list(value)
    else:
        within = list(getattr(value, "__dict__", {}).values())
    for each in within:
        if id(each) not in memo:
            _note_shared(each, memo, seen)
