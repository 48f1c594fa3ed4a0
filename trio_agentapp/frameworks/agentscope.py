"""Agents of agentscope 1.0: `Msg` objects in, `(Msg, last)` pairs out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from agentscope.message import Msg

from ..abc.frameworks import AgentCopy, FrameworkAdapter, ItemReader, TypeConverters
from ..errors import ItemError
from ..protocol.content import Content, TextContent
from ..protocol.message import OUTPUT_OF, Message
from .agentscope_agent import MemoryCopy
from .media import Media, text_or_media
from .tool_messages import call_message, data_of, object_of, output_message, text_of
from .untranslated import untranslated

__all__ = ["AgentScopeAdapter"]

CALLS = frozenset(OUTPUT_OF)
OUTPUTS = frozenset(OUTPUT_OF.values())


class AgentScopeAdapter(FrameworkAdapter):
    """Runs handlers that iterate over `stream_printing_messages`.

    A stop cancels the task in which the agent replies, as `agent.interrupt()` does, and waits for it: the partial
    answer is in the agent's memory when the handler's `except` and `finally` run.
    """

    name = "agentscope"
    stops_tasks_first = True

    def messages(self, messages: Sequence[Message]) -> list[Msg]:
        return [self._msg(message) for message in messages]

    def reader(self) -> ItemReader:
        return _Reader(self.type_converters)

    def open_agent(self, agent: Any, state: Any, *, user_id: str, session_id: str) -> AgentCopy:  # noqa: ARG002
        return MemoryCopy(agent, state)

    def _msg(self, message: Message) -> Msg:
        if (converter := self.type_converters.get(message.type)) is not None:
            converted: Msg = converter(message)
            return converted
        metadata = dict(message.metadata or {})
        role: Any = "system" if message.role == "tool" else message.role
        name = metadata.get("original_name") or message.extra.get("name") or message.role
        made = Msg(str(name), list(_blocks_of(message)), role, metadata=metadata)
        made.id = str(metadata.get("original_id") or message.id or made.id)
        return made


# In.


def _blocks_of(message: Message) -> Iterator[Any]:
    if message.type == "reasoning":
        yield {"type": "thinking", "thinking": message.text}
    elif message.type in CALLS:
        data = data_of(message)
        yield {
            "type": "tool_use",
            "id": data.get("call_id"),
            "name": data.get("name"),
            "input": object_of(data.get("arguments")),
        }
    elif message.type in OUTPUTS:
        data = data_of(message)
        output = data.get("output")
        output = output if _is_blocks(output) else text_of(output)
        yield {"type": "tool_result", "id": data.get("call_id"), "name": data.get("name", ""), "output": output}
    else:
        for part in message.content:
            yield _block_of(part)


def _is_blocks(output: Any) -> bool:
    return isinstance(output, list) and all(isinstance(block, dict) and "type" in block for block in output)


def _block_of(part: Content) -> dict[str, Any]:
    made = text_or_media(part)
    if isinstance(made, str):
        return {"type": "text", "text": made}
    source = (
        {"type": "url", "url": made.url}
        if made.url
        else {"type": "base64", "media_type": made.media_type, "data": made.data}
    )
    named = {"filename": made.filename} if made.kind == "file" else {}
    return {"type": made.kind, "source": source, **named}


# Out.


class _Reader(ItemReader):
    """Splits each Msg into messages of one kind each. A Msg is yielded again each time it has grown."""

    def __init__(self, converters: TypeConverters) -> None:
        self._converters = converters
        self._calls: dict[str, str] = {}
        self._complete: set[str] = set()

    def read(self, item: Any) -> Iterable[object]:
        last = True
        if isinstance(item, tuple):
            # With `yield_speech=True` the tuple has a third part: the speech audio of the text.
            item, last, *speech = item
            yield from self._read_msg(item, bool(last))
            if last and speech and speech[0]:
                for block in speech[0] if isinstance(speech[0], list) else [speech[0]]:
                    yield _media_of(block)
        elif isinstance(item, Msg):
            yield from self._read_msg(item, last)
        else:
            # Text, and our own messages and content, as in a handler without a framework.
            yield item

    def _read_msg(self, msg: Any, last: bool) -> Iterator[object]:
        if isinstance(msg, Message):
            yield (msg, last)
            return
        if not isinstance(msg, Msg):
            raise ItemError(f"a handler of agentscope yields (Msg, bool), not ({type(msg).__name__}, bool)")
        blocks = [{"type": "text", "text": msg.content}] if isinstance(msg.content, str) else msg.content
        for number, block in enumerate(blocks):
            key = f"{msg.id}-{number}" if number else msg.id
            if key in self._complete:
                continue
            # A block is complete when the next block has begun.
            whole = last or number < len(blocks) - 1
            yield from self._convert(block, msg, key, whole)
            if whole:
                self._complete.add(key)

    def _convert(self, block: Any, msg: Msg, key: str, whole: bool) -> Iterator[object]:
        kind = block.get("type")
        if (converter := self._converters.get(kind)) is not None:
            yield from converter(block)
            return
        metadata = {"original_id": msg.id, "original_name": msg.name, **(msg.metadata or {})}
        match kind:
            case "text" | "thinking":
                text = block.get(kind) or ""
                if text:
                    kind = "message" if kind == "text" else "reasoning"
                    yield (Message("assistant", kind, [TextContent(text)], key, metadata=metadata), whole)
            case "tool_use":
                if whole:
                    yield self._call_of(block, key, metadata)
            case "tool_result":
                if whole:
                    yield self._output_of(block, key, metadata)
            case "image" | "audio" | "video" | "file":
                if whole:
                    yield Message("assistant", "message", [_media_of(block)], key, metadata=metadata)
            case _:
                raise untranslated("agentscope", f"a block of type {kind!r}", repr(kind))

    def _call_of(self, block: Any, key: str, metadata: dict[str, Any]) -> Message:
        kind = "mcp_call" if block.get("tool_type") == "mcp" else "plugin_call"
        self._calls[block["id"]] = kind
        arguments = block.get("raw_input") or text_of(block.get("input") or {})
        label = {"server_label": block["server_label"]} if block.get("server_label") else {}
        return call_message(block["id"], block["name"], arguments, metadata, kind=kind, id=key, **label)

    def _output_of(self, block: Any, key: str, metadata: dict[str, Any]) -> Message:
        kind = OUTPUT_OF[self._calls.get(block["id"], "plugin_call")]
        output = text_of(block.get("output"))
        return output_message(block["id"], block.get("name"), output, metadata, kind=kind, id=key)


def _media_of(block: Any) -> Content:
    source = block.get("source") or {}
    url, data, media_type = source.get("url"), source.get("data"), source.get("media_type") or ""
    return Media(block["type"], url, data, media_type, block.get("filename")).content()
