"""The answer of another agent as items that a handler may yield."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from ...protocol.content import Content, TextContent
from ...protocol.message import Message
from .task import A2AEvent, Artifact, ArtifactUpdate, MessageReply, StatusUpdate, TaskSnapshot, TaskStatus

__all__ = ["Answer", "Item"]

Item: TypeAlias = str | Content | Message | tuple[str, bool]
"""What a handler may yield. `("", True)` ends a message."""


class Answer:
    """Turns events into items: one message for each artifact, which grows while its pieces arrive.

    The message of a status is a message of its own. While the task works, it reports progress and is not part of
    the answer, so it becomes `reasoning`.
    """

    def __init__(self) -> None:
        self._open: str | None = None
        """The id of the artifact whose message is open."""

    def items(self, event: A2AEvent) -> Iterator[Item]:
        """Return the items of an event."""
        if isinstance(event, ArtifactUpdate):
            yield from self._artifact(event.artifact, last=event.last_chunk)
            return
        if isinstance(event, MessageReply):
            yield event.message
        elif isinstance(event, StatusUpdate):
            yield from self._status(event.status)
        elif isinstance(event, TaskSnapshot):
            for artifact in event.task.artifacts:
                yield from self._artifact(artifact, last=False)
            yield from self._status(event.task.status)

    def _artifact(self, artifact: Artifact, *, last: bool) -> Iterator[Item]:
        if self._open != artifact.id:
            yield from self._close()
        self._open = artifact.id
        for part in artifact.parts:
            yield part.text if isinstance(part, TextContent) else part
        if last:
            yield from self._close()

    def _status(self, status: TaskStatus) -> Iterator[Item]:
        message = status.message
        if message is None or not message.content or message.role == "user":
            return
        if status.state.is_over:
            yield from self._close()
            yield message
        elif message.text:
            yield from self._close()
            yield Message.reasoning(message.text)

    def _close(self) -> Iterator[Item]:
        if self._open is not None:
            self._open = None
            yield ("", True)
