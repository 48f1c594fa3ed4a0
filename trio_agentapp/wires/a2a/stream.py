"""A task as a stream: the spelling that writes the events of its run as A2A has them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from ...protocol.events import ContentEvent, Event, MessageEvent, ResponseEvent, StateEvent
from ...runs import Gap
from .reply import is_reply
from .task import Task
from .versions import Version

__all__ = ["TaskStream"]

PREAMBLE = b": a2a\n\n"


class TaskStream:
    """Writes a stream: first the task as it is, then its updates; or one bare message.

    A stream of JSON-RPC has a response object around each item: `request_id` is the JSON of its id; None: there is
    none, as in the HTTP+JSON binding.

    Args:
        ends_at_question: the stream ends when the task waits for an answer, and `turns` questions and answers
            have passed.
    """

    def __init__(
        self,
        task: Task,
        version: Version,
        request_id: bytes | None,
        *,
        history_length: int | None = None,
        ends_at_question: bool = True,
        turns: int = 0,
    ) -> None:
        self.preamble = PREAMBLE
        self.ended = False
        self._task = task
        self._version = version
        self._head = b"data: " if request_id is None else b'data: {"jsonrpc":"2.0","id":%b,"result":' % request_id
        self._tail = b"\n\n" if request_id is None else b"}\n\n"
        self._history_length = history_length
        self._ends_at_question = ends_at_question
        self._turns = turns
        self._announced = False
        self._pending: list[Event | Gap] = []
        """Events of a message that may be the whole answer."""
        self._held: dict[str, Any] | None = None
        """A whole part of an artifact, which is sent with the end of the artifact if that follows at once."""
        self._texts: dict[str, tuple[bytes, bytes, set[int]]] = {}
        """What stands around a further piece of text of an artifact, and the places of its streamed parts."""

    @property
    def announced(self) -> bool:
        """Whether the first frame was written, or is a bare message that is being waited for."""
        return self._announced or bool(self._pending)

    def announce(self) -> bytes:
        """Return the task as it is now, as the first frame."""
        task = self._task
        self._announced = True
        frame = self._frame("task", task.as_object(history_length=self._history_length))
        for artifact in task.artifacts.values():
            artifact.sent = bool(artifact.parts or artifact.pieces)
            artifact.parts.clear()
            artifact.pieces.clear()
        self.ended = task.terminal or self._is_interrupted()
        task.keeps_artifacts = False
        task.live = True
        return frame

    def begin_with_task(self) -> None:
        """Announce the task now, unless that was done."""
        if not self.announced:
            self.preamble += self.announce()

    def end_with_status(self) -> None:
        """Repeat the status, for clients that wait for an update which says that it is the last one."""
        task = self._task
        update = {"taskId": task.id, "contextId": task.context_id, "status": task.status()}
        self.preamble += self._frame("statusUpdate", update)

    def begin(self, events: Iterable[Event | Gap]) -> None:
        """Write events that were read before the stream begins."""
        self.preamble += b"".join(map(self.spell, events)) + self.settle()

    def spell(self, event: Event | Gap) -> bytes:
        if isinstance(event, ContentEvent) and event.delta and self._held is None:
            around = self._texts.get(event.msg_id)
            if around is not None and event.payload is None:
                around[2].add(event.index)
                return around[0] + orjson.dumps(event.text) + around[1]
        if self.ended or isinstance(event, StateEvent):
            # A2A has no words for a shared state.
            return b""
        return self._spell_next(event) if self._announced else self._spell_first(event)

    def settle(self) -> bytes:
        """Return what was held back for an event that has not come with the others."""
        held, self._held = self._held, None
        return b"" if held is None else self._frame("artifactUpdate", held)

    def trailer(self) -> bytes:
        return b""

    def _spell_first(self, event: ResponseEvent | MessageEvent | ContentEvent | Gap) -> bytes:
        """An event before the task is announced. A message of `a2a_reply` is held back until something follows."""
        if isinstance(event, ResponseEvent) and not event.terminal:
            self._task.apply(event)
            return b""
        self._pending.append(event)
        if isinstance(event, ResponseEvent):
            whole = Task(self._task.id, self._task.context_id)
            for each in self._pending:
                whole.apply(each)
            if (message := whole.reply) is not None:
                self._announced = self.ended = True
                return self._frame("message", message)
        elif not isinstance(event, Gap) and is_reply(event.msg_id if isinstance(event, ContentEvent) else event.id):
            return b""
        pending, self._pending = self._pending, []
        return self.announce() + b"".join(map(self.spell, pending))

    def _spell_next(self, event: ResponseEvent | MessageEvent | ContentEvent | Gap) -> bytes:
        task = self._task
        updates = task.apply(event)
        if task.gap:
            # What was missed cannot be told. The client subscribes again, and gets the task as it is then.
            self.ended = True
            return b""
        if isinstance(event, ContentEvent):
            if not event.delta:
                return b"".join(self._hold(value) for _, value in updates)
            if updates:
                streamed = task.artifacts[event.msg_id].streamed
                self._texts[event.msg_id] = (*self._around(event.msg_id), streamed)
        elif isinstance(event, MessageEvent):
            self._texts.pop(event.id, None)
        written = b"".join(self._update(kind, value) for kind, value in updates)
        if updates and (task.terminal or self._is_interrupted()):
            self.ended = True
        return written

    def _is_interrupted(self) -> bool:
        return self._ends_at_question and self._task.interrupted and self._task.turns > self._turns

    def _around(self, artifact_id: str) -> tuple[bytes, bytes]:
        head, tail = self._version.text_frame(self._task.id, self._task.context_id, artifact_id)
        return self._head + head, tail + self._tail

    def _hold(self, value: dict[str, Any]) -> bytes:
        before = self.settle()
        self._held = value
        return before

    def _update(self, kind: str, value: dict[str, Any]) -> bytes:
        held = self._held
        if held is not None and value.get("lastChunk") and _of(held) == _of(value):
            # The held part is the last one. Name, description and metadata are known now.
            self._held = None
            artifact = {**value["artifact"], "parts": held["artifact"]["parts"]}
            return self._frame(kind, {**value, "artifact": artifact, "append": held["append"]})
        return self.settle() + self._frame(kind, value)

    def _frame(self, kind: str, value: dict[str, Any]) -> bytes:
        final = kind == "statusUpdate" and (self._task.terminal or self._is_interrupted())
        return self._head + orjson.dumps(self._version.streamed(kind, value, final=final)) + self._tail


def _of(update: dict[str, Any]) -> str:
    return str(update["artifact"]["artifactId"])
