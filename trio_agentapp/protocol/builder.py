"""Turns what a handler yields into the numbered events of one response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs

from ..errors import ItemError
from .content import GROWING, Content, DataContent, RefusalContent, TextContent, payload_of
from .events import ENVELOPE, ContentEvent, Event, Failure, MessageEvent, ResponseEvent, StateEvent, Status
from .finished_messages import FinishedMessages
from .ids import new_message_id
from .items import mass_of, plain_item
from .message import OUTPUT_OF, Message
from .open_message import OpenMessage, OpenPart, text_of
from .payload import clean_text, is_half, plain_json
from .shared_state import SharedState

__all__ = ["MAX_ANSWER_BYTES", "AnswerTooLarge", "ResponseBuilder"]

MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""Estimated bytes of one answer. The terminal event repeats the whole answer, the history of the session keeps it,
and both are held in memory when they are read."""

INTERRUPTED = "interrupted"
"""The output of a tool call whose run ended first; without one, models refuse the history in the next turn."""

MAX_ASIDE = 64
"""Messages with ids that may be open beside the current one; if there are more, the oldest is completed."""

_Closing = Literal["completed", "incomplete"]


class AnswerTooLarge(Exception):
    """The item would make the answer larger than `MAX_ANSWER_BYTES`; nothing was added."""


