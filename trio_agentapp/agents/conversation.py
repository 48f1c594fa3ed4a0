"""Conversations: lists of messages of chat completions, in plain JSON that any store can keep.

Each tool call gets a result at the moment it is added. So a conversation is always valid: a run may be stopped at
any time, and a server accepts the conversation that is saved then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from ..protocol.content import (
    AudioContent,
    Content,
    DataContent,
    FileContent,
    ImageContent,
    TextContent,
    payload_of,
)
from ..protocol.message import INTERRUPTED, OUTPUT_OF, Message
from .chunks import MALFORMED

__all__ = ["Answer", "ChatMessage", "chat_messages", "recent"]

ChatMessage: TypeAlias = dict[str, Any]
"""A message of OpenAI's chat completions: `role`, `content`, and `tool_calls` or `tool_call_id`."""

MAX_BYTES = 2 * 1024 * 1024
"""Limit of a conversation in bytes of JSON. Stores keep up to 4 MiB, and the next answer must fit, too."""

_NOT_OF_NAMES = re.compile(r"[^A-Za-z0-9_-]")
"""Characters that servers refuse in the name of a tool call."""


class Answer:
    """Adds one answer of a model to a conversation, piece by piece."""

    def __init__(self, conversation: list[ChatMessage]) -> None:
        self._conversation = conversation
        self._message: ChatMessage | None = None

    def write(self, text: str) -> None:
        """Append text."""
        message = self._begun("")
        message["content"] += text

    def call(self, calls: Iterable[ChatMessage]) -> list[ChatMessage]:
        """Add tool calls, and return their results. The caller sets the `content` of each result."""
        acceptable = [_acceptable(call) for call in calls]
        message = self._begun(None)
        message["tool_calls"] = acceptable
        results = [_result(call["id"]) for call in message["tool_calls"]]
        self._conversation += results
        return results

    def _begun(self, content: str | None) -> ChatMessage:
        if self._message is None:
            self._message = {"role": "assistant", "content": content}
            self._conversation.append(self._message)
        return self._message


def _result(call_id: str) -> ChatMessage:
    return {"role": "tool", "tool_call_id": call_id, "content": INTERRUPTED}


def _acceptable(call: ChatMessage) -> ChatMessage:
    """Return the call in a form that servers accept, also if the model has invented its name or arguments.

    Characters that names may not have are replaced. Arguments that are not a JSON object become an empty object.
    """
    function = call["function"]
    name = _NOT_OF_NAMES.sub("_", function["name"])[:64] or "unknown"
    arguments = function["arguments"]
    try:
        msgspec.json.decode(arguments, type=dict)
    except MALFORMED:
        arguments = "{}"
    return {**call, "function": {**function, "name": name, "arguments": arguments}}


def recent(conversation: Sequence[ChatMessage], limit: int) -> list[ChatMessage]:
    """Return the last turns that fit into `limit` messages and `MAX_BYTES`. The last turn is always included.

    A turn begins with a message of the user.
    """
    begins = [place for place, message in enumerate(conversation) if message["role"] == "user"]
    sizes = [len(msgspec.json.encode(message)) for message in conversation]
    fitting = [place for place in begins if len(conversation) - place <= limit and sum(sizes[place:]) <= MAX_BYTES]
    return [*conversation[(fitting or begins[-1:] or [0])[0] :]]


def chat_messages(messages: Iterable[Message]) -> list[ChatMessage]:
    """Convert messages of a request, or of a history, into a conversation.

    Reasoning and outputs without their calls are left out. So are messages of the role `system`, because a client
    must not change the instructions of the agent.
    """
    conversation: list[ChatMessage] = []
    results: dict[Any, ChatMessage] = {}
    for message in messages:
        data = _data_of(message)
        if message.type == "message" and message.role == "user":
            conversation.append({"role": "user", "content": _parts(message)})
        elif message.type == "message" and message.role == "assistant" and message.text:
            conversation.append({"role": "assistant", "content": message.text})
        elif message.type in OUTPUT_OF and data.get("call_id"):
            arguments = data.get("arguments") or "{}"
            if not isinstance(arguments, str):
                arguments = msgspec.json.encode(arguments).decode()
            function = {"name": str(data.get("name") or ""), "arguments": arguments}
            call = {"id": data["call_id"], "type": "function", "function": function}
            (results[data["call_id"]],) = Answer(conversation).call([call])
        elif message.type in OUTPUT_OF.values() and data.get("call_id") in results:
            output = data.get("output")
            text = output if isinstance(output, str) else msgspec.json.encode(output).decode()
            results[data["call_id"]]["content"] = text
    return conversation


def _data_of(message: Message) -> Mapping[str, Any]:
    found = [part.data for part in message.content if isinstance(part, DataContent)]
    return found[-1] if found and isinstance(found[-1], Mapping) else {}


def _parts(message: Message) -> str | list[dict[str, Any]]:
    if all(isinstance(part, TextContent) for part in message.content):
        return message.text
    return [_part(part) for part in message.content]


def _part(content: Content) -> dict[str, Any]:
    match content:
        case TextContent(text):
            return {"type": "text", "text": text}
        case ImageContent(url):
            return {"type": "image_url", "image_url": {"url": url}}
        case AudioContent(data, kind):
            return {"type": "input_audio", "input_audio": {"data": data, "format": kind or "wav"}}
        case FileContent(file_url=None):
            file = {name: value for name, value in payload_of(content).items() if value is not None}
            return {"type": "file", "file": file}
        case _:
            # Chat completions have no part of this type. The model gets it as text, such as the URL of a video.
            return {"type": "text", "text": msgspec.json.encode(payload_of(content)).decode()}
