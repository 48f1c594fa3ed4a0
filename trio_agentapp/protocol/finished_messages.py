"""The messages of a response that are complete, and the tool calls among them that have no output yet."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence

from .content import Content, DataContent
from .events import MessageEvent
from .message import OUTPUT_OF, Message
from .open_message import OpenMessage
from .payload import plain_json

__all__ = ["FinishedMessages"]


class FinishedMessages:
    def __init__(self) -> None:
        self.events: list[MessageEvent] = []
        """The closing events, in the order in which the messages began, which is the order of a history."""
        self.unanswered: dict[str, str] = {}
        """The types of tool calls without an output, by their ids."""
        self._began: list[int] = []

    def add(self, message: OpenMessage, event: MessageEvent) -> None:
        """Add a message and its closing event."""
        place = bisect(self._began, message.began)
        self._began.insert(place, message.began)
        self.events.insert(place, event)
        self._note_call(message)

    def _note_call(self, message: OpenMessage) -> None:
        call_id = message.call_id()
        if call_id is None:
            return
        kind = message.frame.type
        if kind in OUTPUT_OF:
            self.unanswered[call_id] = kind
        elif call_id in self.unanswered and OUTPUT_OF[self.unanswered[call_id]] == kind:
            del self.unanswered[call_id]

    @property
    def by_completion(self) -> Sequence[MessageEvent]:
        """The closing events, in the order in which the messages were completed."""
        return sorted(self.events, key=lambda event: event.sequence_number)

    @property
    def messages(self) -> tuple[Message, ...]:
        """Copies of the messages, as clients received them."""
        return tuple(
            Message(
                role=event.role,
                type=event.type,
                content=[_copy(part.content) for part in event.content or ()],
                id=event.id,
                code=event.code,
                message=event.message,
                usage=plain_json(event.usage),
                metadata=plain_json(event.metadata),
                extra=plain_json(event.extra or {}),
            )
            for event in self.events
        )


def _copy(content: Content) -> Content:
    if isinstance(content, DataContent):
        return DataContent(plain_json(content.data))
    return content
