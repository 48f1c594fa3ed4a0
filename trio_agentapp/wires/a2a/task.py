"""A task of A2A as a fold over the events of a run: any node that can read the events has the same task.

Objects have the form of A2A 1.0 here. `versions.py` writes them for a client.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from ...protocol.events import ContentEvent, Event, MessageEvent, ResponseEvent
from ...runs import Gap
from .artifact import Artifact
from .parts import Part, part_of, parts_of
from .reply import is_reply
from .task_states import (
    AUTH_REQUIRED,
    COMPLETED,
    ENDS,
    INPUT_REQUIRED,
    INTERRUPTED,
    SUBMITTED,
    TERMINAL,
    WORKING,
)

__all__ = ["Task", "Update", "stamp"]

MAX_HISTORY = 1000
"""Messages in the history of a task; the oldest are left out."""

Update = tuple[Literal["statusUpdate", "artifactUpdate"], dict[str, Any]]


def stamp(seconds: float) -> str:
    """A time as A2A writes it: RFC 3339 in UTC, with milliseconds."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"


class Task:
    """The state of a task after the events that were applied.

    `asked` are the messages of the client that are known, as objects of A2A. `seen` returns when the event of this
    number of a task was seen, in Unix seconds, so that all streams of a task write the same times.
    `keeps_artifacts`: whether artifacts are kept, which a stream does not need once the client has them.
    """

    def __init__(
        self,
        task_id: str,
        context_id: str,
        asked: Iterable[Mapping[str, Any]] = (),
        *,
        seen: Callable[[str, int], float] | None = None,
        keeps_artifacts: bool = True,
    ) -> None:
        self.id = task_id
        self.context_id = context_id
        self.state = SUBMITTED
        self.message: dict[str, Any] | None = None
        self.timestamp = stamp(time.time())
        self.metadata: dict[str, Any] = {}
        self.history: list[Mapping[str, Any]] = [*asked]
        self.artifacts: dict[str, Artifact] = {}
        self.questions: dict[str, tuple[str, dict[str, Any]]] = {}
        """The open questions, by their ids: the state and the message of each."""
        self.turns = 0
        """Questions and answers so far."""
        self.live = False
        """Whether events are applied as they happen; otherwise the time of an event is not known."""
        self.gap = False
        """Whether events were missed."""
        self.keeps_artifacts = keeps_artifacts
        self._others: set[str] = set()
        """Ids of messages that are no artifacts."""
        self._seen = seen

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL

    @property
    def interrupted(self) -> bool:
        """Whether a question is open."""
        return self.state in INTERRUPTED

    @property
    def reply(self) -> dict[str, Any] | None:
        """The bare message that is the whole answer; None if the answer is a task."""
        if self.state != COMPLETED or self.turns or len(self.artifacts) != 1 or self._others:
            return None
        [artifact] = self.artifacts.values()
        whole = artifact.whole()
        if not is_reply(artifact.id) or whole is None:
            return None
        named: dict[str, Any] = {name: whole[name] for name in ("metadata", "extensions") if name in whole}
        return {
            "messageId": artifact.id,
            "contextId": self.context_id,
            "role": "ROLE_AGENT",
            "parts": whole["parts"],
            **named,
        }

    def begin(self) -> None:
        """The run is running, although the event that says so was not seen."""
        self.state = WORKING

    def refuse(self, text: str, metadata: dict[str, Any]) -> None:
        """Say why the task was refused."""
        self._say(f"{self.id}-end", [{"text": text}], metadata, in_history=False)

    def apply(self, event: Event | Gap) -> list[Update]:
        """Apply the next event. Returns the updates that a stream has for it."""
        if isinstance(event, ContentEvent):
            return self._content(event)
        if isinstance(event, MessageEvent):
            return self._begin(event) if event.content is None else self._end(event, event.content)
        if isinstance(event, ResponseEvent):
            return self._response(event)
        self.gap = self.gap or isinstance(event, Gap)
        return []

    def _time_of(self, event: MessageEvent | ResponseEvent) -> str:
        return stamp(time.time() if self._seen is None else self._seen(self.id, event.sequence_number))

    def _response(self, event: ResponseEvent) -> list[Update]:
        if event.status not in ENDS:
            self.timestamp = self._time_of(event) if self.live else stamp(event.created_at)
            if event.status == "in_progress":
                self.state = WORKING
                return [self._status()]
            return []
        self.state = ENDS[event.status]
        self.timestamp = self._time_of(event) if self.live else stamp(event.completed_at or time.time())
        self.questions.clear()
        self.message = None
        if self.gap and event.output is not None:
            self._restate(event.output)
        if event.error is not None:
            self._say(
                f"{self.id}-end", [{"text": event.error.message}], {"code": event.error.code}, in_history=False
            )
        if event.usage is not None:
            self.metadata["usage"] = dict(event.usage)
        return [self._status({"usage": dict(event.usage)} if event.usage is not None else None)]

    def _restate(self, output: Sequence[MessageEvent]) -> None:
        """Take the artifacts from the whole answer, which the last event repeats."""
        for message in output:
            if message.type == "message" and message.role == "assistant":
                self._complete(message, message.content or ())
        self.artifacts = {
            message.id: self.artifacts[message.id] for message in output if message.id in self.artifacts
        }

    def _begin(self, event: MessageEvent) -> list[Update]:
        if event.type == "message" and event.role == "assistant":
            self.artifacts[event.id] = Artifact(event.id)
        else:
            self._others.add(event.id)
        return []

    def _content(self, event: ContentEvent) -> list[Update]:
        artifact = self.artifacts.get(event.msg_id)
        if artifact is None:
            return []
        place = event.index
        if event.delta:
            if event.type != "text":
                # A piece of data or audio is no part by itself: the whole part is sent when it is complete.
                return []
            artifact.streamed.add(place)
            if self.keeps_artifacts:
                artifact.pieces.setdefault(place, []).append(event.text)
            return [self._artifact(artifact, [{"text": event.text}])]
        artifact.pieces.pop(place, None)
        part = part_of(event)
        if self.keeps_artifacts:
            artifact.parts[place] = part
        return [] if place in artifact.streamed else [self._artifact(artifact, [part])]

    def _end(self, event: MessageEvent, content: Sequence[ContentEvent]) -> list[Update]:
        if event.type == "message" and event.role == "assistant":
            return self._complete(event, content)
        self._others.add(event.id)
        if event.type == "heartbeat":
            return []
        if self.live:
            self.timestamp = self._time_of(event)
        if event.type == "mcp_approval_request":
            return self._ask(event, content)
        if event.type == "mcp_approval_response":
            return self._answered(event, content)
        kind = {"type": event.type, **(event.metadata or {})}
        for name in ("code", "message"):
            if (text := getattr(event, name)) is not None:
                kind[name] = text
        parts = parts_of(content) or [{"text": event.message or ""}]
        kept, open_question = self.message, self.interrupted
        self._say(event.id, parts, kind, role="ROLE_USER" if event.role == "user" else "ROLE_AGENT")
        update = self._status()
        if open_question:
            # It stays the message of the status until it is answered.
            self.message = kept
        return [update]

    def _complete(self, event: MessageEvent, content: Sequence[ContentEvent]) -> list[Update]:
        """The end of an artifact. If its beginning was missed, the whole of it is sent."""
        missed = event.id not in self.artifacts
        artifact = self.artifacts.setdefault(event.id, Artifact(event.id))
        artifact.describe(event)
        artifact.pieces.clear()
        parts = parts_of(content)
        if self.keeps_artifacts:
            artifact.parts = dict(enumerate(parts))
        if not parts:
            del self.artifacts[event.id]
            return []
        return [self._artifact(artifact, parts if missed else [{"text": ""}], last=True)]

    def _ask(self, event: MessageEvent, content: Sequence[ContentEvent]) -> list[Update]:
        data = _data_of(content)
        state = AUTH_REQUIRED if data.get("name") == "auth" else INPUT_REQUIRED
        self.state = state
        self.turns += 1
        metadata = {"type": event.type, "questionId": data.get("id")}
        self._say(event.id, [*parts_of(content[:-1]), {"data": _question(data), **JSON}], metadata)
        assert self.message is not None  # noqa: S101  it was just set
        self.questions[str(data.get("id"))] = (state, self.message)
        return [self._status()]

    def _answered(self, event: MessageEvent, content: Sequence[ContentEvent]) -> list[Update]:
        data = _data_of(content)
        self.questions.pop(str(data.get("approval_request_id")), None)
        self.turns += 1
        answer = data.get("answer", data.get("reason", ""))
        parts: Sequence[Part] = [{"text": answer} if isinstance(answer, str) else {"data": answer, **JSON}]
        metadata = {
            "type": event.type,
            "questionId": data.get("approval_request_id"),
            "approve": data.get("approve"),
        }
        message_id = data.get("message_id", event.id)
        if (said := self._take_said(message_id)) is not None:
            parts, metadata = said["parts"], {**said.get("metadata", {}), **metadata}
        self._say(message_id, parts, metadata, role="ROLE_USER")
        self.state, self.message = WORKING, None
        for state, message in self.questions.values():
            self.state, self.message = state, message
        return [self._status()]

    def _take_said(self, message_id: str) -> Mapping[str, Any] | None:
        """Take a message of the client out of the history, where it stood before its place was known."""
        for place in reversed(range(len(self.history))):
            message = self.history[place]
            if message["messageId"] == message_id and message["role"] == "ROLE_USER":
                return self.history.pop(place)
        return None

    def _say(
        self,
        message_id: str,
        parts: Sequence[Part],
        metadata: dict[str, Any],
        *,
        role: str = "ROLE_AGENT",
        in_history: bool = True,
    ) -> None:
        """Make the message of the status."""
        self.message = {
            "messageId": message_id,
            "contextId": self.context_id,
            "taskId": self.id,
            "role": role,
            "parts": list(parts),
            "metadata": metadata,
        }
        if in_history:
            self.history.append(self.message)
            if len(self.history) > MAX_HISTORY:
                # The message that began the task stays.
                del self.history[1]

    def _status(self, metadata: dict[str, Any] | None = None) -> Update:
        update = {"taskId": self.id, "contextId": self.context_id, "status": self.status()}
        if metadata is not None:
            update["metadata"] = metadata
        return "statusUpdate", update

    def _artifact(self, artifact: Artifact, parts: Sequence[Part], *, last: bool = False) -> Update:
        update = {
            "taskId": self.id,
            "contextId": self.context_id,
            "artifact": artifact.with_parts(parts),
            "append": artifact.sent,
            "lastChunk": last,
        }
        artifact.sent = True
        return "artifactUpdate", update

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = {"state": self.state}
        if self.message is not None:
            found["message"] = self.message
        found["timestamp"] = self.timestamp
        return found

    def as_object(self, *, history_length: int | None = None, artifacts: bool = True) -> dict[str, Any]:
        """The task as an object. `history_length`: how many of the latest messages it has at most."""
        found: dict[str, Any] = {"id": self.id, "contextId": self.context_id, "status": self.status()}
        if artifacts:
            found["artifacts"] = [each for known in self.artifacts.values() if (each := known.whole()) is not None]
        begin = 0 if history_length is None else max(0, len(self.history) - history_length)
        if history := self.history[begin:]:
            found["history"] = history
        if self.metadata:
            found["metadata"] = self.metadata
        return found


def _question(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a client may want to know of a question beside its text."""
    named = {"id": "id", "name": "name", "schema": "schema", "expires_at": "expiresAt", "fault": "fault"}
    return {new: data[old] for old, new in named.items() if data.get(old) is not None}


JSON = {"mediaType": "application/json"}


def _data_of(content: Sequence[ContentEvent]) -> Mapping[str, Any]:
    for part in reversed(content):
        if isinstance(part.data, Mapping):
            return part.data
    return {}