class ResponseBuilder:
    """Turns items into events: numbered from 0 without gaps, every part and message closed, one terminal event.

    Call `start`, then `add` for each item, then one of `complete`, `stop`, `fail` and `reject`. The last three may
    also be called before `start`; then the terminal event is the only one. Any other order is a RuntimeError. Each
    method returns the events it caused, in order. Times are whole seconds since the epoch.

    One message is *current*: items without an id go there. Messages with ids from the handler may grow alternately.
    Those that are open but not current are kept *aside*. When an item belongs to another message, the current one
    is completed, or put aside if it may continue.
    """

    def __init__(self, run_id: str, session_id: str | None, *, created_at: int) -> None:
        self.run_id = run_id
        self.id = "response_" + run_id
        self.session_id = session_id
        self.created_at = created_at
        self._phase: Literal["new", "live", "ended"] = "new"
        self._next = 0
        self._message: OpenMessage | None = None
        # Open messages that are not current, by the ids that the handler gave them.
        self._aside: dict[str, OpenMessage] = {}
        # The open text part to which strings are appended. If it is set, `add` takes its fast path.
        self._text_part: OpenPart | None = None
        # The first half of a surrogate pair, if the last piece of text ended with one.
        self._half = ""
        self._finished = FinishedMessages()
        self._ids: set[str] = set()
        self._usage: dict[str, Any] | None = None
        self.state: SharedState | None = None
        """The state that clients show, if the run has one. The end of the response sends its last changes."""
        self._size = 0

    @property
    def usage(self) -> Mapping[str, Any] | None:
        """What the run used, for the terminal event. Setting it to anything but a JSON object raises ItemError."""
        return self._usage

    @usage.setter
    def usage(self, usage: Mapping[str, Any] | None) -> None:
        if usage is not None and not isinstance(usage, Mapping):
            raise ItemError(f"usage must be a mapping, not {type(usage).__name__}")
        self._usage = plain_json(usage, "$.usage")

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages completed so far, as clients received them; after the end, all messages of the run."""
        return self._finished.messages

    @property
    def finished(self) -> Sequence[MessageEvent]:
        """The closing events of the messages completed so far, in the order in which they were completed."""
        return self._finished.by_completion

    @property
    def has_output(self) -> bool:
        """Whether a message was begun."""
        return bool(self._message or self._aside or self._finished.events)

    def recap(self) -> Sequence[Event]:
        """Return events that repeat the messages so far, for a reader that has missed some of them.

        For a completed message it is the last event. For an open message these are the first event, the completed
        parts, and the text of the open part as one delta. Their sequence numbers have no meaning.
        """
        events: list[Event] = list(self._finished.events)
        for message in (*self._aside.values(), self._message):
            if message is None:
                continue
            frame, part = message.frame, message.part
            events.append(MessageEvent(-1, "in_progress", message.id, frame.type, frame.role))
            events += message.done
            if part is not None and part.kind == "text":
                events.append(ContentEvent(-1, "in_progress", "text", part.index, True, message.id, part.joined()))
        return events

    def start(self) -> Sequence[Event]:
        """Return the first two events: created, in progress."""
        self._require("new")
        self._phase = "live"
        return (self._response("created"), self._response("in_progress"))

    def add(self, item: object) -> Sequence[Event]:
        """Return the events of one item.

        str: appended to the open text. Content: a delta is appended to the open part of its type; other content
        becomes a new part. Message: a complete message. `(msg, last)`: each copy of the message has all of its
        content so far, and it stays open until `last`; messages with different ids may grow in turns. dict: the
        message or content that it describes. None: no event.

        Raises ItemError for any other type and for values that have no form in JSON, and AnswerTooLarge if the
        answer would be too large. Then nothing has changed.
        """
        # Most items are tokens of text, so they pass no check that they do not need (docs/discussion/hot-path.md).
        if type(item) is str:
            part = self._text_part
            if part is not None and item:
                if self._half or not item.isascii():
                    item = self._joined(item)
                    if not item:
                        return ()
                size = self._size + (len(item) if item.isascii() else len(item.encode()))
                if size > MAX_ANSWER_BYTES:
                    raise AnswerTooLarge
                self._size = size
                part.pieces.append(item)
                number = self._next
                self._next = number + 1
                return (ContentEvent(number, "in_progress", "text", part.index, True, part.msg_id, item),)
        self._require("live")
        last: bool | None = None
        if isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], bool):
            item, last = item
        events: list[Event] = []
        if isinstance(item, TextContent) and item.delta and isinstance(item.text, str):
            item = item.text
        if isinstance(item, str):
            item = self._joined(item)
        plain = plain_item(item, growing=last is False)
        added = mass_of(plain)
        size = self._size + added
        if isinstance(plain, Message) and last is not None:
            size -= self._repeated(plain)
        if size > MAX_ANSWER_BYTES:
            raise AnswerTooLarge
        if plain is not None and not isinstance(plain, str):
            self._give_up_half(events)
        if isinstance(plain, Message):
            self._add_message(plain, last, events)
        else:
            if isinstance(plain, str):
                plain = TextContent(plain, delta=True)
            if plain is not None:
                self._add_content(plain, events)
            if last:
                self._close_message("completed", events)
        wholes = sum(not (isinstance(event, ContentEvent) and event.delta) for event in events)
        self._size = size + ENVELOPE * wholes
        if isinstance(plain, Message) and self._message is not None:
            self._message.size = added
        return events

    def take_state(self) -> Sequence[Event]:
        """Return the event that sends the changes of the state; no event if there are none."""
        if self._phase != "live" or self.state is None or not self.state.pending:
            return ()
        taken = self.state.take()
        if taken is None:
            return ()
        whole, patch = taken
        return (StateEvent(self._number(), whole is None, whole, patch),)

    def _repeated(self, message: Message) -> int:
        """Return the size in bytes of the earlier copy of a cumulative message; 0 if there is none."""
        for known in (self._message, self._aside.get(message.id or "")):
            if known is not None and known.continued_by(message):
                return known.size
        return 0

    def _joined(self, text: str) -> str:
        """Return the text after the half of a surrogate pair that the last piece ended with.

        Keep a half at its end.
        """
        text = self._half + text
        self._half = text[-1] if is_half(text) else ""
        return clean_text(text[:-1] if self._half else text)

    def _give_up_half(self, events: list[Event]) -> None:
        if self._half:
            self._half = ""
            self._add_content(TextContent("\ufffd", delta=True), events)

    def complete(self, *, completed_at: int) -> Sequence[Event]:
        """The handler returned: complete open messages."""
        self._require("live")
        return self._end("completed", None, completed_at)

    def stop(self, reason: str, *, completed_at: int) -> Sequence[Event]:
        """The run was stopped: open messages end as incomplete, and unanswered tool calls get an output."""
        return self._end("canceled", Failure("stopped", clean_text(reason)), completed_at)

    def fail(self, code: str, message: str, *, completed_at: int) -> Sequence[Event]:
        """The run failed: open messages end as incomplete, and unanswered tool calls get an output."""
        return self._end("failed", Failure(clean_text(code), clean_text(message)), completed_at)

    def reject(self, code: str, message: str, *, completed_at: int) -> Sequence[Event]:
        """The agent refused the request."""
        return self._end("rejected", Failure(clean_text(code), clean_text(message)), completed_at)

    def _require(self, phase: Literal["new", "live"]) -> None:
        if self._phase != phase:
            fault = {"new": "was not started", "live": "was already started", "ended": "has ended"}[self._phase]
            raise RuntimeError(f"the response {fault}")

    def _number(self) -> int:
        number = self._next
        self._next = number + 1
        return number

    def _response(
        self,
        status: Status,
        *,
        failure: Failure | None = None,
        completed_at: int | None = None,
        output: tuple[MessageEvent, ...] | None = None,
    ) -> ResponseEvent:
        return ResponseEvent(
            sequence_number=self._number(),
            status=status,
            id=self.id,
            created_at=self.created_at,
            completed_at=completed_at,
            output=output,
            usage=self._usage if output is not None else None,
            session_id=self.session_id,
            error=failure,
        )

    def _end(self, status: Status, failure: Failure | None, completed_at: int) -> Sequence[Event]:
        if self._phase == "ended":
            raise RuntimeError("the response has ended")
        events: list[Event] = []
        if self._phase == "live":
            self._give_up_half(events)
            events += self.take_state()
        status_of_open: _Closing = "completed" if failure is None else "incomplete"
        self._close_message(status_of_open, events)
        while self._aside:
            self._take_up(next(iter(self._aside)))
            self._close_message(status_of_open, events)
        if failure is not None:
            for call_id, kind in list(self._finished.unanswered.items()):
                answer = DataContent({"call_id": call_id, "output": INTERRUPTED})
                self._add_message(Message(role="tool", type=OUTPUT_OF[kind], content=[answer]), None, events)
        self._phase = "ended"
        output = tuple(self._finished.events)
        events.append(self._response(status, failure=failure, completed_at=completed_at, output=output))
        return events

    def _add_content(self, content: Content, events: list[Event]) -> None:
        if content.delta and text_of(content) == "":
            return
        message = self._message
        takes = message is not None and (message.takes_text or (content.type == "data" and message.takes_data))
        if message is None or not (takes and (content.delta or message.takes_text)):
            self._put_aside(events)
            message = self._open_message(Message(), events, cumulative=False)
        if content.delta:
            self._grow(message, content, events)
        else:
            self._whole(message, content, events)

    def _add_message(self, message: Message, last: bool | None, events: list[Event]) -> None:
        opened = self._message
        aside = self._aside.get(message.id) if message.id is not None else None
        if last is not None and opened is not None and opened.continued_by(message):
            opened.check_continuation(message.content)
        elif last is not None and aside is not None and aside.continued_by(message):
            aside.check_continuation(message.content)
            self._put_aside(events)
            opened = self._take_up(aside.frame.id or "")
        else:
            if last is None or message.id is not None:
                self._put_aside(events)
            else:
                self._close_message("completed", events)
            if message.type in OUTPUT_OF.values():
                self._close_calls(events)
            opened = self._open_message(message, events, cumulative=last is not None)
        if last is None:
            for part in message.content:
                self._whole(opened, part, events)
        else:
            self._catch_up(opened, message.content, last, events)
            opened.frame = attrs.evolve(message, id=opened.frame.id)
        if last is not False:
            self._close_message("completed", events)

    def _put_aside(self, events: list[Event]) -> None:
        """Make room for another current message: complete the current one, or put it aside if it may continue."""
        message = self._message
        # Deltas of data do not name their message. So a tool call that has received one cannot continue after
        # another item.
        grown = message is not None and message.takes_data and message.part is not None
        if message is None or grown or not message.cumulative or message.frame.id is None:
            self._close_message("completed", events)
            return
        self._message = self._text_part = None
        if message.frame.id in self._aside:
            self._close_aside(message.frame.id, events)
        self._aside[message.frame.id] = message
        if len(self._aside) > MAX_ASIDE:
            self._close_aside(next(iter(self._aside)), events)

    def _close_calls(self, events: list[Event]) -> None:
        """Complete the open tool calls before an output.

        Otherwise they count as unanswered and get a second output.
        """
        for id in [id for id, message in self._aside.items() if message.frame.type in OUTPUT_OF]:
            self._close_aside(id, events)

    def _close_aside(self, id: str, events: list[Event]) -> None:
        self._take_up(id)
        self._close_message("completed", events)

    def _take_up(self, id: str) -> OpenMessage:
        message = self._message = self._aside.pop(id)
        part = message.part
        self._text_part = part if part is not None and message.takes_text and part.kind == "text" else None
        return message

    def _catch_up(self, message: OpenMessage, parts: list[Content], last: bool, events: list[Event]) -> None:
        """Send what a cumulative message has more than its last copy. `check_continuation` has accepted it."""
        message.held = None
        for place in range(max(len(message.seen) - 1, 0), len(parts)):
            content = parts[place]
            text = text_of(content)
            if place < len(message.seen):
                grown = message.seen[place]
                if isinstance(grown, OpenPart) and text and (more := text[len(grown.joined()) :]):
                    self._grow(message, _piece(content, more), events)
            elif text:
                self._close_part("completed", events)
                message.seen.append(self._grow(message, _piece(content, text), events))
            elif content.type in GROWING and place == len(parts) - 1 and not last:
                # The arguments of a tool call grow, too, but clients cannot use half of a JSON object, so they
                # wait.
                message.held = content
            else:
                message.seen.append(content)
                self._whole(message, content, events)

    def _open_message(self, frame: Message, events: list[Event], *, cumulative: bool) -> OpenMessage:
        # To a client, two messages of a response with one id would be one message.
        given = frame.id is not None and frame.id not in self._ids
        id = frame.id if given and frame.id is not None else new_message_id()
        self._ids.add(id)
        number = self._number()
        message = self._message = OpenMessage(id, frame, cumulative=cumulative, began=number)
        events.append(MessageEvent(number, "in_progress", id, frame.type, frame.role))
        return message

    def _grow(self, message: OpenMessage, content: Content, events: list[Event]) -> OpenPart:
        part = message.part
        if part is None or part.kind != content.type:
            self._close_part("completed", events)
            part = message.part = OpenPart(content.type, message.count, message.id)
            message.count += 1
            if message.takes_text and part.kind == "text":
                self._text_part = part
        text, payload = part.take(content)
        events.append(
            ContentEvent(self._number(), "in_progress", part.kind, part.index, True, message.id, text, payload)
        )
        return part

    def _whole(
        self, message: OpenMessage, content: Content, events: list[Event], status: _Closing = "completed"
    ) -> None:
        self._close_part("completed", events)
        text, payload = (content.text, None) if isinstance(content, TextContent) else ("", payload_of(content))
        self._finish_part(message, content.type, message.count, text, payload, status, events)
        message.count += 1

    def _close_part(self, status: _Closing, events: list[Event]) -> None:
        message = self._message
        if message is None or message.part is None:
            return
        part, message.part, self._text_part = message.part, None, None
        self._finish_part(message, part.kind, part.index, *part.whole(), status, events)

    def _finish_part(
        self,
        message: OpenMessage,
        kind: Any,
        index: int,
        text: str,
        payload: dict[str, Any] | None,
        status: _Closing,
        events: list[Event],
    ) -> None:
        event = ContentEvent(self._number(), status, kind, index, False, message.id, text, payload)
        message.done.append(event)
        events.append(event)

    def _close_message(self, status: _Closing, events: list[Event]) -> None:
        message = self._message
        if message is None:
            return
        if message.held is not None:
            self._whole(message, message.held, events, status)
        self._close_part(status, events)
        frame = message.frame
        event = MessageEvent(
            sequence_number=self._number(),
            status=status,
            id=message.id,
            type=frame.type,
            role=frame.role,
            content=tuple(message.done),
            code=frame.code,
            message=frame.message,
            usage=frame.usage,
            metadata=frame.metadata,
            extra=frame.extra or None,
        )
        events.append(event)
        self._finished.add(message, event)
        self._message = None


def _piece(content: Content, text: str) -> Content:
    """Return the delta that adds text to a part of the content's type."""
    return RefusalContent(text, True) if content.type == "refusal" else TextContent(text, True)
