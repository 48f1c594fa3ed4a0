"""Agents of the OpenAI Agents SDK: converts messages to input items, and translates `stream_events()`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import attrs
from agents import AgentUpdatedStreamEvent, RawResponsesStreamEvent, RunItemStreamEvent
from agents.items import CompactionItem, InputItem, RunItemBase, ToolApprovalItem

from ..abc.frameworks import AgentCopy, FrameworkAdapter, ItemReader, TaskStop, TypeConverters
from ..errors import ItemError
from ..protocol.content import (
    AudioContent,
    Content,
    DataContent,
    FileContent,
    ImageContent,
    RefusalContent,
    TextContent,
    VideoContent,
)
from ..protocol.message import OUTPUT_OF, Message
from .media import text_or_media
from .openai_agent import OpenAIAgentCopy, plain_of
from .tool_messages import call_message, data_message, data_of, origin_of, output_message, text_of
from .untranslated import untranslated
from .usage import added

__all__ = ["OpenAIAgentsAdapter"]

MCP = frozenset({"mcp_list_tools", "mcp_approval_request", "mcp_approval_response"})
"""Types of items of hosted MCP servers. They become messages of the same type."""

DELTAS: Mapping[str, tuple[Literal["message", "reasoning"], type[TextContent | RefusalContent]]] = {
    "response.output_text.delta": ("message", TextContent),
    "response.refusal.delta": ("message", RefusalContent),
    "response.reasoning_summary_text.delta": ("reasoning", TextContent),
    "response.reasoning_text.delta": ("reasoning", TextContent),
}
"""For each type of raw event with text: the type of the message, and the class of its content."""

BOUNDS = frozenset({"response.created", "response.completed", "response.incomplete", "response.failed"})
"""Raw events that begin or end a response. No item is open at them. After a failure the SDK may try again."""

CALLS: Mapping[str, tuple[str, ...]] = {
    "function_call": (),
    "custom_tool_call": ("input",),
    "computer_call": ("action", "actions"),
    "shell_call": ("action",),
    "local_shell_call": ("action",),
    "apply_patch_call": ("operation",),
    "tool_search_call": ("arguments",),
    "program": ("code",),
    "web_search_call": ("action",),
    "file_search_call": ("queries",),
    "code_interpreter_call": ("code",),
    "image_generation_call": ("action", "revised_prompt"),
}
"""For each type of item that calls a tool: the fields that are its arguments."""

RESULTS: Mapping[str, tuple[str, ...]] = {
    "web_search_call": ("status",),
    "file_search_call": ("results", "status"),
    "code_interpreter_call": ("outputs", "status"),
    "image_generation_call": ("error", "status"),
}
"""For each tool that the model provider runs: the fields of its result. The first one with a value is used."""

OUTPUTS: Mapping[str, str] = {
    "function_call_output": "output",
    "custom_tool_call_output": "output",
    "computer_call_output": "output",
    "shell_call_output": "output",
    "local_shell_call_output": "output",
    "apply_patch_call_output": "output",
    "tool_search_output": "tools",
    "program_output": "result",
}
"""For each type of item with the output of a tool: the field that has the output."""

IGNORED = frozenset({"compaction", "additional_tools"})
"""Types of items that only the model provider uses. They are not sent."""


class OpenAIAgentsAdapter(FrameworkAdapter):
    """Runs handlers that iterate over `Runner.run_streamed(...).stream_events()`.

    The SDK runs its agent, and each tool, in asyncio tasks beside the handler. `stream_events` does not wait for
    them when it is cancelled. So a stop ends these tasks first, and is then raised within `stream_events`.
    """

    name = "openai-agents"
    stops_tasks_first = True
    stops_in_stream = True

    def at_stop(self, task: Any) -> TaskStop:  # noqa: ARG002
        """Cancel outer tasks first. The SDK then cancels most tasks of tools itself."""
        return "cancel_last"

    def messages(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = []
        for message in messages:
            converter = self.type_converters.get(message.type)
            made.append(_input_item(message) if converter is None else converter(message))
        return made

    def reader(self) -> ItemReader:
        return _Reader(self.type_converters)

    def open_agent(self, agent: Any, state: Any, **_ids: str) -> AgentCopy:
        return OpenAIAgentCopy(agent, state)


# In.


def _input_item(message: Message) -> dict[str, Any]:
    data = data_of(message)
    if message.type in OUTPUT_OF:
        call = {"call_id": data.get("call_id"), "name": data.get("name")}
        return {"type": "function_call", **call, "arguments": text_of(data.get("arguments") or {})}
    if message.type in OUTPUT_OF.values():
        output = text_of(data.get("output"))
        return {"type": "function_call_output", "call_id": data.get("call_id"), "output": output}
    if message.type in MCP:
        return {"type": message.type, **data}
    if message.type == "reasoning":
        # Without its id, because the provider refuses a known item that is followed by a different one.
        return {"type": "reasoning", "summary": [{"type": "summary_text", "text": message.text}]}
    if message.role == "user":
        return {"role": "user", "content": [_input_part(part) for part in message.content]}
    # Providers accept media from users only.
    texts = [part["text"] for part in map(_input_part, message.content) if part["type"] == "input_text"]
    return {"role": "assistant" if message.role == "assistant" else "system", "content": "".join(texts)}


def _input_part(part: Content) -> dict[str, Any]:
    match part:
        case TextContent(text=text) | RefusalContent(refusal=text):
            return {"type": "input_text", "text": text}
        case DataContent(data=data):
            return {"type": "input_text", "text": text_of(data)}
        case ImageContent(image_url=url):
            return {"type": "input_image", "image_url": _url_of(url, "image/png"), "detail": "auto"}
        case AudioContent(data=data, format=form):
            audio = {"data": data.rpartition(",")[2], "format": form or "wav"}
            return {"type": "input_audio", "input_audio": audio}
        case FileContent(file_url=url, file_id=id, filename=name, file_data=data):
            given = {
                "file_url": url,
                "file_id": id,
                "filename": name,
                "file_data": data and _url_of(data, "application/octet-stream"),
            }
            return {"type": "input_file", **{key: value for key, value in given.items() if value}}
        case VideoContent():
            raise ItemError(
                "the Responses API takes no video; convert the message: "
                "query(framework='openai-agents', type_converters={'message': function})"
            )


def _url_of(value: str | None, media_type: str) -> str:
    """Return a URL unchanged, and base64 text as a `data:` URL."""
    value = value or ""
    return value if ":" in value else f"data:{media_type};base64,{value}"


# Out.


@attrs.define
class _Growing:
    """An item that is being streamed: its contents by kind and index."""

    kind: Literal["message", "reasoning"]
    id: str
    parts: dict[tuple[str, int], TextContent | RefusalContent] = attrs.field(factory=dict)


class _Reader(ItemReader):
    """Translates raw events and run items. A run item repeats an item that raw events have shown already."""

    def __init__(self, converters: TypeConverters) -> None:
        self._converters = converters
        self._growing: dict[tuple[str, int], _Growing] = {}
        """Items by id and index in the response, because some models give all items the same id."""
        self._shown: Counter[tuple[str, str, str]] = Counter()
        """Counts the items that raw events have shown. The run item that follows each of them is skipped."""
        self._names: dict[str, str] = {}
        """Names of tools, by the ids of their calls."""
        self._agent: str | None = None

    def read(self, item: Any) -> Iterator[object]:
        if (converter := self._converters.get(type(item))) is not None:
            yield from converter(item)
        elif isinstance(item, RawResponsesStreamEvent):
            yield from self._raw(item.data)
        elif isinstance(item, RunItemStreamEvent):
            yield from self._run_item(item.item)
        elif isinstance(item, RunItemBase):
            yield from self._run_item(item)
        elif isinstance(item, AgentUpdatedStreamEvent):
            self._agent = item.new_agent.name
        elif isinstance(item, str | Message | Content | Mapping | tuple | None):
            yield item
        else:
            raise untranslated("openai-agents", f"a {type(item).__name__}", type(item).__name__)

    def end(self) -> Iterator[object]:
        """Complete the texts of items that were not completed."""
        for key in [*self._growing]:
            yield self._close(key, None)

    # Raw events.

    def _raw(self, event: Any) -> Iterator[object]:
        kind = event.type
        if (converter := self._converters.get(kind)) is not None:
            yield from converter(event)
        elif kind in DELTAS:
            yield from self._grown(event)
        elif kind == "response.output_item.done":
            yield from self._item(event.item, raw=True, place=event.output_index)
        elif kind in BOUNDS:
            if event.response.usage is not None:
                self.usage = added(self.usage, plain_of(event.response.usage))
            yield from self.end()

    def _grown(self, event: Any) -> Iterator[object]:
        kind, content = DELTAS[event.type]
        if not event.delta:
            return
        growing = self._growing.setdefault((event.item_id, event.output_index), _Growing(kind, event.item_id))
        index = event.summary_index if "summary" in event.type else event.content_index
        part = growing.parts.get((event.type, index))
        growing.parts[event.type, index] = content(f"{text_or_media(part) if part else ''}{event.delta}")
        yield (self._text(kind, growing.id, [*growing.parts.values()]), False)

    def _close(self, key: tuple[str, int], whole: list[Content] | None) -> tuple[Message, bool]:
        growing = self._growing.pop(key)
        content: list[Content] = whole or [*growing.parts.values()]
        if whole is None:
            self._shown[growing.kind, growing.id, _joined(content)] += 1
        return (self._text(growing.kind, growing.id, content), True)

    # Items.

    def _run_item(self, item: Any) -> Iterator[object]:
        if (converter := self._converters.get(type(item))) is not None:
            yield from converter(item)
        elif isinstance(item, ToolApprovalItem):
            waiting = {"interrupt": {"name": item.name, "arguments": item.arguments}, "interrupt_id": item.call_id}
            yield data_message(waiting)
        elif not isinstance(item, CompactionItem | InputItem):
            yield from self._item(item.raw_item, raw=False)

    def _item(self, given: Any, *, raw: bool, place: int = 0) -> Iterator[object]:
        item = plain_of(given)
        kind, id = item["type"], item.get("call_id") or item.get("id") or ""
        content = _contents(item) if kind in ("message", "reasoning") else []
        shown = (kind, id, _joined(content))
        if raw:
            self._shown[shown] += 1
        elif self._shown[shown]:
            self._shown[shown] -= 1
            return
        if (converter := self._converters.get(type(given))) is not None:
            yield from converter(given)
        elif kind in ("message", "reasoning"):
            if (id, place) in self._growing and raw:
                yield self._close((id, place), content)
            elif content:
                yield self._text(kind, id, content)
        elif kind in CALLS:
            yield from self._call(kind, id, item)
        elif kind in OUTPUTS:
            output = text_of(item.get(OUTPUTS[kind]))
            yield output_message(id, self._names.get(id), output, self._metadata(item))
        elif kind == "mcp_call":
            name, server, metadata = item.get("name"), item.get("server_label"), self._metadata(item)
            yield call_message(id, name, item.get("arguments"), metadata, kind="mcp_call", server_label=server)
            output = text_of(item.get("error") or item.get("output"))
            yield output_message(id, name, output, metadata, kind="mcp_call_output")
        elif kind in MCP:
            data = {key: value for key, value in item.items() if key != "type"}
            yield Message("assistant", kind, [DataContent(data)], metadata=self._metadata(item))
        elif (converter := self._converters.get(kind)) is not None:
            # Checked last, because `type_converters` may have these names as types of input messages.
            yield from converter(given)
        elif kind not in IGNORED:
            raise untranslated("openai-agents", f"an item of type {kind!r}", repr(kind))

    def _call(self, kind: str, id: str, item: dict[str, Any]) -> Iterator[object]:
        name = self._names[id] = item.get("name") or kind.removesuffix("_call")
        arguments = item.get("arguments")
        if kind != "function_call":
            given = {field: item[field] for field in CALLS[kind] if item.get(field) is not None}
            arguments = text_of(given)
        metadata = self._metadata(item)
        yield call_message(id, name, arguments, metadata)
        if kind in RESULTS:
            output = next((item[field] for field in RESULTS[kind] if item.get(field)), "")
            yield output_message(id, name, text_of(output), metadata)
        if kind == "image_generation_call" and item.get("result"):
            url = _url_of(item["result"], f"image/{item.get('output_format') or 'png'}")
            yield Message("assistant", "message", [ImageContent(url)], metadata=metadata)

    def _text(self, kind: str, id: str, content: list[Content]) -> Message:
        # Some models give all items the same id, so reasoning gets a different one.
        name = id if kind == "message" else f"{id}-reasoning"
        return Message("assistant", kind, content, name or None, metadata=self._metadata({"id": id}))

    def _metadata(self, item: Mapping[str, Any]) -> dict[str, Any]:
        return origin_of(item.get("id"), self._agent)


def _contents(item: Mapping[str, Any]) -> list[Content]:
    parts = [*(item.get("summary") or ()), *(item.get("content") or ())]
    return [
        RefusalContent(part["refusal"]) if part["type"] == "refusal" else TextContent(part.get("text"))
        for part in parts
        if part.get("text") or part.get("refusal")
    ]


def _joined(content: Iterable[Content]) -> str:
    return "".join(text for part in content if isinstance(text := text_or_media(part), str))
