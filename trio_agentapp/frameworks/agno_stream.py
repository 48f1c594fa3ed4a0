"""Translates what `arun(stream=True, stream_events=True)` of Agno 3 yields into content and messages."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
from agno.run.agent import BaseAgentRunEvent, CustomEvent, RunOutput
from agno.run.base import RunStatus
from agno.run.team import BaseTeamRunEvent, TeamRunOutput
from agno.run.team import CustomEvent as TeamCustomEvent
from pydantic import BaseModel

from ..abc.frameworks import ItemReader, TypeConverters
from ..protocol.content import AudioContent
from ..protocol.message import Message
from .growing import GrowingAnswer
from .media import Media
from .tool_messages import call_message, data_message, origin_of, output_message
from .untranslated import untranslated
from .usage import added

__all__ = ["AgnoReader"]

IGNORED = frozenset(
    (
        *("RunStarted", "ReasoningStarted", "ReasoningCompleted", "FollowupsStarted"),
        *("PreHookStarted", "PreHookCompleted", "PostHookStarted", "PostHookCompleted"),
        *("MemoryUpdateStarted", "MemoryUpdateCompleted", "SessionSummaryStarted", "SessionSummaryCompleted"),
        *("ParserModelResponseStarted", "ParserModelResponseCompleted"),
        *("OutputModelResponseStarted", "OutputModelResponseCompleted"),
        *("CompressionStarted", "CompressionCompleted", "CompactionStarted", "CompactionCompleted"),
        *("TaskIterationStarted", "TaskIterationCompleted", "TaskStateUpdated", "TaskCreated", "TaskUpdated"),
    )
)
"""Types of events that are not sent: they have nothing for the user, or repeat other events."""

TOKENS = (
    *("input_tokens", "output_tokens", "total_tokens"),
    *("reasoning_tokens", "cache_read_tokens", "cache_write_tokens"),
)

MEDIA = {"images": "image", "videos": "video", "audio": "audio", "files": "file"}
"""Fields of Agno's events that have media, and the content type of each."""


@attrs.define
class _Turn(GrowingAnswer):
    """The text and reasoning that a run has streamed since its last tool call or model request."""

    sound: bytes = b""


