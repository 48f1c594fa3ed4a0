"""Runs agents of Pydantic AI 2 and converts their message history. `pydantic_ai_stream` translates their output."""

from __future__ import annotations

import base64
import binascii
import mimetypes
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic_ai.messages import (
    BinaryContent,
    FilePart,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from ..abc.frameworks import AgentCopy, FrameworkAdapter, ItemReader
from ..errors import ItemError
from ..protocol.content import Content, DataContent
from ..protocol.message import OUTPUT_OF, Message
from .media import Media, text_or_media
from .pydantic_ai_agent import RunCopy, closed
from .pydantic_ai_stream import URLS, PydanticAIReader
from .tool_messages import data_of, object_of

__all__ = ["PydanticAIAdapter"]


class PydanticAIAdapter(FrameworkAdapter):
    """Runs handlers that iterate over `agent.run_stream_events(message_history=msgs)`.

    A stop is raised within its block, which cancels the model's stream and the tools, and waits for them, before it
    reaches the handler's `except`. It is raised at an `await`, because a handler may iterate over `stream_text()`,
    which `async for` leaves open.
    """

    name = "pydantic-ai"
    stops_in_stream = True

    def messages(self, messages: Sequence[Message]) -> list[ModelMessage]:
        """Convert the messages of a request.

        One ModelResponse has everything that the model said in a turn, and one ModelRequest what follows it. Each
        tool call gets a result: otherwise the agent would execute an open call at the end of the history, and a
        client may have invented that call.
        """
        made: list[ModelMessage] = []
        names: dict[str, str] = {}
        for message in messages:
            if (converter := self.type_converters.get(message.type)) is not None:
                made.append(converter(message))
                continue
            parts = [*_parts_of(message, names)]
            if not parts:
                continue
            kind = ModelResponse if _is_of_model(message) else ModelRequest
            if made and type(made[-1]) is kind:
                parts = [*made.pop().parts, *parts]
            made.append(kind(parts))
        return closed(made)

    def reader(self) -> ItemReader:
        return PydanticAIReader(self.type_converters)

    def open_agent(self, agent: Any, state: Any, *, user_id: str, session_id: str) -> AgentCopy:
        return RunCopy(agent, state, user_id, session_id)


def _is_of_model(message: Message) -> bool:
    return message.role == "assistant" and message.type not in OUTPUT_OF.values()


def _parts_of(message: Message, names: dict[str, str]) -> Iterator[Any]:
    """Convert one message. `names` maps the id of each open call to the name of its tool."""
    data = data_of(message)
    call_id = str(data.get("call_id"))
    if message.type in OUTPUT_OF:
        # A run that continues a deferred call yields the call again.
        if call_id not in names:
            names[call_id] = str(data.get("name"))
            yield ToolCallPart(names[call_id], object_of(data.get("arguments")), call_id)
    elif message.type in OUTPUT_OF.values():
        media = [_user_content_of(part) for part in message.content if not isinstance(part, DataContent)]
        output = data.get("output")
        name = names.pop(call_id, "") or str(data.get("name") or "")
        yield ToolReturnPart(name, [output, *media] if media else output, call_id)
    elif message.type == "reasoning":
        yield ThinkingPart(message.text)
    elif message.role == "assistant":
        for part in message.content:
            content = _user_content_of(part)
            if isinstance(content, str):
                yield TextPart(content)
            elif isinstance(content, BinaryContent):
                yield FilePart(content)
            else:
                yield TextPart(content.url)
    elif message.role == "user":
        contents = [_user_content_of(part) for part in message.content]
        if all(isinstance(content, str) for content in contents):
            yield UserPromptPart("".join(contents))
        else:
            yield UserPromptPart(contents)
    else:
        yield SystemPromptPart(message.text)


def _user_content_of(part: Content) -> Any:
    made = text_or_media(part)
    return made if isinstance(made, str) else _file_of(made)


def _file_of(media: Media) -> Any:
    if media.url:
        return URLS[media.kind](media.url)
    if not media.data:
        raise ItemError(
            f"{media.kind} content has neither a URL nor data; for files by id give a converter: "
            "query(framework='pydantic-ai', type_converters={'message': function})"
        )
    media_type = media.media_type
    if media.filename and media_type == "application/octet-stream":
        media_type = mimetypes.guess_type(media.filename)[0] or media_type
    try:
        return BinaryContent(base64.b64decode(media.data), media_type=media_type)
    except binascii.Error as error:
        raise ItemError(f"the data of {media.kind} content is not base64: {error}") from error
