"""An agent of agentscope 1.0 as a ready agent: `AgentApp(agent=ReActAgent(...))`."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from types import MethodType
from typing import Any

from agentscope.agent import AgentBase
from agentscope.memory import LongTermMemoryBase, MemoryBase
from agentscope.message import Msg, ToolResultBlock
from agentscope.pipeline import stream_printing_messages
from agentscope.tool import Toolkit

from ..abc.frameworks import AgentCopy
from ..errors import ConfigurationError
from ..protocol.message import INTERRUPTED

__all__ = ["MemoryCopy"]

FIXED = frozenset({"name", "_sys_prompt"})
"""State that is not part of a conversation. It is not saved, so a change in the program takes effect."""


class MemoryCopy(AgentCopy):
    """An agent with the memory of one session. It shares the model, the formatter and the tool functions."""

    def __init__(self, agent: Any, state: Any) -> None:
        memory = getattr(agent, "memory", None)
        if not isinstance(agent, AgentBase) or not isinstance(memory, MemoryBase):
            raise _refusal(f"be a {type(agent).__name__}: it has no memory that can be copied")
        if set(memory.state_dict()) <= {"_compressed_summary"}:
            raise _refusal(f"have a {type(memory).__name__}: its messages are not in its state_dict()")
        if getattr(getattr(agent, "tts_model", None), "supports_streaming_input", False):
            raise _refusal(f"have a {type(agent.tts_model).__name__}: it speaks for one agent at a time")
        self._agent = _copy_of(agent)
        if state:
            self._agent.load_state_dict(state, strict=False)

    async def stream(self, messages: list[Msg]) -> AsyncIterator[Any]:
        stream = stream_printing_messages(agents=[self._agent], coroutine_task=self._agent(messages))
        async with aclosing(stream) as items:
            async for item in items:
                yield item

    async def state(self) -> Any:
        state = {name: value for name, value in self._agent.state_dict().items() if name not in FIXED}
        content = state["memory"].get("content")
        if isinstance(content, list):
            state["memory"]["content"] = _closed(content)
        return state


def _refusal(reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"agent= cannot {reason}. A handler makes an agent for each run: @app.query(framework='agentscope')"
    )


def _copy_of(agent: Any) -> Any:
    own = _shallow(agent)
    own._subscribers = {}  # a subscriber of the original would get the messages of all users
    copies: dict[int, Any] = {id(agent): own}
    for name, module in agent._module_dict.items():
        if isinstance(module, LongTermMemoryBase):
            raise _refusal(f"have a {type(module).__name__}: a long-term memory belongs to one user")
        copied = _shallow(module) if isinstance(module, Toolkit) else _deep(name, module)
        copies[id(module)] = copied
        setattr(own, name, copied)
    for toolkit in copies.values():
        if isinstance(toolkit, Toolkit):
            _take_tools(toolkit, copies)
    return own


def _shallow(module: Any) -> Any:
    """Copy an object, and each list, dict and set that is directly in it."""
    own = copy.copy(module)
    for name, value in vars(module).items():
        if isinstance(value, list | dict | set):
            vars(own)[name] = copy.copy(value)
    return own


def _deep(name: str, module: Any) -> Any:
    hooks = getattr(module, "_plan_change_hooks", {}).values()
    try:
        return copy.deepcopy(module, {id(hook): hook for hook in hooks})
    except Exception as error:
        raise _refusal(f"have a {type(module).__name__} as its {name}: it cannot be copied ({error})") from error


def _take_tools(toolkit: Any, copies: Mapping[int, Any]) -> None:
    """Detach a copied toolkit from the original: its groups are copied, and its methods are bound to the copies."""
    toolkit._async_tasks, toolkit._async_results = {}, {}
    toolkit.groups = {name: copy.copy(group) for name, group in toolkit.groups.items()}
    for name, tool in toolkit.tools.items():
        own = toolkit.tools[name] = copy.copy(tool)
        owner = copies.get(id(getattr(tool.original_func, "__self__", None)))
        if owner is not None:
            own.original_func = MethodType(tool.original_func.__func__, owner)


def _closed(content: list[Any]) -> list[Any]:
    """Return the messages with a result for each open tool call, after the results that the call's message has."""
    answered = {block["id"] for msg, _ in content for block in _blocks(msg, "tool_result")}
    closed: list[Any] = []
    missing: list[Any] = []
    for msg, marks in content:
        if not _blocks(msg, "tool_result"):
            closed += missing
            missing = []
        # A model that failed at once leaves a message without content. Such a message is dropped.
        if msg["content"]:
            closed.append([msg, marks])
        missing += [[_result_of(call), []] for call in _blocks(msg, "tool_use") if call["id"] not in answered]
    return [*closed, *missing]


def _blocks(msg: Mapping[str, Any], kind: str) -> list[Any]:
    content = msg["content"]
    return [] if isinstance(content, str) else [block for block in content if block.get("type") == kind]


def _result_of(call: Mapping[str, Any]) -> Any:
    block = ToolResultBlock(type="tool_result", id=call["id"], name=call["name"], output=INTERRUPTED)
    return Msg("system", [block], "system").to_dict()