class AgnoReader(ItemReader):
    """Joins the deltas of each run. Deltas of team members that work in parallel may alternate."""

    def __init__(self, converters: TypeConverters) -> None:
        self._converters = converters
        self._turns: dict[str, _Turn] = {}
        self._begun = 0
        self._seen: set[str] = set()
        """Ids of the runs whose content has been streamed."""
        self._reasoned: dict[str, str] = {}
        """All reasoning that each run has streamed. The event of a reasoning step repeats it."""
        self._answered: set[tuple[str, str | None]] = set()
        self._shown: set[str | None] = set()
        self._continued: set[str] = set()
        self._tokens: dict[str, dict[str, int]] = {}
        self._error: Exception | None = None

    def read(self, item: Any) -> Iterable[object]:
        kind = getattr(item, "event", "")
        name = kind.removeprefix("Team") if isinstance(kind, str) else ""
        converter = next((self._converters[key] for key in (type(item), name) if key in self._converters), None)
        if converter is not None:
            return list(converter(item))
        if isinstance(item, BaseAgentRunEvent | BaseTeamRunEvent):
            return self._event(item, name)
        if isinstance(item, RunOutput | TeamRunOutput):
            return self._output(item)
        if type(item).__module__.partition(".")[0] == "agno":
            raise untranslated("agno", f"a {type(item).__name__}", type(item).__name__)
        return (item,)

    def end(self) -> Iterable[object]:
        """Complete the messages that are still open. Raises RuntimeError if an event reported a failed run."""
        for run_id in [*self._turns]:
            yield from self._complete(run_id)
        if self._error is not None:
            raise self._error

    def _event(self, event: Any, name: str) -> Iterator[object]:
        run_id = event.run_id or ""
        self._seen.add(run_id)
        if isinstance(event, CustomEvent | TeamCustomEvent):
            yield from self._custom(event)
            return
        match name:
            case "RunContent":
                yield from self._content(event)
            case "RunIntermediateContent" | "ReasoningContentDelta":
                text = event.reasoning_content if name == "ReasoningContentDelta" else event.content
                yield from self._reason(event, text)
            case "ReasoningStep":
                known = self._reasoned.get(run_id, "")
                yield from self._reason(event, event.reasoning_content.removeprefix(known))
            case "ModelRequestStarted" | "RunContentCompleted":
                yield from self._complete(run_id)
            case "ModelRequestCompleted":
                self._count(run_id, event)
            case "ToolCallStarted":
                yield from self._complete(run_id)
                yield self._call(event, event.tool)
            case "ToolCallCompleted" | "ToolCallError":
                yield from self._result(event, event.tool)
            case "FollowupsCompleted":
                yield data_message({"followups": event.followups}, _metadata_of(event))
            case "RunPaused":
                yield from self._complete(run_id)
                # A paused team repeats the requirements of its members.
                if not event.parent_run_id:
                    yield from self._requirements(event)
            case "RunContinued":
                self._continued.add(run_id)
            case "RunCancelled":
                yield data_message({"cancelled": event.reason}, _metadata_of(event))
            case "RunError":
                yield from self._complete(run_id)
                if not event.parent_run_id:
                    self._fail(event.error_type, event.content)
                else:
                    yield data_message({"error": event.content}, _metadata_of(event))
            case "RunCompleted":
                yield from self._complete(run_id)
                yield from self._media(event)
                self._count_all(run_id, event.metrics)
            case _ if name not in IGNORED:
                raise untranslated("agno", f"a {type(event).__name__}", type(event).__name__)

    # Text and reasoning.

    def _content(self, event: Any) -> Iterator[object]:
        yield from self._reason(event, event.reasoning_content)
        content = event.content
        if isinstance(content, str):
            yield from self._say(event, content)
        elif content is not None:
            yield from self._complete(event.run_id or "")
            yield data_message(_json_of(content), _metadata_of(event))
        if event.citations is not None:
            given = event.citations.model_dump(
                mode="json", include={"urls", "documents", "search_queries"}, exclude_none=True
            )
            if given:
                yield data_message({"citations": given}, _metadata_of(event))
        if event.image is not None:
            yield from self._medium(event, "image", event.image)
        if (audio := event.response_audio) is not None:
            yield from self._say(event, audio.transcript or "")
            self._turn(event).sound += _bytes_of(audio.content)

    def _turn(self, event: Any) -> _Turn:
        run_id = event.run_id or ""
        if run_id not in self._turns:
            self._begun += 1
            self._turns[run_id] = _Turn(f"{run_id or 'text'}-{self._begun}", _metadata_of(event))
        return self._turns[run_id]

    def _say(self, event: Any, delta: str) -> Iterator[object]:
        if delta:
            yield from self._turn(event).say(delta)

    def _reason(self, event: Any, delta: str | None) -> Iterator[object]:
        if delta:
            run_id = event.run_id or ""
            self._reasoned[run_id] = self._reasoned.get(run_id, "") + delta
            yield from self._turn(event).reason(delta)

    def _complete(self, run_id: str) -> Iterator[object]:
        turn = self._turns.pop(run_id, None)
        if turn is None:
            return
        yield from turn.complete()
        if turn.sound:
            content = AudioContent(base64.b64encode(turn.sound).decode())
            yield Message(content=[content], metadata=turn.metadata)

    def _custom(self, event: Any) -> Iterator[object]:
        base = BaseTeamRunEvent if isinstance(event, TeamCustomEvent) else BaseAgentRunEvent
        hidden = {*base.__dataclass_fields__, "event_index"} - {"content"}
        given = {name: value for name, value in vars(event).items() if name not in hidden and value is not None}
        yield data_message(_json_of(given), _metadata_of(event))

    # Tools.

    def _call(self, event: Any, tool: Any) -> Message:
        arguments = json.dumps(tool.tool_args or {}, ensure_ascii=False, default=str)
        return call_message(tool.tool_call_id, tool.tool_name, arguments, _metadata_of(event))

    def _result(self, event: Any, tool: Any) -> Iterator[object]:
        key = (event.run_id or "", tool.tool_call_id)
        if key in self._answered:
            return  # the result of this call was sent already; an error event may follow it
        self._answered.add(key)
        output = tool.result if tool.result is not None else getattr(event, "error", None)
        yield output_message(tool.tool_call_id, tool.tool_name, output, _metadata_of(event))
        yield from self._media(event)

    def _requirements(self, event: Any) -> Iterator[object]:
        for requirement in event.requirements or ():
            if requirement.is_resolved():
                continue
            whole, tool = requirement.to_dict(), requirement.tool_execution
            value = {
                "kind": requirement.pause_type,
                "call_id": tool.tool_call_id,
                "name": tool.tool_name,
                "arguments": tool.tool_args,
                "fields": whole.get("user_input_schema"),
                "questions": whole.get("user_feedback_schema"),
            }
            shown = {name: part for name, part in value.items() if part is not None}
            interrupt = {"interrupt": shown, "interrupt_id": requirement.id}
            yield data_message(_json_of(interrupt), _metadata_of(event))

    # Media.

    def _media(self, holder: Any) -> Iterator[object]:
        for name, kind in MEDIA.items():
            for medium in getattr(holder, name, None) or ():
                yield from self._medium(holder, kind, medium)

    def _medium(self, event: Any, kind: str, medium: Any) -> Iterator[object]:
        # The end of a run repeats the media of its tools.
        if medium.id in self._shown:
            return
        self._shown.add(medium.id)
        yield Message(content=[_medium_of(kind, medium).content()], metadata=_metadata_of(event))

    # Whole runs.

    def _output(self, run: Any) -> Iterator[object]:
        """Translate a whole run: the result of `arun()` without a stream, or the last item of a stream."""
        run_id = run.run_id or ""
        if run_id not in self._seen:
            for tool in run.tools or ():
                if not tool.is_paused:
                    yield self._call(run, tool)
                    yield from self._result(run, tool)
            yield from self._reason(run, run.reasoning_content)
            if run.status != RunStatus.error:
                yield from self._whole_content(run)
            yield from self._complete(run_id)
            yield from self._media(run)
            if run.status == RunStatus.paused:
                yield from self._requirements(run)
            self._count_all(run_id, run.metrics)
        if run.status == RunStatus.error:
            self._fail(None, run.content)

    def _whole_content(self, run: Any) -> Iterator[object]:
        if isinstance(run.content, str):
            yield from self._say(run, run.content)
        elif run.content is not None:
            yield data_message(_json_of(run.content), _metadata_of(run))

    def _fail(self, kind: str | None, text: Any) -> None:
        self._error = self._error or RuntimeError(f"the run of Agno failed: {f'{kind}: ' if kind else ''}{text}")

    def _count(self, run_id: str, counted: Any) -> None:
        tokens = {name: number for name in TOKENS if (number := getattr(counted, name, None))}
        self._tokens[run_id] = added(self._tokens.get(run_id), tokens)
        self.usage = functools.reduce(added, self._tokens.values()) or None

    def _count_all(self, run_id: str, metrics: Any) -> None:
        """Count the metrics of a whole run.

        They include models whose answers are not streamed, and the part of the run before it was paused.
        """
        if metrics is not None and run_id not in self._continued:
            self._tokens.pop(run_id, None)
            self._count(run_id, metrics)


def _metadata_of(event: Any) -> dict[str, Any]:
    name = getattr(event, "agent_name", None) or getattr(event, "team_name", None)
    return origin_of(event.run_id, name)


def _json_of(value: Any) -> Any:
    def default(part: Any) -> Any:
        return part.model_dump(mode="json") if isinstance(part, BaseModel) else str(part)

    return json.loads(json.dumps(value, default=default))


def _bytes_of(content: bytes | str | None) -> bytes:
    return base64.b64decode(content) if isinstance(content, str) else content or b""


def _medium_of(kind: Any, medium: Any) -> Media:
    name = getattr(medium, "filename", None)
    url = medium.url or (medium.media_reference.url if medium.media_reference else None)
    if url:
        return Media(kind, url=url, filename=name)
    content = medium.content
    if content is None and medium.filepath:
        content = Path(medium.filepath).read_bytes()
    form = getattr(medium, "format", None)
    media_type = medium.mime_type or (f"{kind}/{form}" if form and kind != "file" else "application/octet-stream")
    return Media(kind, data=base64.b64encode(_bytes_of(content)).decode(), media_type=media_type, filename=name)
