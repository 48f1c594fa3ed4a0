"""Agents of agentscope 2: `Msg` objects in, what `Agent.reply_stream` yields out."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs
from agentscope.event import EventBase
from agentscope.message import (
    Base64Source,
    DataBlock,
    Msg,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    ToolCallState,
    ToolResultBlock,
    ToolResultState,
    URLSource,
)

from ..abc.frameworks import AgentCopy, FrameworkAdapter, ItemReader, TypeConverters
from ..protocol.content import Content, DataContent, TextContent
from ..protocol.message import OUTPUT_OF, Message
from .agentscope2_agent import StateCopy
from .media import Kind, Media, text_or_media
from .tool_messages import call_message, data_message, data_of, object_of, origin_of, output_message, text_of
from .untranslated import untranslated
from .usage import added

__all__ = ["AgentScope2Adapter"]

CALLS = frozenset(OUTPUT_OF)
OUTPUTS = frozenset(OUTPUT_OF.values())

SILENT = frozenset(
    {
        *("REPLY_START", "MODEL_CALL_START", "TEXT_BLOCK_START", "THINKING_BLOCK_START"),
        # Meant for the model only: the time, tasks, results of background tools.
        "HINT_BLOCK",
        # Not needed: REPLY_END has the reason, and the text before it states it too.
        "EXCEED_MAX_ITERS",
        # Input of the user, which the client has sent itself.
        *("USER_CONFIRM_RESULT", "USER_INTERRUPT", "EXTERNAL_EXECUTION_RESULT"),
    }
)
"""Types of events that are not sent to the client."""


class AgentScope2Adapter(FrameworkAdapter):
    """Runs handlers that iterate over `agent.reply_stream`.

    A stop is raised within `reply_stream`, which ends the model and the tools, and then writes the partial answer
    and a result for each open call into `agent.state`. At a `yield` of the handler it would reach only the handler.
    """

    name = "agentscope"
    stops_in_stream = True

    def messages(self, messages: Sequence[Message]) -> list[Msg]:
        """Convert the messages of a request.

        One assistant message has the reasoning, text, tool calls and results of a turn, as in `agent.state`.
        """
        made: list[Msg] = []
        for message in messages:
            if (converter := self.type_converters.get(message.type)) is not None:
                made.append(converter(message))
                continue
            msg = _msg_of(message)
            last = made[-1] if made else None
            if last is not None and last.role == msg.role == "assistant" and msg.name in (last.name, "tool"):
                last.content.extend(msg.content)
            else:
                made.append(msg)
        return made

    def reader(self) -> ItemReader:
        return _Reader(self.type_converters)

    def open_agent(self, agent: Any, state: Any, *, user_id: str, session_id: str) -> AgentCopy:  # noqa: ARG002
        return StateCopy(agent, state)


# In.


def _msg_of(message: Message) -> Msg:
    metadata = dict(message.metadata or {})
    name = metadata.get("original_name") or message.extra.get("name") or message.role
    id = metadata.get("original_id") or message.id
    # Messages of users and of the system have no other blocks than text and data.
    by_agent = message.role == "tool" or message.type in CALLS | OUTPUTS | {"reasoning"}
    return Msg(
        name=str(name),
        content=[*_blocks_of(message)],
        role="assistant" if by_agent else message.role,
        metadata=metadata,
        **({"id": str(id)} if id else {}),
    )


def _blocks_of(message: Message) -> Iterator[Any]:
    data = data_of(message)
    if message.type == "reasoning":
        yield ThinkingBlock(thinking=message.text)
    elif message.type in CALLS:
        arguments = text_of(object_of(data.get("arguments")))
        yield ToolCallBlock(
            id=str(data.get("call_id")),
            name=str(data.get("name")),
            input=arguments,
            state=ToolCallState.FINISHED,
        )
    elif message.type in OUTPUTS:
        yield ToolResultBlock(
            id=str(data.get("call_id")),
            name=str(data.get("name") or ""),
            output=text_of(data.get("output")),
            state=ToolResultState.SUCCESS,
        )
    else:
        for part in message.content:
            yield _block_of(part)


def _block_of(part: Content) -> Any:
    media = text_or_media(part)
    if isinstance(media, str):
        return TextBlock(text=media)
    source = (
        URLSource(url=media.url, media_type=media.media_type)
        if media.url
        else Base64Source(data=media.data or "", media_type=media.media_type)
    )
    return DataBlock(source=source, name=media.filename)


# Out.


@attrs.define
class _Call:
    """What a tool call, or its result, has streamed so far."""

    name: str | None
    text: str = ""
    blocks: list[dict[str, Any]] = attrs.Factory(list)
    """The data of a result, and the text that came before the data."""

    def take_text(self) -> None:
        if self.text:
            self.blocks.append({"type": "text", "text": self.text})
            self.text = ""

    @property
    def output(self) -> str:
        if not self.blocks:
            return self.text
        self.take_text()
        return text_of(self.blocks)


@attrs.define
class _Data:
    """The data that a block has streamed so far. Each delta is a complete base64 text."""

    media_type: str
    name: str | None
    url: str | None = None
    pieces: list[bytes] = attrs.Factory(list)


class _Reader(ItemReader):
    """Joins the events of each block. Events of tool calls that run in parallel may alternate."""

    def __init__(self, converters: TypeConverters) -> None:
        self._converters = converters
        self._names: dict[str, str] = {}
        """The name of the agent for each reply."""
        self._texts: dict[str, str] = {}
        self._data: dict[str, _Data] = {}
        self._calls: dict[str, _Call] = {}
        self._results: dict[str, _Call] = {}

    def read(self, item: Any) -> Iterable[object]:
        converter = self._converters.get(type(item))
        if converter is None and isinstance(item, EventBase):
            converter = self._converters.get(str(item.type)) or self._event
        elif converter is None and isinstance(item, Msg):
            converter = self._msg
        if converter is None:
            return (item,)
        made: Iterable[object] = converter(item)
        return made

    def end(self) -> Iterable[object]:
        """Complete the tool calls that were still open when the model was interrupted."""
        for id in [*self._calls]:
            yield self._call(id, {})

    def _event(self, event: Any) -> Iterator[object]:
        metadata = self._metadata_of(event)
        match event.type:
            case "REPLY_START":
                self._names[event.reply_id] = event.name
            case "REPLY_END":
                if event.error is not None:
                    yield Message("assistant", "error", code=str(event.error.type), message=event.error.message)
            case "MODEL_CALL_END":
                self._add_usage(event)
            case "TEXT_BLOCK_DELTA":
                yield self._grown("message", event.block_id, event.delta, metadata, last=False)
            case "THINKING_BLOCK_DELTA":
                yield self._grown("reasoning", event.block_id, event.delta, metadata, last=False)
            case "TEXT_BLOCK_END" | "THINKING_BLOCK_END":
                if self._texts.get(event.block_id):
                    kind = "message" if event.type == "TEXT_BLOCK_END" else "reasoning"
                    yield self._grown(kind, event.block_id, "", metadata, last=True)
            case "DATA_BLOCK_START" | "DATA_BLOCK_DELTA" | "DATA_BLOCK_END":
                yield from self._of_data(event, metadata)
            case "TOOL_CALL_START":
                self._calls[event.tool_call_id] = _Call(event.tool_call_name)
            case "TOOL_CALL_DELTA":
                self._calls[event.tool_call_id].text += event.delta
            case "TOOL_CALL_END":
                yield self._call(event.tool_call_id, metadata)
            case "TOOL_RESULT_START":
                self._results[event.tool_call_id] = _Call(event.tool_call_name)
            case "TOOL_RESULT_TEXT_DELTA" | "TOOL_RESULT_DATA_DELTA" | "TOOL_RESULT_END":
                yield from self._of_result(event, metadata)
            case "REQUIRE_USER_CONFIRM" | "REQUIRE_EXTERNAL_EXECUTION":
                calls = [data_of(call_message(call.id, call.name, call.input)) for call in event.tool_calls]
                yield data_message(
                    {"event": str(event.type), "reply_id": event.reply_id, "tool_calls": calls}, metadata
                )
            case "CUSTOM":
                yield data_message({"event": event.name, "value": event.value})
            case kind if kind not in SILENT:
                raise untranslated("agentscope", f"a {type(event).__name__}", repr(str(kind)))

    def _metadata_of(self, event: Any) -> dict[str, Any]:
        reply_id = getattr(event, "reply_id", None)
        return origin_of(reply_id, self._names.get(reply_id or ""))

    def _add_usage(self, event: Any) -> None:
        names = ("input_tokens", "output_tokens", "cache_input_tokens", "cache_creation_input_tokens")
        more = {name: getattr(event, name) for name in names}
        if any(more.values()):
            more["total_tokens"] = more["input_tokens"] + more["output_tokens"]
            self.usage = added(self.usage, more)

    def _grown(self, kind: str, id: str, delta: str, metadata: dict[str, Any], *, last: bool) -> object:
        text = self._texts.pop(id, "") + delta
        if not last:
            self._texts[id] = text
        return (Message("assistant", kind, [TextContent(text)], id, metadata=metadata), last)

    def _of_data(self, event: Any, metadata: dict[str, Any]) -> Iterator[object]:
        if event.type == "DATA_BLOCK_START":
            self._data[event.block_id] = _Data(event.media_type, event.name)
        elif event.type == "DATA_BLOCK_DELTA":
            data = self._data[event.block_id]
            data.url = event.url or data.url
            data.pieces.append(base64.b64decode(event.data or ""))
        else:
            data = self._data.pop(event.block_id)
            joined = base64.b64encode(b"".join(data.pieces)).decode()
            content = _media_content(data.media_type, data.url, joined, data.name)
            yield Message("assistant", "message", [content], event.block_id, metadata=metadata)

    def _call(self, id: str, metadata: dict[str, Any]) -> Message:
        call = self._calls.pop(id)
        return call_message(id, call.name, call.text, metadata)

    def _of_result(self, event: Any, metadata: dict[str, Any]) -> Iterator[object]:
        # The start of this result may have been streamed in an earlier run.
        result = self._results.setdefault(event.tool_call_id, _Call(None))
        if event.type == "TOOL_RESULT_TEXT_DELTA":
            result.text += event.delta
        elif event.type == "TOOL_RESULT_DATA_DELTA":
            result.take_text()
            source = {"type": "url", "url": event.url} if event.url else {"type": "base64", "data": event.data}
            result.blocks.append({"type": "data", "source": {**source, "media_type": event.media_type}})
        else:
            del self._results[event.tool_call_id]
            yield output_message(event.tool_call_id, result.name, result.output, metadata)

    def _msg(self, msg: Any) -> Iterator[object]:
        """Translate a Msg that `await agent.reply(...)` returned.

        If the events of that reply were streamed, only its structured output is new.
        """
        if msg.id not in self._names:
            for block in msg.content:
                yield from self._block(block, {"original_id": msg.id, "original_name": msg.name})
        if msg.structured_output is not None:
            yield DataContent(msg.structured_output)

    def _block(self, block: Any, metadata: dict[str, Any]) -> Iterator[object]:
        if (converter := self._converters.get(block.type)) is not None:
            yield from converter(block)
            return
        match block.type:
            case "text":
                yield Message("assistant", "message", [TextContent(block.text)], block.id, metadata=metadata)
            case "thinking":
                parts = [TextContent(block.thinking)]
                yield Message("assistant", "reasoning", parts, block.id, metadata=metadata)
            case "data":
                source = block.source
                url, data = getattr(source, "url", None), getattr(source, "data", None)
                content = _media_content(source.media_type, str(url) if url else None, data, block.name)
                yield Message("assistant", "message", [content], block.id, metadata=metadata)
            case "tool_call":
                yield call_message(block.id, block.name, block.input, metadata)
            case "tool_result":
                output = block.output
                if not isinstance(output, str):
                    output = text_of([each.model_dump(mode="json") for each in output])
                yield output_message(block.id, block.name, output, metadata)
            case kind if kind != "hint":
                raise untranslated("agentscope", f"a block of type {kind!r}", repr(kind))


def _media_content(media_type: str, url: str | None, data: str | None, name: str | None) -> Content:
    kind = media_type.partition("/")[0]
    known: Kind = kind if kind in ("image", "audio", "video") else "file"  # type: ignore[assignment]
    return Media(known, url, data, media_type, name).content()
