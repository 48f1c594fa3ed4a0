"""An agent of agentscope 2 as a ready agent: `AgentApp(agent=Agent(...))`."""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from agentscope.agent import Agent
from agentscope.event import (
    ConfirmResult,
    ExternalExecutionResultEvent,
    UserConfirmResultEvent,
    UserInterruptEvent,
)
from agentscope.message import Msg, TextBlock, ToolCallState, ToolResultBlock, ToolResultState
from agentscope.permission import PermissionEngine
from agentscope.state import AgentState

from ..abc.frameworks import AgentCopy
from ..errors import ConfigurationError
from ..protocol.message import INTERRUPTED

__all__ = ["StateCopy"]


class StateCopy(AgentCopy):
    """An agent with the state of one session. It shares the model, tools, middlewares and offloader.

    The toolkit is a copy with the same tools, because an agent adds tools of its own to it while it replies.
    """

    def __init__(self, agent: Any, state: Any) -> None:
        if not isinstance(agent, Agent):
            raise ConfigurationError(
                f"agent= must be an agentscope.agent.Agent, not a {type(agent).__name__}; "
                "run others in a handler: @app.query(framework='agentscope')"
            )
        own = self._agent = copy.copy(agent)
        if state:
            own.state = AgentState.model_validate(state)
        else:
            # The offloader stores results under the session id, so each session needs an id of its own.
            own.state = agent.state.model_copy(update={"session_id": uuid.uuid4().hex}, deep=True)
        own._engine = PermissionEngine(own.state.permission_context)
        own.toolkit = _copy_of_toolkit(agent.toolkit)
        own._compression_tool = copy.copy(agent._compression_tool)
        own._compression_tool._func = own._compress_context_tool
        # `stream` may call `reply_stream` several times. A stop must end all of it, so it is raised.
        own.react_config = agent.react_config.model_copy(update={"interruption_raise_cancelled_error": True})
        self._partial = ""
        """The text of a model call that has not ended."""

    async def stream(self, messages: list[Msg]) -> AsyncIterator[Any]:
        """Run the agent. Tool calls that wait for the user are answered from `messages`, or are interrupted."""
        own = self._agent
        waiting = {call.id: call for call in own.state.get_awaiting_tool_calls(own.name)}
        if waiting:
            answers = _answers(messages, waiting, own.state.reply_id)
            for event in answers or (UserInterruptEvent(reply_id=own.state.reply_id),):
                async for item in self._reply(event):
                    yield item
            if answers:
                return
        # Agentscope accepts only text and data as input. Earlier messages of other kinds go into the agent's state.
        known = max((place for place, msg in enumerate(messages, 1) if not _is_input(msg)), default=0)
        own.state.context.extend(messages[:known])
        async for item in self._reply(messages[known:] or None):
            yield item

    async def _reply(self, inputs: Any) -> AsyncIterator[Any]:
        async with aclosing(self._agent.reply_stream(inputs)) as events:
            async for event in events:
                if event.type == "TEXT_BLOCK_DELTA":
                    self._partial += event.delta
                elif event.type == "MODEL_CALL_END":
                    self._partial = ""  # the agent's own state has the text now
                yield event

    async def state(self) -> Any:
        own = self._agent
        if self._partial:
            own.state.append_context(own.name, [TextBlock(text=self._partial)])
        context = own.state.context
        for msg in context[:-1] if own.state.has_awaiting_tool_calls(own.name) else context:
            _close_calls(msg)
        return own.state.model_dump(mode="json")


def _copy_of_toolkit(toolkit: Any) -> Any:
    own = copy.copy(toolkit)
    own.tool_groups = [copy.copy(group) for group in toolkit.tool_groups]
    for group in own.tool_groups:
        group.tools = [*group.tools]
    return own


def _is_input(msg: Msg) -> bool:
    return msg.role != "system" and not msg.has_content_blocks(["tool_call", "tool_result", "thinking"])


def _answers(messages: list[Msg], waiting: dict[str, Any], reply_id: str) -> list[Any]:
    """Return events that answer waiting calls: tool results, or `{"confirmed": {call_id: true or false}}`."""
    asked = {id for id, call in waiting.items() if call.state == ToolCallState.ASKING}
    results = [
        block
        for msg in messages
        for block in msg.get_content_blocks("tool_result")
        if block.id in waiting.keys() - asked
    ]
    confirmed = [
        ConfirmResult(confirmed=yes, tool_call=waiting[id])
        for msg in messages
        for id, yes in _confirmed(msg).items()
        if id in asked and isinstance(yes, bool)
    ]
    events: list[Any] = []
    if results:
        events.append(ExternalExecutionResultEvent(reply_id=reply_id, execution_results=results))
    if confirmed:
        events.append(UserConfirmResultEvent(reply_id=reply_id, confirm_results=confirmed))
    return events


def _confirmed(msg: Msg) -> dict[str, Any]:
    try:
        said = json.loads(msg.get_text_content() or "")["confirmed"]
    except (ValueError, TypeError, KeyError):
        return {}
    return said if isinstance(said, dict) else {}


def _close_calls(msg: Msg) -> None:
    """Give each open call a result. Arguments that were cut off are replaced by an empty object."""
    answered = {block.id for block in msg.get_content_blocks("tool_result")}
    for call in msg.get_content_blocks("tool_call"):
        try:
            json.loads(call.input)
        except ValueError:
            call.input = "{}"
        if call.id not in answered:
            call.state = ToolCallState.FINISHED
            state = ToolResultState.INTERRUPTED
            msg.content.append(ToolResultBlock(id=call.id, name=call.name, output=INTERRUPTED, state=state))
