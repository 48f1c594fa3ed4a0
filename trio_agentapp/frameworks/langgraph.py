"""Graphs of LangGraph 1: converts messages, and translates what `astream(stream_mode="messages")` yields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.ai import add_usage

from ..abc.frameworks import AgentCopy, FrameworkAdapter, ItemReader, TypeConverters
from ..errors import ItemError
from ..protocol.content import Content, DataContent
from ..protocol.message import OUTPUT_OF, Message, Role
from .growing import GrowingAnswer
from .langgraph_agent import GraphCopy
from .langgraph_thread import StoreSaver
from .langgraph_turn import UnfinishedTurn
from .media import Media, text_or_media
from .tool_messages import call_message, data_message, data_of, object_of, origin_of, output_message, text_of
from .untranslated import untranslated

__all__ = ["LangGraphAdapter", "StoreSaver", "UnfinishedTurn"]

MODES = frozenset({"messages", "custom", "updates", "values"})
"""The stream modes whose items are translated, if `stream_mode` is a list."""

SPEAKERS: Mapping[str, Role] = {"human": "user", "system": "system", "developer": "system"}
"""The role of a message by its LangChain type, for types that no model writes."""

PARTS_OF_CALLS = frozenset({"tool_call", "tool_call_chunk", "invalid_tool_call"})
"""Types of content blocks that are skipped, because a chunk has the same data in `tool_call_chunks`."""


class LangGraphAdapter(FrameworkAdapter):
    """Runs handlers that iterate over `graph.astream(..., stream_mode="messages")`.

    A stop is raised within `astream`, which cancels its nodes and tools, and waits for them, before it reaches the
    handler. At a `yield` of the handler it would reach only the handler: `async for` leaves its iterator open.
    """

    name = "langgraph"
    stops_in_stream = True

    def messages(self, messages: Sequence[Message]) -> list[BaseMessage]:
        """Convert messages of a request. Model providers require one AIMessage with all tool calls of a turn."""
        made: list[BaseMessage] = []
        for message in messages:
            if (converter := self.type_converters.get(message.type)) is not None:
                made.append(converter(message))
            elif message.type in OUTPUT_OF:
                data = data_of(message)
                call = {
                    "id": data.get("call_id"),
                    "name": data.get("name"),
                    "args": object_of(data.get("arguments")),
                }
                if not made or type(made[-1]) is not AIMessage:
                    made.append(AIMessage(""))
                made[-1] = made[-1].model_copy(update={"tool_calls": [*made[-1].tool_calls, call]})
            else:
                made.append(_message_of(message))
        return made

    def reader(self) -> ItemReader:
        return _Reader(self.type_converters)

    def open_agent(self, agent: Any, state: Any, *, user_id: str, session_id: str) -> AgentCopy:
        return GraphCopy(agent, state, user_id, session_id)


# In.


def _message_of(message: Message) -> BaseMessage:
    metadata = message.metadata or {}
    given = {"id": metadata.get("original_id") or message.id, "name": metadata.get("original_name")}
    if message.type in OUTPUT_OF.values():
        data = data_of(message)
        output = text_of(data.get("output"))
        return ToolMessage(output, tool_call_id=str(data.get("call_id")), name=data.get("name"))
    content = _content_of(message)
    if message.role == "user":
        return HumanMessage(content, **given)
    if message.role in ("system", "tool"):
        return SystemMessage(content, **given)
    return AIMessage(content, **given)


def _content_of(message: Message) -> str | list[str | dict[str, Any]]:
    if message.type == "reasoning":
        return [{"type": "reasoning", "reasoning": message.text}]
    blocks = [_block_of(part) for part in message.content]
    if all(block["type"] == "text" for block in blocks):
        return "".join(block["text"] for block in blocks)
    return [*blocks]


def _block_of(part: Content) -> dict[str, Any]:
    """Return a standard content block of LangChain 1."""
    made = text_or_media(part)
    if isinstance(made, str):
        return {"type": "text", "text": made}
    source = {"url": made.url} if made.url else {"base64": made.data, "mime_type": made.media_type}
    extras = {"extras": {"filename": made.filename}} if made.filename else {}
    return {"type": made.kind, **source, **extras}


# Out.


@attrs.define
class _Turn(GrowingAnswer):
    """An AI message that is being streamed."""

    calls: AIMessageChunk | None = None
    """The joined chunks that have parts of tool calls."""


class _Reader(ItemReader):
    """Joins the chunks of each AI message. Chunks of messages that are written in parallel may alternate."""

    def __init__(self, converters: TypeConverters) -> None:
        self._converters = converters
        self._turns: dict[str, _Turn] = {}

    def read(self, item: Any) -> Iterable[object]:
        if not isinstance(item, tuple):
            return self._message(item) if isinstance(item, BaseMessage) else (item,)
        if item and isinstance(item[0], tuple):
            # With `subgraphs=True` the tuple begins with the path of the subgraph.
            item = item[1:] if len(item) == 3 else item[1]
        match item:
            case (BaseMessage() as message, Mapping() | bool()):
                return self._message(message)
            case (str() as mode, data) if mode in MODES:
                return self._of_mode(mode, data)
            case (Message(), bool()):
                return (item,)
        shown = ", ".join(type(part).__name__ for part in item) if isinstance(item, tuple) else type(item).__name__
        raise ItemError(
            f"a handler of langgraph yields what astream(stream_mode='messages') yields, not ({shown}); "
            f"of other stream modes only {', '.join(sorted(MODES))} are translated"
        )

    def end(self) -> Iterable[object]:
        """Send the tool calls of messages that were not completed."""
        for id in [*self._turns]:
            yield from self._complete(id)

    def _of_mode(self, mode: str, data: Any) -> Iterator[object]:
        if mode == "messages":
            yield from self.read(data)
        elif mode == "custom":
            converter = self._converters.get("custom")
            if converter is not None:
                yield from converter(data)
            else:
                yield data if isinstance(data, str | Content | Message) else DataContent(data)
        elif isinstance(data, Mapping):
            # The state repeats the messages that were streamed, so it is not sent.
            for interrupt in data.get("__interrupt__", ()):
                yield data_message({"interrupt": interrupt.value, "interrupt_id": interrupt.id})

    def _message(self, message: BaseMessage) -> Iterator[object]:
        if (converter := self._converters.get(type(message))) is not None:
            yield from converter(message)
        elif isinstance(message, ToolMessage):
            yield from self.end()
            output, metadata = text_of(message.content), _metadata_of(message)
            yield output_message(message.tool_call_id, message.name, output, metadata)
        elif isinstance(message, AIMessage):
            yield from self._ai(message)
        elif message.type in SPEAKERS:
            yield Message(SPEAKERS[message.type], content=str(message.text), metadata=_metadata_of(message))
        elif not isinstance(message, RemoveMessage):
            name = type(message).__name__
            raise untranslated("langgraph", f"a {name}", name)

    def _ai(self, message: AIMessage) -> Iterator[object]:
        # Chunks of one message have one id; a model that gives none writes one message at a time.
        id = message.id or ""
        metadata = _metadata_of(message)
        if (turn := self._turns.get(id)) is None:
            turn = self._turns[id] = _Turn(id or "text", metadata)
        turn.metadata = metadata
        if message.usage_metadata is not None:
            self.usage = dict(add_usage(self.usage, message.usage_metadata))
        if isinstance(message.content, str) and not message.additional_kwargs:
            yield from turn.say(message.content)
        else:
            for block in message.content_blocks:
                yield from self._block(turn, block, metadata)
        if not isinstance(message, AIMessageChunk):
            yield from self._complete(id)
            for call in (*message.tool_calls, *message.invalid_tool_calls):
                yield call_message(call["id"], call["name"], text_of(call["args"] or {}), metadata)
            return
        if message.tool_call_chunks:
            turn.calls = message if turn.calls is None else turn.calls + message
        if message.chunk_position == "last":
            yield from self._complete(id)

    def _block(self, turn: _Turn, block: Any, metadata: dict[str, Any]) -> Iterator[object]:
        kind = block["type"]
        if (converter := self._converters.get(kind)) is not None:
            yield from converter(block)
        elif kind == "text":
            yield from turn.say(block.get("text") or "")
        elif kind == "reasoning":
            yield from turn.reason(block.get("reasoning"))
        elif kind in ("image", "audio", "video", "file"):
            yield Message("assistant", "message", [_media_of(block)], metadata=metadata)
        elif kind not in PARTS_OF_CALLS:
            raise untranslated("langgraph", f"a block of type {kind!r}", repr(kind))

    def _complete(self, id: str) -> Iterator[object]:
        turn = self._turns.pop(id)
        yield from turn.complete()
        if turn.calls is not None:
            for chunk in turn.calls.tool_call_chunks:
                yield call_message(chunk["id"], chunk["name"], chunk["args"], turn.metadata)


def _metadata_of(message: BaseMessage) -> dict[str, Any]:
    return origin_of(message.id, message.name)


def _media_of(block: Mapping[str, Any]) -> Content:
    name = (block.get("extras") or {}).get("filename")
    return Media(
        block["type"], block.get("url"), block.get("base64"), str(block.get("mime_type") or ""), name
    ).content()
