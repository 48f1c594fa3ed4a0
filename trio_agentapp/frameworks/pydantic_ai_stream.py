"""Translates what `run_stream_events` and `iter` of Pydantic AI 2 yield into content and messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs
from pydantic_ai import (
    AgentRunResult,
    AgentRunResultEvent,
    CallToolsNode,
    DeferredToolRequests,
    ModelRequestNode,
    UserPromptNode,
)
from pydantic_ai.messages import (
    AudioUrl,
    BinaryContent,
    CompactionPart,
    DocumentUrl,
    FilePart,
    FunctionToolCallEvent,
    FunctionToolResultEvent,
    ImageUrl,
    ModelRequest,
    ModelResponse,
    NativeToolCallPart,
    NativeToolReturnPart,
    OutputToolCallEvent,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    VideoUrl,
)
from pydantic_ai.usage import RunUsage
from pydantic_core import to_jsonable_python
from pydantic_graph import End

from ..abc.frameworks import ItemReader, TypeConverters
from ..protocol.content import Content, DataContent, FileContent
from ..protocol.ids import new_message_id
from ..protocol.message import Message
from .media import Media
from .tool_messages import call_message, data_message, data_of, output_message
from .untranslated import untranslated

__all__ = ["PydanticAIReader", "URLS"]

IGNORED = frozenset(
    (
        # These announce the result, which follows in an event of its own.
        *("final_result", "output_tool_result", "deferred_tool_requests"),
        # These concern the input of the model, not the user.
        *("enqueued_messages", "deferred_tool_results", "tool_availability_delta"),
        *("capability_load_delta", "model_settings_delta", "capability"),
    )
)
"""Kinds of events that are not sent."""

URLS: Mapping[Any, Any] = {"image": ImageUrl, "audio": AudioUrl, "video": VideoUrl, "file": DocumentUrl}


@attrs.define
class _Part:
    """A part of a response that is being streamed."""

    kind: str
    """The type of the message; empty for a part that is sent only when it is complete."""
    text: str = ""
    id: str = attrs.field(factory=new_message_id)

    def message(self) -> Message:
        return Message("assistant", self.kind, self.text, self.id)


class PydanticAIReader(ItemReader):
    """Joins the deltas of each part.

    A tool call is sent when its execution begins, which is after the whole response was streamed. Before that it is
    not known whether it calls an output tool; such calls are not sent.
    """

    def __init__(self, converters: TypeConverters) -> None:
        self._converters = converters
        self._parts: dict[int, _Part] = {}
        self._last_index = -1
        self._calls: dict[str, ToolCallPart] = {}
        """Tool calls whose execution has not begun."""
        self._shown: list[Any] = []
        """The texts and files of the last response."""
        self._spent = RunUsage()

    def read(self, item: Any) -> Iterable[object]:
        if (converter := self._converters.get(type(item))) is not None:
            made: Iterable[object] = converter(item)
            return made
        match item:
            case PartStartEvent() | PartDeltaEvent() | PartEndEvent():
                return self._part_event(item)
            case FunctionToolCallEvent(part=part):
                self._calls.pop(part.tool_call_id, None)
                return (_call_of(part),)
            case OutputToolCallEvent(part=part):
                self._calls.pop(part.tool_call_id, None)
                return ()
            case FunctionToolResultEvent(part=part):
                return self._output(part)
            case AgentRunResultEvent(result=result) | (AgentRunResult() as result):
                self.usage = _usage_of(result.usage)
                return self._result(result.output)
            case End(data=final):
                return self._result(final.output)
            case CallToolsNode(model_response=message) | (ModelResponse() as message):
                return self._response(message)
            case ModelRequestNode(request=message) | (ModelRequest() as message):
                return self._request(message)
            case UserPromptNode():
                return ()
        return self._other(item)

    def end(self) -> Iterable[object]:
        """Complete the parts that are still open, and send the tool calls that were not executed."""
        for index in [*self._parts]:
            yield from self._close(index)
        yield from self._flush()

    def _other(self, item: Any) -> Iterator[object]:
        kind = getattr(item, "event_kind", None)
        if kind in IGNORED:
            return
        if kind == "custom":
            data = to_jsonable_python(item, serialize_unknown=True)
            del data["event_kind"]
            yield DataContent({name: value for name, value in data.items() if value is not None})
        elif type(item).__module__.startswith(("pydantic_ai.", "pydantic_graph.")):
            raise untranslated("pydantic-ai", f"a {type(item).__name__}", type(item).__name__)
        else:
            # Text, and our own messages and content, as in a handler without a framework.
            yield item

    def _part_event(self, event: Any) -> Iterator[object]:
        index = event.index
        if isinstance(event, PartDeltaEvent):
            # Only text and thinking grow. Other parts, such as calls, are read when they are complete.
            if index in self._parts and (delta := getattr(event.delta, "content_delta", None)):
                yield from self._grow(index, delta)
        elif isinstance(event, PartStartEvent):
            yield from self._close(index)
            if index <= self._last_index:
                yield from self._flush()
                self._shown.clear()
            self._last_index = index
            self._parts[index] = _Part("" if type(event.part) in self._converters else _kind_of(event.part))
            yield from self._grow(index, getattr(event.part, "content", None))
        elif index in self._parts and self._parts[index].text:
            yield from self._close(index)
        else:
            self._parts.pop(index, None)
            yield from self._whole(event.part)

    def _grow(self, index: int, delta: Any) -> Iterator[object]:
        part = self._parts[index]
        if part.kind and delta:
            part.text += delta
            yield (part.message(), False)

    def _close(self, index: int) -> Iterator[object]:
        part = self._parts.pop(index, None)
        if part is not None and part.text:
            self._note(part)
            yield (part.message(), True)

    def _note(self, part: _Part) -> None:
        if part.kind == "message":
            self._shown.append(part.text)

    def _whole(self, part: Any) -> Iterator[object]:
        """Send a part that was not sent in deltas."""
        if (converter := self._converters.get(type(part))) is not None:
            yield from converter(part)
            return
        match part:
            case TextPart(content=text) | ThinkingPart(content=text):
                if text:
                    whole = _Part(_kind_of(part), text)
                    self._note(whole)
                    yield whole.message()
            case ToolCallPart():
                self._calls[part.tool_call_id] = part
            case NativeToolCallPart():
                yield _call_of(part)
            case NativeToolReturnPart():
                yield _output_of(part)
            case FilePart(content=file):
                self._shown.append(file)
                yield Message(content=[_content_of(file)])
            case CompactionPart():
                pass
            case _:
                raise untranslated("pydantic-ai", f"a {type(part).__name__}", type(part).__name__)

    def _flush(self) -> Iterator[object]:
        for part in self._calls.values():
            yield _call_of(part)
        self._calls.clear()

    def _output(self, part: Any) -> Iterator[object]:
        if (call := self._calls.pop(part.tool_call_id, None)) is not None:
            yield _call_of(call)
        yield _output_of(part)

    def _response(self, response: Any) -> Iterator[object]:
        self._shown.clear()
        self._spent.incr(response.usage)
        self.usage = _usage_of(self._spent)
        for part in response.parts:
            yield from self._whole(part)

    def _request(self, request: Any) -> Iterator[object]:
        for part in request.parts:
            if isinstance(part, ToolReturnPart):
                yield from self._output(part)

    def _result(self, output: Any) -> Iterator[object]:
        self._calls.clear()
        if (converter := self._converters.get(type(output))) is not None:
            yield from converter(output)
        elif isinstance(output, str):
            # An output function may have made this text. Then the model has not streamed it, and it is sent here.
            if output.strip() not in "".join(text for text in self._shown if isinstance(text, str)):
                yield Message(content=output)
        elif isinstance(output, BinaryContent):
            if output not in self._shown:
                yield Message(content=[_content_of(output)])
        elif isinstance(output, DeferredToolRequests):
            deferred = {
                kind: [_deferred(call, output.metadata) for call in getattr(output, kind)]
                for kind in ("approvals", "calls")
            }
            yield data_message({"deferred_tool_requests": deferred})
        elif output is not None:
            yield data_message(to_jsonable_python(output, bytes_mode="base64", serialize_unknown=True))


def _kind_of(part: Any) -> str:
    return "message" if isinstance(part, TextPart) else "reasoning" if isinstance(part, ThinkingPart) else ""


def _deferred(part: Any, metadata: Mapping[str, Any]) -> dict[str, Any]:
    given = metadata.get(part.tool_call_id)
    more = {"metadata": to_jsonable_python(given, serialize_unknown=True)} if given else {}
    return {**data_of(_call_of(part)), **more}


def _call_of(part: Any) -> Message:
    return call_message(part.tool_call_id, part.tool_name, part.args_as_json_str())


def _output_of(part: Any) -> Message:
    """Return the output of a tool: the text that the model gets, also for an error."""
    files = [_content_of(file) for file in part.files]
    return output_message(part.tool_call_id, part.tool_name, part.model_response_str(), files=files)


def _content_of(file: Any) -> Content:
    for kind, cls in URLS.items():
        if isinstance(file, cls):
            return Media(kind, url=file.url).content()
    if not isinstance(file, BinaryContent):
        # An UploadedFile is stored at the model provider, so only its id is known.
        return FileContent(file_id=file.file_id)
    kind = file.media_type.partition("/")[0]
    return Media(kind if kind in URLS else "file", data=file.base64, media_type=file.media_type).content()


def _usage_of(usage: Any) -> dict[str, Any]:
    counted = {name: count for name, count in to_jsonable_python(usage).items() if count}
    required = ("input_tokens", "output_tokens", "total_tokens")
    return {**counted, **{name: getattr(usage, name) for name in required}}
