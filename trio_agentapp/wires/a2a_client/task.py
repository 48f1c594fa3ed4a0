"""Tasks of other agents, and the events that report them: the same objects for all versions of A2A."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeAlias

import attrs

from ...protocol.content import Content, TextContent
from ...protocol.message import Message

__all__ = [
    "A2AEvent",
    "A2AReply",
    "A2ATask",
    "Artifact",
    "ArtifactUpdate",
    "MessageReply",
    "StatusUpdate",
    "TaskSnapshot",
    "TaskState",
    "TaskStatus",
]


class TaskState(Enum):
    """The state of a task (A2A 1.0, section 4.1.3). The values are those of 0.3."""

    SUBMITTED = "submitted"
    WORKING = "working"
    INPUT_REQUIRED = "input-required"
    AUTH_REQUIRED = "auth-required"
    COMPLETED = "completed"
    CANCELED = "canceled"
    FAILED = "failed"
    REJECTED = "rejected"
    UNKNOWN = "unknown"
    """Also any state that this client does not know."""

    @property
    def is_terminal(self) -> bool:
        """Whether the task has ended for good."""
        return self in (TaskState.COMPLETED, TaskState.CANCELED, TaskState.FAILED, TaskState.REJECTED)

    @property
    def is_interrupted(self) -> bool:
        """Whether the task waits for a message of its client."""
        return self in (TaskState.INPUT_REQUIRED, TaskState.AUTH_REQUIRED)

    @property
    def is_over(self) -> bool:
        """Whether a stream ends here: the task has ended, or waits for its client."""
        return self.is_terminal or self.is_interrupted


@attrs.frozen
class TaskStatus:
    """A state, the message that came with it, and its time as the agent wrote it."""

    state: TaskState
    message: Message | None = None
    timestamp: str | None = None


@attrs.frozen
class Artifact:
    """A result of a task, or a piece of one."""

    id: str
    parts: tuple[Content, ...] = ()
    name: str | None = None
    description: str | None = None
    metadata: Mapping[str, Any] | None = None

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, TextContent))


@attrs.frozen
class A2ATask:
    """A task as its agent describes it."""

    id: str
    context_id: str
    status: TaskStatus
    artifacts: tuple[Artifact, ...] = ()
    history: tuple[Message, ...] = ()
    metadata: Mapping[str, Any] | None = None

    @property
    def state(self) -> TaskState:
        return self.status.state

    @property
    def messages(self) -> list[Message]:
        """The answer, which a handler may yield: a message for each artifact, then that of the last status."""
        answer = [Message(content=list(artifact.parts)) for artifact in self.artifacts if artifact.parts]
        if self.state.is_over and self.status.message is not None:
            answer.append(self.status.message)
        return answer

    @property
    def text(self) -> str:
        """The text of the answer. Artifacts and the message of the status are joined with line ends."""
        return A2AReply(self).text


@attrs.frozen
class TaskSnapshot:
    """The whole task: the first event of a stream."""

    task: A2ATask


@attrs.frozen
class StatusUpdate:
    """The task has another state, or a message."""

    task_id: str
    context_id: str
    status: TaskStatus
    metadata: Mapping[str, Any] | None = None


@attrs.frozen
class ArtifactUpdate:
    """An artifact, or with `append` a further piece of one. `last_chunk`: no piece follows."""

    task_id: str
    context_id: str
    artifact: Artifact
    append: bool = False
    last_chunk: bool = False
    metadata: Mapping[str, Any] | None = None


@attrs.frozen
class MessageReply:
    """The agent answers with a message, and there is no task."""

    message: Message
    context_id: str | None = None


@attrs.frozen
class A2AReply:
    """What an agent has answered to a message: a task that has ended or waits for input, or a message."""

    task: A2ATask | None
    message: Message | None = None
    context_id: str | None = None
    """Send it with the next message of the conversation."""

    @property
    def state(self) -> TaskState | None:
        """The state of the task; None: there is no task."""
        return None if self.task is None else self.task.state

    @property
    def task_id(self) -> str | None:
        return None if self.task is None else self.task.id

    @property
    def messages(self) -> list[Message]:
        """The answer. A handler may yield the messages."""
        if self.task is not None:
            return self.task.messages
        return [] if self.message is None else [self.message]

    @property
    def text(self) -> str:
        """The text of the answer. Its messages are joined with line ends."""
        return "\n".join(text for message in self.messages if (text := message.text))


A2AEvent: TypeAlias = TaskSnapshot | StatusUpdate | ArtifactUpdate | MessageReply
