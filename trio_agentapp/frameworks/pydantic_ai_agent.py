"""An agent of Pydantic AI as a ready agent: `AgentApp(agent=Agent(...))`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from pydantic_ai import DeferredToolRequests, DeferredToolResults, ToolDenied
from pydantic_ai.agent import AbstractAgent
from pydantic_ai.capabilities import ReinjectSystemPrompt
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    NativeToolCallPart,
    NativeToolReturnPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from ..abc.frameworks import AgentCopy
from ..errors import ConfigurationError
from ..protocol.message import INTERRUPTED

__all__ = ["RunCopy", "closed"]

DENIED = "This call was not approved."


class RunCopy(AgentCopy):
    """An agent and the messages of one session. Agents keep no messages themselves, so runs share them."""

    def __init__(self, agent: Any, state: Any, user_id: str, session_id: str) -> None:
        if not isinstance(agent, AbstractAgent):
            raise ConfigurationError(f"agent= must be an Agent, not a {type(agent).__name__}")
        if agent.deps_type not in (object, type(None)):
            raise ConfigurationError(
                f"agent= gives no deps, and this agent needs {agent.deps_type}; run it in a handler that passes "
                "deps=...: @app.query(framework='pydantic-ai')"
            )
        self._agent = agent
        # A JSON list, since joined text would not tell the pair "a/b", "c" from the pair "a", "b/c".
        self._conversation_id = json.dumps([user_id, session_id])
        saved = state or {}
        self._messages: list[ModelMessage] = ModelMessagesTypeAdapter.validate_python(saved.get("messages", []))
        self._deferred: dict[str, list[str]] | None = saved.get("deferred")
        self._events: Any = None
        self._prompts: list[UserPromptPart] = []
        """The user's prompts that came together with the results of deferred calls."""

    async def stream(self, messages: list[ModelMessage]) -> AsyncIterator[Any]:
        """Run the agent. Tool outputs among the messages answer deferred calls; `true` approves a call."""
        history, options = [*self._messages, *messages], {}
        if self._deferred is not None:
            history = self._messages
            prompts = self._prompts = _prompts_of(messages)
            options = {
                "deferred_tool_results": _results_of(self._deferred, messages),
                "user_prompt": _joined(prompts) if prompts else None,
            }
            # The answers are left out, because an approval is not the output of its call.
            messages = [ModelRequest(prompts)]
        self._messages = [*self._messages, *messages]
        # If there is a history, only this capability adds the system prompt of the agent.
        events = self._agent.run_stream_events(
            message_history=history,
            conversation_id=self._conversation_id,
            capabilities=[ReinjectSystemPrompt()],
            infer_name=False,
            **options,
        )
        async with events as self._events:
            async for event in self._events:
                yield event

    async def state(self) -> Any:
        state: dict[str, Any] = {}
        result = self._events.result if self._events is not None else None
        if result is not None and isinstance(result.output, DeferredToolRequests):
            messages = result.all_messages()
            state["deferred"] = {
                kind: [call.tool_call_id for call in getattr(result.output, kind)]
                for kind in ("approvals", "calls")
            }
        else:
            messages = closed(self._messages_after())
        state["messages"] = ModelMessagesTypeAdapter.dump_python(messages, mode="json", fallback=str)
        return state

    def _messages_after(self) -> list[ModelMessage]:
        """Return the messages after the run. If it made none, they are those that it was started with."""
        try:
            new = self._events.new_messages() if self._events is not None else []
        except UserError:  # the run has not begun
            new = []
        if not new:
            return self._messages
        messages: list[ModelMessage] = self._events.all_messages()
        if self._prompts and not _prompts_of(new):
            messages = [*messages, ModelRequest(self._prompts)]
        return messages


def closed(messages: Sequence[ModelMessage]) -> list[ModelMessage]:
    """Return the messages with a result for each open tool call. Calls with incomplete arguments are removed."""
    made: list[ModelMessage] = []
    for number, message in enumerate(messages):
        if isinstance(message, ModelRequest):
            if message.parts:
                made.append(replace(message, state="complete"))
            continue
        answered = _answered(messages[number + 1 :])
        native = {part.tool_call_id for part in message.parts if isinstance(part, NativeToolReturnPart)}
        parts, results = [], []
        for part in message.parts:
            if isinstance(part, NativeToolCallPart) and part.tool_call_id not in native:
                continue
            if isinstance(part, ToolCallPart) and part.tool_call_id not in answered:
                if _is_half(part):
                    continue
                results.append(
                    ToolReturnPart(part.tool_name, INTERRUPTED, part.tool_call_id, outcome="interrupted")
                )
            parts.append(part)
        if parts:
            made.append(replace(message, parts=parts))
        if results:
            made.append(ModelRequest(results))
    return made


def _request_parts(messages: Sequence[ModelMessage]) -> list[Any]:
    return [part for message in messages if isinstance(message, ModelRequest) for part in message.parts]


def _prompts_of(messages: Sequence[ModelMessage]) -> list[UserPromptPart]:
    return [part for part in _request_parts(messages) if isinstance(part, UserPromptPart)]


def _answered(following: Sequence[ModelMessage]) -> set[str]:
    """Return the ids of the calls that have a result before the next response."""
    ids = set()
    for message in following:
        if isinstance(message, ModelResponse):
            break
        ids |= {part.tool_call_id for part in message.parts if isinstance(part, ToolReturnPart)}
    return ids


def _is_half(part: Any) -> bool:
    try:
        json.loads(part.args if isinstance(part.args, str) else "{}")
    except ValueError:
        return True
    return False


def _results_of(deferred: dict[str, list[str]], messages: Sequence[ModelMessage]) -> Any:
    given = {
        part.tool_call_id: part.content for part in _request_parts(messages) if isinstance(part, ToolReturnPart)
    }
    return DeferredToolResults(
        calls={id: given.get(id, INTERRUPTED) for id in deferred["calls"]},
        approvals={id: _approval_of(given.get(id)) for id in deferred["approvals"]},
    )


def _approval_of(answer: Any) -> Any:
    if answer is True:
        return True
    return ToolDenied(answer if isinstance(answer, str) and answer else DENIED)


def _joined(prompts: Sequence[Any]) -> Any:
    """Join the contents of several prompts into one content."""
    if len(prompts) == 1:
        return prompts[0].content
    return [
        content
        for prompt in prompts
        for content in ([prompt.content] if isinstance(prompt.content, str) else prompt.content)
    ]
