"""Runs agents and teams of Agno 3 and converts their input messages. `agno_stream` translates their output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agno.media import Audio, File, Image, Video
from agno.models.message import Message as AgnoMessage

from ..abc.frameworks import AgentCopy, FrameworkAdapter, ItemReader, TaskStop
from ..protocol.content import Content, FileContent
from ..protocol.message import OUTPUT_OF, Message
from .agno_agent import RunnableCopy
from .agno_stream import AgnoReader
from .media import Kind, Media, text_or_media
from .tool_messages import data_of, object_of, text_of

__all__ = ["AgnoAdapter"]

SAVES = frozenset(
    (
        "_persist_cancelled_run_in_background.<locals>._persist",
        "_persist_cancelled_team_run_in_background.<locals>._persist",
    )
)
"""Qualified names of the coroutines in which Agno saves a cancelled run."""

FIELDS: Mapping[Kind, tuple[str, Any]] = {
    "image": ("images", Image),
    "video": ("videos", Video),
    "audio": ("audio", Audio),
    "file": ("files", File),
}
"""For each kind of media: the field of an Agno message, and the class of its items."""


class AgnoAdapter(FrameworkAdapter):
    """Runs handlers that iterate over `agent.arun(..., stream=True, stream_events=True)`.

    Members of a team, and tools that stream, run in asyncio tasks that Agno does not end, so a stop ends them
    first. Agno saves a cancelled run in a task that it does not wait for.
    """

    name = "agno"
    stops_tasks_first = True
    stops_in_stream = True

    def messages(self, messages: Sequence[Message]) -> list[AgnoMessage]:
        """Convert messages of a request. One assistant message has the reasoning, text and tool calls of a turn."""
        made: list[AgnoMessage] = []
        reasoning = ""
        for message in messages:
            if (converter := self.type_converters.get(message.type)) is not None:
                made.append(converter(message))
            elif message.type == "reasoning":
                reasoning += message.text
                continue
            elif message.type in OUTPUT_OF:
                if not made or made[-1].role != "assistant":
                    made.append(AgnoMessage(role="assistant"))
                made[-1].tool_calls = [*(made[-1].tool_calls or []), _call_of(data_of(message))]
            else:
                made.append(_message_of(message))
            if made[-1].role == "assistant":
                made[-1].reasoning_content = reasoning or made[-1].reasoning_content
            reasoning = ""
        return made

    def at_stop(self, task: Any) -> TaskStop:
        return "wait" if getattr(task.get_coro(), "__qualname__", "") in SAVES else "cancel"

    def reader(self) -> ItemReader:
        return AgnoReader(self.type_converters)

    def open_agent(self, agent: Any, state: Any, *, user_id: str, session_id: str) -> AgentCopy:
        return RunnableCopy(agent, state, user_id, session_id)


def _call_of(data: Mapping[str, Any]) -> dict[str, Any]:
    arguments = text_of(object_of(data.get("arguments")))
    function = {"name": data.get("name"), "arguments": arguments}
    return {"id": data.get("call_id"), "type": "function", "function": function}


def _message_of(message: Message) -> AgnoMessage:
    if message.type in OUTPUT_OF.values():
        data = data_of(message)
        text = text_of(data.get("output"))
        return AgnoMessage(role="tool", content=text, tool_call_id=data.get("call_id"), tool_name=data.get("name"))
    texts: list[str] = []
    media: dict[str, list[Any]] = {}
    for part in message.content:
        made = text_or_media(part)
        if isinstance(made, str):
            texts.append(made)
        else:
            field, kind = FIELDS[made.kind]
            media.setdefault(field, []).append(_media_of(kind, made, part))
    role = "system" if message.role == "tool" else message.role
    whole = AgnoMessage(role=role, content="".join(texts), **media)
    whole.id = message.id or whole.id
    return whole


def _media_of(kind: Any, source: Media, part: Content) -> Any:
    given: dict[str, Any] = {}
    if isinstance(part, FileContent):
        given = {"filename": part.filename, "id": part.file_id}
        if source.media_type in File.valid_mime_types():
            given["mime_type"] = source.media_type
    elif source.media_type:
        given = {"mime_type": source.media_type, "format": source.media_type.partition("/")[2]}
    return kind(url=source.url, **given) if source.url else kind.from_base64(source.data or "", **given)
