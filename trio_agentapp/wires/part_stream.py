"""The events of a run as front ends show them: texts, reasoning, tool calls and their results, steps, a state.

`PartStream` follows the events and keeps what a protocol needs to know: which message is open, which text grows,
how much of a tool call's arguments was sent. A protocol only writes the frames.

A *step* is what an agent does between two results of tools: an answer of a model, with its tool calls and their
results.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import attrs
import orjson

from ..protocol.content import payload_of
from ..protocol.events import ContentEvent, Event, MessageEvent, ResponseEvent, StateEvent
from ..protocol.message import OUTPUT_OF
from ..protocol.payload import json_text
from ..runs import Gap
from .growing_call import GrowingCall

__all__ = ["OpenMessage", "PartStream", "data_frame", "whole_of"]

Kind: TypeAlias = Literal["text", "reasoning", "call", "output", "question", "answer", "silent", "other"]

_KINDS: dict[str, Kind] = {
    "message": "text",
    "reasoning": "reasoning",
    "heartbeat": "silent",
    "mcp_approval_request": "question",
    "mcp_approval_response": "answer",
    **dict.fromkeys(OUTPUT_OF, "call"),
    **dict.fromkeys(OUTPUT_OF.values(), "output"),
}

_TEXTS = ("text", "refusal")
"""Types of content that people read as text."""


def data_frame(fields: Mapping[str, Any]) -> bytes:
    """Return one frame of an event stream: a `data` line with JSON."""
    return b"data: %b\n\n" % orjson.dumps(fields)


def whole_of(event: MessageEvent) -> dict[str, Any]:
    """Return what a message of a type without frames of its own is made of."""
    more = {"code": event.code, "message": event.message, "metadata": event.metadata}
    return {
        "content": [{"type": part.type, **payload_of(part.content)} for part in event.content or ()],
        **{name: value for name, value in more.items() if value is not None},
    }


@attrs.define
class OpenMessage:
    """A message whose end was not seen yet."""

    id: str
    type: str
    role: str
    kind: Kind
    part: int | None = None
    """The index of the text part that grows."""
    begun: bool = False
    """A frame of it was sent."""
    call: GrowingCall = attrs.field(factory=GrowingCall)

    def part_id(self, part: int) -> str:
        """The id of a part of it, for protocols in which each part has one."""
        return f"{self.id}.{part}" if part else self.id


class PartStream(ABC):
    """A `Spelling` that writes what front ends show.

    Args:
        is_open: whether a question still waits for its answer. At one that does, the stream ends.
        on_question: called before the stream ends at a question.
    """

    preamble: bytes

    def __init__(self, *, is_open: Callable[[str], bool], on_question: Callable[[], object]) -> None:
        self.ended = False
        self.in_sync = True
        """The client has got every change of the run's state."""
        self.lossy = False
        """Events were lost, because the client read too slowly."""
        self.unanswered: dict[str, None] = {}
        """The ids of tool calls that have no result yet, in their order."""
        self._is_open = is_open
        self._on_question = on_question
        self._open: dict[str, OpenMessage] = {}
        self._step = 0
        self._steps = 0
        self._result_seen = False
        # The text that grows, and the frame of its next piece without the piece.
        self._growing: str | None = None
        self._growing_part = 0
        self._head = b""

    # What a protocol writes.

    @abstractmethod
    def text_begins(self, message: OpenMessage, part: int) -> bytes:
        """A text or reasoning begins."""

    @abstractmethod
    def text_head(self, message: OpenMessage, part: int) -> bytes:
        """The frame of a piece of text, up to the piece as JSON. It ends with `}` and an empty line."""

    @abstractmethod
    def text_ends(self, message: OpenMessage, part: int) -> bytes:
        """A text or reasoning ends; the message may go on."""

    @abstractmethod
    def message_ends(self, message: OpenMessage) -> bytes:
        """A message ends of which something was sent."""

    @abstractmethod
    def call_begins(self, message: OpenMessage) -> bytes: ...

    @abstractmethod
    def call_grows(self, message: OpenMessage, piece: str) -> bytes:
        """A piece of a call's arguments, as text."""

    @abstractmethod
    def call_ends(self, message: OpenMessage, arguments: str) -> bytes: ...

    @abstractmethod
    def result(self, message: OpenMessage, call_id: str, output: Any) -> bytes:
        """The result of a tool call."""

    @abstractmethod
    def medium(self, message: OpenMessage, part: ContentEvent) -> bytes:
        """A part of a message that is not text: an image, a file, data."""

    @abstractmethod
    def other(self, event: MessageEvent) -> bytes:
        """A whole message of a type for which this protocol has no frames."""

    @abstractmethod
    def state_changes(self, event: StateEvent) -> bytes: ...

    @abstractmethod
    def step_begins(self, number: int) -> bytes: ...

    @abstractmethod
    def step_ends(self, number: int) -> bytes: ...

    @abstractmethod
    def question(self, event: MessageEvent, data: Mapping[str, Any], waits: bool) -> bytes:
        """A question. `waits`: the stream ends with what this returns."""

    @abstractmethod
    def answer(self, event: MessageEvent, data: Mapping[str, Any]) -> bytes:
        """The answer to a question."""

    @abstractmethod
    def end(self, event: ResponseEvent) -> bytes:
        """The run has ended. All that was open is closed."""

    # What the stream calls.

    def spell(self, event: Event | Gap) -> bytes:
        # Nearly every event is the next piece of the text that grows.
        if (
            type(event) is ContentEvent
            and event.delta
            and event.msg_id == self._growing
            and event.index == self._growing_part
            and event.payload is None
        ):
            return b"%b%b}\n\n" % (self._head, orjson.dumps(event.text))
        return b"" if self.ended else self._spelled(event)

    def trailer(self) -> bytes:
        return b""

    def _spelled(self, event: Event | Gap) -> bytes:
        if isinstance(event, ContentEvent):
            return self._content(event)
        if isinstance(event, MessageEvent):
            return self._message_begins(event) if event.content is None else self._message_ends(event)
        if isinstance(event, StateEvent):
            return self._state(event)
        if isinstance(event, Gap):
            self.lossy, self.in_sync = True, False
        elif event.terminal:
            return self.close_open() + self.end(event)
        return b""

    def close_open(self) -> bytes:
        """End messages, texts and the step that are open."""
        frames = b"".join(map(self._end_of, [*self._open.values()]))
        self._open.clear()
        return frames + self._leave_step()

    def enter_step(self) -> bytes:
        """Begin a step, if none is open or the open one has its results."""
        if self._step and not self._result_seen:
            return b""
        left = self._leave_step()
        self._steps += 1
        self._step = self._steps
        return left + self.step_begins(self._step)

    def _leave_step(self) -> bytes:
        step, self._step, self._result_seen = self._step, 0, False
        return self.step_ends(step) if step else b""

    def _state(self, event: StateEvent) -> bytes:
        # After lost events a patch would fit to nothing, until the whole state comes again.
        self.in_sync = self.in_sync or not event.delta
        return self.state_changes(event) if self.in_sync else b""

    def _message_begins(self, event: MessageEvent) -> bytes:
        kind = _KINDS.get(event.type, "other")
        self._open[event.id] = OpenMessage(event.id, event.type, event.role, kind)
        return b""

    def _message_ends(self, event: MessageEvent) -> bytes:
        frames = b""
        parts = event.content or ()
        if event.id not in self._open:
            # Its beginning was lost.
            self._message_begins(event)
            frames = b"".join(map(self._content, parts))
        message = self._open.pop(event.id)
        if message.kind == "other":
            return frames + self.enter_step() + self.other(event)
        if message.kind in ("question", "answer") and parts and isinstance(parts[-1].data, Mapping):
            return frames + self._asked_or_answered(event, message, parts[-1].data)
        return frames + self._end_of(message)

    def _asked_or_answered(self, event: MessageEvent, message: OpenMessage, data: Mapping[str, Any]) -> bytes:
        if message.kind == "answer":
            return self.answer(event, data)
        if not self._is_open(str(data.get("id"))):
            return self.question(event, data, False)
        self._on_question()
        self.ended = True
        return self.question(event, data, True)

    def _end_of(self, message: OpenMessage) -> bytes:
        frames = b""
        if message.kind == "call":
            if message.call.begun:
                # Its last part was lost, or the run has ended before it was complete.
                frames = self.call_ends(message, "")
        elif message.part is not None:
            frames = self._text_ends(message)
        return frames + self.message_ends(message) if message.begun else frames

    def _content(self, event: ContentEvent) -> bytes:
        message = self._open.get(event.msg_id)
        if message is None:
            return b""
        if message.kind in ("text", "reasoning"):
            return self._text(message, event)
        if event.type != "data" or not isinstance(event.data, Mapping):
            return b""
        if message.kind == "call":
            return self._call_grows(message, event.data) if event.delta else self._call_ends(message, event.data)
        if message.kind == "output" and not event.delta:
            return self._result(message, event.data)
        return b""

    # Texts.

    def _text(self, message: OpenMessage, event: ContentEvent) -> bytes:
        if event.type not in _TEXTS:
            if event.delta:
                return b""
            frames = self.enter_step() + self.medium(message, event)
            message.begun = True
            return frames
        text = event.text or event.refusal
        if not event.delta and message.part == event.index:
            return self._text_ends(message)
        if not text:
            return b""
        frames = b""
        if message.part != event.index:
            frames = self.enter_step() + self.text_begins(message, event.index)
            message.part, message.begun = event.index, True
        self._growing, self._growing_part = message.id, event.index
        self._head = self.text_head(message, event.index)
        frames += b"%b%b}\n\n" % (self._head, orjson.dumps(text))
        return frames if event.delta else frames + self._text_ends(message)

    def _text_ends(self, message: OpenMessage) -> bytes:
        part, message.part = message.part or 0, None
        if self._growing == message.id:
            self._growing = None
        return self.text_ends(message, part)

    # Tool calls.

    def _call_grows(self, message: OpenMessage, data: Mapping[str, Any]) -> bytes:
        return self._send_call(message) if message.call.grow(data) else b""

    def _call_ends(self, message: OpenMessage, data: Mapping[str, Any]) -> bytes:
        call, arguments = message.call, data.get("arguments")
        call.grow({"call_id": data.get("call_id") or message.id, "name": data.get("name") or "tool"})
        arguments = "" if arguments is None else json_text(arguments)
        call.complete(arguments)
        frames = self._send_call(message) + self.call_ends(message, arguments)
        message.call = GrowingCall()
        return frames

    def _send_call(self, message: OpenMessage) -> bytes:
        """What of a call was not sent yet."""
        call, frames = message.call, b""
        if not call.begun:
            call.begun = message.begun = True
            self.unanswered[call.id] = None
            frames = self.enter_step() + self.call_begins(message)
        piece = call.take()
        return frames + self.call_grows(message, piece) if piece else frames

    def _result(self, message: OpenMessage, data: Mapping[str, Any]) -> bytes:
        call_id = data.get("call_id")
        if not isinstance(call_id, str):
            return b""
        self.unanswered.pop(call_id, None)
        frames = b"" if self._step else self.enter_step()
        self._result_seen = True
        return frames + self.result(message, call_id, data.get("output"))
