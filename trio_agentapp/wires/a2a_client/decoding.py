"""JSON of A2A 1.0 and 0.3, read into tasks and events. What is not known is dropped; a wrong shape is an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import UnexpectedAnswer
from ...protocol.content import Content
from ...protocol.ids import identifier_fault
from ...protocol.message import Message
from .parts import content_of_part
from .task import (
    A2AEvent,
    A2ATask,
    Artifact,
    ArtifactUpdate,
    MessageReply,
    StatusUpdate,
    TaskSnapshot,
    TaskState,
    TaskStatus,
)

__all__ = ["event_of", "task_of"]

KINDS = {
    "task": "task",
    "message": "message",
    "status-update": "statusUpdate",
    "artifact-update": "artifactUpdate",
}
"""The kinds of 0.3, and the members of 1.0 that hold the same."""


def event_of(value: Any) -> A2AEvent:
    """Read one item of a stream, or the answer to a message. Raises UnexpectedAnswer."""
    found = _object(value, "the result")
    if isinstance(found.get("kind"), str):
        name, body = KINDS.get(found["kind"], ""), found
    else:
        name, body = next(((name, found[name]) for name in KINDS.values() if name in found), ("", found))
    if name == "task":
        return TaskSnapshot(task_of(body))
    if name == "message":
        message = _object(body, "message")
        return MessageReply(_message(message), _text(message, "contextId"))
    if name == "statusUpdate":
        update = _object(body, "statusUpdate")
        return StatusUpdate(
            _id(update, "taskId"),
            _text(update, "contextId") or "",
            _status(update.get("status")),
            _metadata(update),
        )
    if name == "artifactUpdate":
        update = _object(body, "artifactUpdate")
        return ArtifactUpdate(
            _id(update, "taskId"),
            _text(update, "contextId") or "",
            _artifact(update.get("artifact")),
            append=update.get("append") is True,
            last_chunk=update.get("lastChunk") is True,
            metadata=_metadata(update),
        )
    raise UnexpectedAnswer(f"the agent sent neither a task, a message nor an update, but {sorted(found)[:8]}")


def task_of(value: Any) -> A2ATask:
    """Read a task. Raises UnexpectedAnswer."""
    task = _object(value, "task")
    return A2ATask(
        _id(task, "id"),
        _text(task, "contextId") or "",
        _status(task.get("status")),
        tuple(_artifact(each) for each in _list(task, "artifacts")),
        tuple(_message(_object(each, "history")) for each in _list(task, "history")),
        _metadata(task),
    )


def _status(value: Any) -> TaskStatus:
    status = _object(value, "status")
    message = status.get("message")
    return TaskStatus(
        _state(status.get("state")),
        None if message is None else _message(_object(message, "status.message")),
        _text(status, "timestamp"),
    )


def _state(value: Any) -> TaskState:
    if not isinstance(value, str):
        raise UnexpectedAnswer("the agent sent a status without a state")
    name = value.removeprefix("TASK_STATE_").replace("_", "-").lower()
    try:
        return TaskState(name)
    except ValueError:
        return TaskState.UNKNOWN


def _artifact(value: Any) -> Artifact:
    artifact = _object(value, "artifact")
    return Artifact(
        _text(artifact, "artifactId") or "",
        _parts(artifact),
        _text(artifact, "name"),
        _text(artifact, "description"),
        _metadata(artifact),
    )


def _message(message: Mapping[str, Any]) -> Message:
    """A message; its id and its ids of task and context stand in its metadata, under their names of A2A.

    The id is not that of the message here: the agent that sent it may use it again.
    """
    names = ("messageId", "taskId", "contextId")
    known = {name: text for name in names if (text := _text(message, name)) is not None}
    role = "user" if message.get("role") in ("ROLE_USER", "user") else "assistant"
    metadata = {**(_metadata(message) or {}), **known}
    return Message(role=role, content=list(_parts(message)), metadata=metadata or None)  # type: ignore[arg-type]


def _parts(holder: Mapping[str, Any]) -> tuple[Content, ...]:
    read = (content_of_part(_object(part, "parts")) for part in _list(holder, "parts"))
    return tuple(content for content in read if content is not None)


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UnexpectedAnswer(f"the agent sent {name} as {type(value).__name__}, not as an object")
    return value


def _list(holder: Mapping[str, Any], name: str) -> list[Any]:
    value = holder.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise UnexpectedAnswer(f"the agent sent {name} as {type(value).__name__}, not as an array")
    return value


def _text(holder: Mapping[str, Any], name: str) -> str | None:
    value = holder.get(name)
    return value if isinstance(value, str) else None


def _id(holder: Mapping[str, Any], name: str) -> str:
    value = holder.get(name)
    if not isinstance(value, str) or identifier_fault(value):
        raise UnexpectedAnswer(f"the agent sent {name} {value!r:.80}, which is not an id of 1 to 256 characters")
    return value


def _metadata(holder: Mapping[str, Any]) -> dict[str, Any] | None:
    value = holder.get("metadata")
    return value if isinstance(value, dict) and value else None
