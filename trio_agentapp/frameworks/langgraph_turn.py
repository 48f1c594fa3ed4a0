"""Collects what is in no checkpoint when a turn of LangGraph is stopped: partial answers and open tool calls."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage

from ..protocol.message import INTERRUPTED

__all__ = ["UnfinishedTurn"]


class UnfinishedTurn:
    """Collects the text of messages that are being written, and closes tool calls that have no result."""

    def __init__(self) -> None:
        self._partial: dict[str, str] = {}
        """The text so far of each message that is being written, by message id."""

    def note(self, message: Any) -> None:
        """Record a message or a chunk of `stream_mode="messages"`. Objects of other types are ignored."""
        if isinstance(message, AIMessageChunk):
            id = message.id or ""
            if message.chunk_position == "last":
                self._partial.pop(id, None)
            elif text := str(message.text):
                self._partial[id] = self._partial.get(id, "") + text

    def rest(self, state: Any, waiting: list[BaseMessage] | None = None) -> list[BaseMessage]:
        """Return the messages to add to the thread so that a model provider accepts it in the next turn.

        These are results for open tool calls, and the partial answer. The list is empty if the graph waits because
        of `interrupt()`. Pass them to `aupdate_state` with `as_node=START`, because edges of other nodes may not
        expect them.

        Args:
            state: the result of `aget_state` of the graph.
            waiting: messages that come after those of the state and are not in a checkpoint.
        """
        if state.interrupts:
            return []
        messages = state.values.get("messages", []) if isinstance(state.values, Mapping) else []
        ids = {message.id for message in messages}
        results = [_result_of(call) for call in _open_calls([*messages, *(waiting or ())])]
        partial = [AIMessage(text, id=id or _new_id()) for id, text in self._partial.items() if id not in ids]
        return [*results, *partial]


def _result_of(call: Any) -> ToolMessage:
    return ToolMessage(INTERRUPTED, tool_call_id=call["id"], name=call["name"], status="error", id=_new_id())


def _new_id() -> str:
    return str(uuid.uuid4())


def _open_calls(messages: list[BaseMessage]) -> list[Any]:
    answered = {message.tool_call_id for message in messages if isinstance(message, ToolMessage)}
    calls = [call for message in messages if isinstance(message, AIMessage) for call in message.tool_calls]
    return [call for call in calls if call["id"] not in answered]
