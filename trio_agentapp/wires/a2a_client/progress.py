"""What a reader has received of one task, so that a stream that was cut goes on without loss or doubling."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import attrs

from ...protocol.content import Content, TextContent
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

__all__ = ["Progress"]

MAX_REPEATED = 64
"""Parts at the end of an artifact that may come again."""

MAX_REPEATED_TEXT = 64 * 1024
"""Characters at the end of a text that may come again."""


class Progress:
    """The task as its reader knows it.

    A2A gives events no numbers: after a cut the agent sends the whole task, and then what follows. So `renewed`
    compares the task with what was received. It returns what is new as updates. If the task is behind what was
    received (an agent may store it later than it streams), the next updates are dropped until they are new. The
    task may also be ahead of the updates that follow it: `may_repeat` finds those that it may already have, and
    `repeats` compares them with a younger copy of the task.
    """

    def __init__(self) -> None:
        self.task: A2ATask | None = None
        self.reply: MessageReply | None = None
        self._artifacts: dict[str, _Received] = {}
        self._messages: set[str] = set()
        """Ids of the messages that the reader has seen."""

    def received(self, event: A2AEvent) -> A2AEvent | None:
        """Note an event. Returns what of it is new to the reader; None: nothing."""
        if isinstance(event, MessageReply):
            self.reply = event
            return event
        if isinstance(event, TaskSnapshot):
            self._begin(event.task)
            return event
        if self.task is None:
            self.task = A2ATask(event.task_id, event.context_id, TaskStatus(TaskState.UNKNOWN))
        if isinstance(event, StatusUpdate):
            return event if self._note_status(event.status) else None
        artifact = event.artifact
        known = self._artifacts.get(artifact.id)
        if known is None or not (event.append or known.joining):
            self._artifacts[artifact.id] = _Received(artifact)
            return event
        fresh = known.append(artifact) if event.append else known.compare(artifact)
        if fresh is None:
            return None
        return attrs.evolve(event, artifact=attrs.evolve(artifact, parts=fresh.parts), append=fresh.append)

    def renewed(self, task: A2ATask) -> list[A2AEvent]:
        """Compare the whole task with what was received. Returns what is new to the reader, as updates."""
        if self.task is None:
            self._begin(task)
            return [TaskSnapshot(task)]
        news: list[A2AEvent] = []
        for message in task.history:
            if message.role == "assistant" and self._is_new(message.metadata):
                news.append(StatusUpdate(task.id, task.context_id, TaskStatus(self.task.state, message)))
        stored = {artifact.id for artifact in task.artifacts}
        for id in self._artifacts.keys() - stored:
            # The task is behind: it does not have this one yet.
            self._artifacts[id].compare(attrs.evolve(self._artifacts[id].whole(), parts=()))
        for artifact in task.artifacts:
            known = self._artifacts.get(artifact.id)
            if known is None:
                known = self._artifacts[artifact.id] = _Received(artifact)
                known.joining = True
                news.append(ArtifactUpdate(task.id, task.context_id, artifact))
            elif (fresh := known.compare(artifact)) is not None:
                changed = attrs.evolve(artifact, parts=fresh.parts)
                news.append(ArtifactUpdate(task.id, task.context_id, changed, append=fresh.append))
        if self._note_status(task.status):
            news.append(StatusUpdate(task.id, task.context_id, task.status))
        return news

    def may_repeat(self, event: A2AEvent) -> bool:
        """Whether this may be a piece of an artifact that the task of the last `renewed` already had."""
        if not isinstance(event, ArtifactUpdate) or not event.append:
            return False
        known = self._artifacts.get(event.artifact.id)
        return known is not None and known.joining and known.behind is None and known.has(event.artifact)

    def repeats(self, event: ArtifactUpdate, task: A2ATask) -> bool:
        """Whether it is such a piece. `task` is younger than the event: if it were new, the task would have it."""
        stored = next((each for each in task.artifacts if each.id == event.artifact.id), None)
        return stored is not None and self._artifacts[event.artifact.id].is_not_extended(event.artifact, stored)

    def whole(self) -> A2ATask | None:
        """Return the task with all that was received."""
        if self.task is None:
            return None
        artifacts = tuple(received.whole() for received in self._artifacts.values())
        return attrs.evolve(self.task, artifacts=artifacts)

    def _begin(self, task: A2ATask) -> None:
        self.task = task
        self._artifacts = {artifact.id: _Received(artifact) for artifact in task.artifacts}
        for message in (*task.history, task.status.message):
            if message is not None:
                self._is_new(message.metadata)

    def _note_status(self, status: TaskStatus) -> bool:
        """Note a status. Returns whether it says something new: another state, or a new message."""
        assert self.task is not None  # noqa: S101  every caller has made it
        before = self.task.status
        self.task = attrs.evolve(self.task, status=status)
        if status.message is not None and (status.message.metadata or {}).get("messageId"):
            return self._is_new(status.message.metadata) or status.state is not before.state
        return (status.state, status.message) != (before.state, before.message)

    def _is_new(self, metadata: object) -> bool:
        id = metadata.get("messageId") if isinstance(metadata, dict) else None
        if not isinstance(id, str):
            return False
        new = id not in self._messages
        self._messages.add(id)
        return new


@attrs.frozen
class _Fresh:
    """The parts of an artifact that its reader has not seen. `append`: they follow what it has."""

    parts: tuple[Content, ...]
    append: bool


class _Received:
    """One artifact. Neighbouring texts are one text: an agent may store its pieces joined, or one by one."""

    def __init__(self, artifact: Artifact) -> None:
        self._frame = attrs.evolve(artifact, parts=())
        self._parts: list[Content] = []
        self._pieces: list[str] = []
        """The text behind the parts; joined when it is asked for, so that a piece costs its own length."""
        self.behind: list[Content] | None = None
        """The artifact as the agent stores it, while that is behind what the reader has."""
        self.joining = False
        """It was compared with the stored one, and no new piece has come since."""
        self._add(artifact.parts)

    def whole(self) -> Artifact:
        return attrs.evolve(self._frame, parts=tuple(self._joined()))

    def append(self, piece: Artifact) -> _Fresh | None:
        if self.behind is None:
            self.joining = False
            self._add(piece.parts)
            return _Fresh(piece.parts, append=True)
        return self._compare(_merged([*self.behind, *piece.parts]))

    def compare(self, artifact: Artifact) -> _Fresh | None:
        """Return what a copy of the artifact has more, or all of it if it is another one."""
        self._frame = attrs.evolve(artifact, parts=())
        self.joining = True
        return self._compare(_merged(artifact.parts))

    def has(self, piece: Artifact) -> bool:
        """Whether the end of the artifact has the piece somewhere."""
        wanted, mine = _merged(piece.parts), self._joined()[-MAX_REPEATED:]
        text = wanted[0].text if len(wanted) == 1 and isinstance(wanted[0], TextContent) else None
        if text is None:
            return all(part in mine or isinstance(part, TextContent) for part in wanted)
        return any(isinstance(part, TextContent) and text in part.text[-MAX_REPEATED_TEXT:] for part in mine)

    def is_not_extended(self, piece: Artifact, stored: Artifact) -> bool:
        """Whether the stored artifact has what was received, and not the piece behind it."""
        mine, theirs = self._joined(), _merged(stored.parts)
        return _rest(theirs, mine) is not None and _rest(theirs, _merged([*mine, *piece.parts])) is None

    def _compare(self, theirs: list[Content]) -> _Fresh | None:
        mine = self._joined()
        if (rest := _rest(theirs, mine)) is not None:
            self.behind = None
            self._add(rest)
            return _Fresh(tuple(rest), append=True) if rest else None
        if _rest(mine, theirs) is not None:
            self.behind = theirs
            return None
        self.behind, self._parts, self._pieces = None, theirs, []
        return _Fresh(tuple(theirs), append=False)

    def _add(self, parts: Iterable[Content]) -> None:
        for part in parts:
            if isinstance(part, TextContent):
                self._pieces.append(part.text)
            else:
                self._parts = self._joined()
                self._parts.append(part)

    def _joined(self) -> list[Content]:
        if self._pieces:
            text, self._pieces = "".join(self._pieces), []
            self._parts = _merged([*self._parts, TextContent(text)])
        return self._parts


def _merged(parts: Iterable[Content]) -> list[Content]:
    """The parts with neighbouring texts joined, and without empty ones."""
    merged: list[Content] = []
    for is_text, group in itertools.groupby(parts, lambda part: isinstance(part, TextContent)):
        if not is_text:
            merged.extend(group)
        elif text := "".join(part.text for part in group if isinstance(part, TextContent)):
            merged.append(TextContent(text))
    return merged


def _rest(longer: list[Content], shorter: list[Content]) -> list[Content] | None:
    """The parts of `longer` behind those of `shorter`; None if it does not begin with them. Both are merged."""
    if not shorter:
        return longer
    place = len(shorter) - 1
    if len(longer) <= place or longer[:place] != shorter[:place]:
        return None
    last, same = shorter[place], longer[place]
    if last == same:
        return longer[place + 1 :]
    if isinstance(last, TextContent) and isinstance(same, TextContent) and same.text.startswith(last.text):
        return [TextContent(same.text[len(last.text) :]), *longer[place + 1 :]]
    return None
