"""Agents and teams of AutoGen 0.7: converts chat messages, and translates what `run_stream` yields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs
from autogen_agentchat.base import Response, TaskResult
from autogen_agentchat.messages import (
    BaseChatMessage,
    BaseMessage,
    BaseTextChatMessage,
    CodeExecutionEvent,
    CodeGenerationEvent,
    HandoffMessage,
    MemoryQueryEvent,
    ModelClientStreamingChunkEvent,
    MultiModalMessage,
    SelectorEvent,
    SelectSpeakerEvent,
    StructuredMessage,
    TextMessage,
    ThoughtEvent,
    ToolCallExecutionEvent,
    ToolCallRequestEvent,
    ToolCallSummaryMessage,
    UserInputRequestedEvent,
)
from autogen_core import FunctionCall, Image
from autogen_core.models import FunctionExecutionResult

from ..abc.frameworks import AgentCopy, FrameworkAdapter, ItemReader, TaskStop, TypeConverters
from ..errors import ItemError
from ..protocol.content import Content, ImageContent, TextContent
from ..protocol.message import INTERRUPTED, OUTPUT_OF, Message
from .autogen_agent import AutoGenCopy
from .autogen_stop import StopToken, at_stop, let_stops_be_no_errors
from .media import text_or_media
from .reasoning import parts_of
from .tool_messages import call_message, data_message, data_of, origin_of, output_message, text_of
from .untranslated import untranslated
from .usage import added

__all__ = ["AutoGenAdapter"]

GIVEN = {"origin": "request"}
"""Marks the messages of a request by their metadata, because `run_stream` yields them again."""


class AutoGenAdapter(FrameworkAdapter):
    """Runs handlers that iterate over `agent.run_stream(task=msgs)` or `team.run_stream(task=msgs)`.

    A team runs its agents in tasks of their own and an agent its tools, and neither cancels them when `run_stream`
    is cancelled. So a stop cancels these tasks first.
    """

    name = "autogen"
    stops_tasks_first = True
    stops_in_stream = True

    def __init__(self, type_converters: TypeConverters | None = None) -> None:
        super().__init__(type_converters)
        let_stops_be_no_errors()

    def messages(self, messages: Sequence[Message]) -> list[BaseChatMessage]:
        """Convert the messages of a request.

        A tool call and its output become one message. Reasoning is left out, because AutoGen's chat messages have
        no field for it.
        """
        made: list[BaseChatMessage] = []
        calls: dict[Any, ToolCallSummaryMessage] = {}
        for message in messages:
            data = data_of(message)
            if (converter := self.type_converters.get(message.type)) is not None:
                made.append(converter(message))
            elif message.type in OUTPUT_OF:
                calls[data.get("call_id")] = summary = _summary_of(message)
                made.append(summary)
            elif message.type in OUTPUT_OF.values():
                summary = calls.get(data.get("call_id"))
                if summary is None:
                    made.append(summary := _summary_of(message))
                _add_output(summary, data)
            elif message.type != "reasoning":
                made.append(_message_of(message))
        return made

    def reader(self) -> ItemReader:
        return _Reader(self.type_converters)

    def prepare_run(self, run: Any) -> None:
        """Give the run its `cancellation_token`, which a stop cancels."""
        run.cancellation_token = token = StopToken()
        run.on_stop(token.stop)

    def at_stop(self, task: Any) -> TaskStop:
        return at_stop(task)

    def open_agent(self, agent: Any, state: Any, *, user_id: str, session_id: str) -> AgentCopy:  # noqa: ARG002
        return AutoGenCopy(agent, state)


# In.


def _source_of(message: Message) -> str:
    return str((message.metadata or {}).get("original_name") or message.role)


def _summary_of(message: Message) -> ToolCallSummaryMessage:
    data = data_of(message)
    name, arguments = str(data.get("name") or ""), text_of(data.get("arguments") or {})
    calls = [FunctionCall(str(data.get("call_id")), arguments, name)] if message.type in OUTPUT_OF else []
    return ToolCallSummaryMessage(
        content=_summary(name, arguments, INTERRUPTED),
        source=_source_of(message),
        tool_calls=calls,
        results=[],
        metadata=GIVEN,
    )


def _add_output(summary: ToolCallSummaryMessage, data: Any) -> None:
    output = text_of(data.get("output"))
    call = summary.tool_calls[0] if summary.tool_calls else None
    name = call.name if call else str(data.get("name") or "")
    summary.content = _summary(name, call.arguments if call else "", output)
    summary.results = [FunctionExecutionResult(content=output, name=name, call_id=str(data.get("call_id")))]


def _summary(name: str, arguments: str, output: str) -> str:
    """Return the text that describes a finished tool call to a model that did not make the call."""
    return f"{name}({arguments}): {output}"


def _message_of(message: Message) -> BaseChatMessage:
    parts = [_part_of(part) for part in message.content]
    given = {"source": _source_of(message), "metadata": GIVEN}
    if all(isinstance(part, str) for part in parts):
        return TextMessage(content="".join(parts), **given)
    return MultiModalMessage(content=parts, **given)


def _part_of(part: Content) -> Any:
    """Return text or an Image. AutoGen has no other media, and no images by URL, so a URL is given as text."""
    media = text_or_media(part)
    if isinstance(media, str):
        return media
    if media.url:
        return f"[{media.filename or media.kind}: {media.url}]"
    if part.type == "image":
        try:
            return Image.from_base64(media.data or "")
        except (ValueError, OSError) as error:
            raise ItemError(f"an image of the request cannot be read: {error}") from error
    raise ItemError(
        f"AutoGen has no messages with {part.type} data; send a URL, or convert the message: "
        "query(framework='autogen', type_converters={'message': function})"
    )


# Out.


@attrs.define
class _Turn:
    """A message that an agent is streaming."""

    source: str
    text: str = ""
    reasoned: bool = False
    """Whether the reasoning was sent as complete."""


class _Reader(ItemReader):
    """Joins the chunks of each message. A TaskResult repeats all messages; those that were sent are left out."""

    def __init__(self, converters: TypeConverters) -> None:
        self._converters = converters
        self._turns: dict[str, _Turn] = {}
        self._seen: set[tuple[type, str]] = set()

    def read(self, item: Any) -> Iterable[object]:
        if isinstance(item, Response):
            yield from self._message(item.chat_message)
        elif isinstance(item, TaskResult):
            for message in item.messages:
                yield from self._message(message)
        elif isinstance(item, BaseMessage):
            yield from self._message(item)
        else:
            yield item

    def end(self) -> Iterable[object]:
        """Complete texts whose chunks were streamed, but whose message did not arrive."""
        for key in [*self._turns]:
            yield from self._complete(key)

    def _message(self, item: Any) -> Iterator[object]:
        chunk = isinstance(item, ModelClientStreamingChunkEvent)
        if not chunk:
            if (type(item), item.id) in self._seen:
                return
            self._seen.add((type(item), item.id))
            self._count(item.models_usage)
        if item.source == "user" or item.metadata == GIVEN:
            return
        if (converter := self._converters.get(type(item))) is not None:
            yield from converter(item)
        elif chunk:
            key = item.full_message_id or item.source
            turn = self._turns.setdefault(key, _Turn(item.source))
            turn.text += item.content
            yield from _grown(key, turn, last=False)
        else:
            yield from self._translate(item)

    def _translate(self, item: Any) -> Iterator[object]:
        match item:
            case ThoughtEvent():
                yield from self._thought(item)
            case ToolCallRequestEvent():
                # The model wrote this text in the same answer as the calls.
                yield from self._complete(self._key_of(item))
                for call in item.content:
                    yield call_message(call.id, call.name, call.arguments, _metadata_of(item))
            case ToolCallExecutionEvent():
                for result in item.content:
                    yield output_message(result.call_id, result.name, result.content, _metadata_of(item))
            case HandoffMessage():
                yield data_message({"handoff": item.target, "text": item.content}, _metadata_of(item))
            case BaseTextChatMessage() | CodeGenerationEvent():
                yield from self._text(item)
            case StructuredMessage():
                if (key := self._key_of(item)) is not None:
                    yield from self._complete(key)
                else:
                    yield data_message(item.content.model_dump(mode="json"), _metadata_of(item))
            case MultiModalMessage():
                parts = [
                    TextContent(part) if isinstance(part, str) else ImageContent(part.data_uri)
                    for part in item.content
                ]
                yield Message("assistant", "message", parts, metadata=_metadata_of(item))
            case CodeExecutionEvent():
                result = {"exit_code": item.result.exit_code, "output": item.result.output}
                yield data_message(result, _metadata_of(item))
            case UserInputRequestedEvent():
                asked = {"input_requested_by": item.source, "request_id": item.request_id}
                yield data_message(asked, _metadata_of(item))
            case SelectorEvent():
                yield from self._complete(self._key_of(item))
            case SelectSpeakerEvent() | MemoryQueryEvent():
                pass
            case _:
                name = type(item).__name__
                raise untranslated("autogen", f"a {name}", name)

    def _key_of(self, item: Any) -> str | None:
        """Return the key of the chunks that belong to a message.

        After a thought the message has another id than its chunks. Then they are found by the agent's name.
        """
        if item.id in self._turns:
            return str(item.id)
        return next((key for key, turn in self._turns.items() if turn.source == item.source), None)

    def _thought(self, item: Any) -> Iterator[object]:
        key = self._key_of(item)
        if key is None:
            yield Message("assistant", "reasoning", item.content, metadata=_metadata_of(item))
        elif not parts_of(self._turns[key].text).reasoning:
            # This thought is not reasoning. It repeats the text that the model wrote beside its tool calls.
            yield from self._complete(key)

    def _text(self, item: Any) -> Iterator[object]:
        key = self._key_of(item)
        if key is not None and item.content.strip() == parts_of(self._turns[key].text).text.strip():
            yield from self._complete(key)
        elif key is not None and item.content.startswith(parts_of(self._turns[key].text).text):
            yield from self._complete(key, item.content)
        else:
            yield from self._complete(key)
            if item.content:
                yield Message("assistant", "message", item.content, metadata=_metadata_of(item))

    def _complete(self, key: str | None, text: str | None = None) -> Iterator[object]:
        if key is not None:
            yield from _grown(key, self._turns.pop(key), last=True, whole=text)

    def _count(self, usage: Any) -> None:
        if usage is not None:
            given, made = usage.prompt_tokens, usage.completion_tokens
            more = {"input_tokens": given, "output_tokens": made, "total_tokens": given + made}
            self.usage = added(self.usage, more)


def _grown(key: str, turn: _Turn, *, last: bool, whole: str | None = None) -> Iterator[object]:
    parts = parts_of(turn.text, last=last)
    metadata = origin_of(key, turn.source)
    text = parts.text if whole is None else whole
    if parts.reasoning and not turn.reasoned:
        turn.reasoned = last or bool(text)
        message = Message("assistant", "reasoning", parts.reasoning, f"{key}-reasoning", metadata=metadata)
        yield (message, turn.reasoned)
    if text:
        yield (Message("assistant", "message", text, key, metadata=metadata), last)


def _metadata_of(item: Any) -> dict[str, str]:
    return origin_of(item.id, item.source)
