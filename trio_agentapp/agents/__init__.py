"""Agents without a framework: a model, tools, and a loop. Kept small, so that users can copy and change it.

    model           `ChatModel`, a client of any server with OpenAI's chat completions
    chunks          `Chunk`, a piece of an answer
    tools           `Tool`: a function, its JSON schema, and its call
    conversation    messages in the form that the model gets; always accepted by a server
    agent           `Agent`, the loop; a handler, a tool of another agent, or a function to call

It uses only public parts of the package. Names are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy_names import lazy_names

if TYPE_CHECKING:
    from ..errors import ModelError, TurnLimitReached
    from .agent import Agent
    from .chunks import Chunk
    from .conversation import chat_messages
    from .model import ChatModel
    from .tools import Tool, tool

__all__ = ["Agent", "ChatModel", "Chunk", "ModelError", "Tool", "TurnLimitReached", "chat_messages", "tool"]

_HOMES = {
    "Agent": "agent",
    "ChatModel": "model",
    "Chunk": "chunks",
    "ModelError": ".errors",
    "Tool": "tools",
    "TurnLimitReached": ".errors",
    "chat_messages": "conversation",
    "tool": "tools",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
