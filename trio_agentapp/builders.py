"""Builders of a response, for code that sends the protocol of `POST /process` itself, such as an endpoint.

    response = ResponseBuilder(session_id="s1")
    yield response.created()
    yield response.in_progress()
    message = response.create_message_builder()
    yield message.get_message_data()
    content = message.create_content_builder()
    yield content.add_text_delta("Hello")
    yield content.complete()
    yield message.complete()
    yield response.completed()

A handler needs none of them: it yields text, and the runtime builds the response. The names are those of the
product that this one replaces. Each call returns an event. Send every event, in the order of the calls: their
numbers have no gaps. `encode_event` and `frame` of `trio_agentapp.protocol` make JSON and SSE frames of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .errors import ItemError
from .protocol.content import CONTENT_TYPES, GROWING, Content, ContentType, make_content, payload_of
from .protocol.events import ContentEvent, Event, Failure, MessageEvent, ResponseEvent, Status
from .protocol.ids import new_message_id, new_run_id
from .protocol.items import plain_content
from .protocol.message import ROLES, Role
from .protocol.open_message import OpenPart
from .protocol.payload import clean_text, plain_json

__all__ = ["ContentBuilder", "MessageBuilder", "ResponseBuilder"]


class ResponseBuilder:
    """Builds one response.

    Args:
        session_id: shown in the events of the response.
        response_id: its id; a new one if None.
    """

    def __init__(self, session_id: str | None = None, response_id: str | None = None) -> None:
        self.session_id = session_id
        self.reset()
        if response_id is not None:
            self.response_id = response_id

    def reset(self) -> None:
        """Begin another response, with a new id."""
        self.response_id = f"response_{new_run_id()}"
        self.created_at = int(time.time())
        self._next = 0
        self._ended = False
        self._messages: list[MessageBuilder] = []
        self._usage: Mapping[str, Any] | None = None

    def created(self) -> ResponseEvent:
        """Return the first event."""
        return self._response("created")

    def in_progress(self) -> ResponseEvent:
        """Return the second event."""
        return self._response("in_progress")

    def completed(self, usage: Mapping[str, Any] | None = None) -> ResponseEvent:
        """Return the last event, with all messages. Raises RuntimeError: a message is not complete."""
        return self._end("completed", None, usage)

    def failed(self, code: str, message: str) -> ResponseEvent:
        """Return the last event of a response that failed."""
        return self._end("failed", Failure(clean_text(code), clean_text(message)), None)

    def canceled(self, reason: str = "stopped") -> ResponseEvent:
        """Return the last event of a response that was stopped."""
        return self._end("canceled", Failure("stopped", clean_text(reason)), None)

    def create_message_builder(self, role: Role = "assistant", message_type: str = "message") -> MessageBuilder:
        """Begin a message. `get_message_data` of its builder is the next event."""
        self._check_open()
        builder = MessageBuilder(self, role, message_type)
        self._messages.append(builder)
        return builder

    def generate_streaming_response(
        self, text_tokens: Iterable[str], role: Role = "assistant", message_type: str = "message"
    ) -> Iterator[Event]:
        """Yield all events of a response of one text."""
        yield self.created()
        yield self.in_progress()
        message = self.create_message_builder(role, message_type)
        yield message.get_message_data()
        content = message.create_content_builder()
        for token in text_tokens:
            yield content.add_text_delta(token)
        yield content.complete()
        yield message.complete()
        yield self.completed()

    def number(self) -> int:
        """Return the number of the next event, and count it as used.

        Raises RuntimeError: the response has ended.
        """
        self._check_open()
        number, self._next = self._next, self._next + 1
        return number

    def _check_open(self) -> None:
        if self._ended:
            raise RuntimeError("the response has ended; call reset() to begin another one")

    def _response(self, status: Status, **fields: Any) -> ResponseEvent:
        return ResponseEvent(
            sequence_number=self.number(),
            status=status,
            id=self.response_id,
            created_at=self.created_at,
            session_id=self.session_id,
            **fields,
        )

    def _end(self, status: Status, error: Failure | None, usage: Mapping[str, Any] | None) -> ResponseEvent:
        output = tuple(message.last for message in self._messages if message.last.content is not None)
        if error is None and len(output) < len(self._messages):
            raise RuntimeError("a message is not complete; call its complete() first")
        event = self._response(
            status, completed_at=int(time.time()), output=output, usage=plain_json(usage, "$.usage"), error=error
        )
        self._ended = True
        return event


class MessageBuilder:
    """Builds one message; `ResponseBuilder.create_message_builder` makes it."""

    def __init__(self, response: ResponseBuilder, role: Role, message_type: str) -> None:
        if role not in ROLES:
            raise ItemError(f"the role of a message must be one of {', '.join(ROLES)}, not {role!r:.80}")
        self.response_builder = response
        self.role = role
        self.message_type = message_type
        self.message_id = new_message_id()
        self.last = MessageEvent(response.number(), "in_progress", self.message_id, message_type, role)
        """The latest event of the message."""
        self._parts = 0
        self._done: list[ContentEvent] = []

    def create_content_builder(self, content_type: ContentType = "text") -> ContentBuilder:
        """Begin a part of the message. Raises RuntimeError: the message is complete."""
        self._check_open()
        builder = ContentBuilder(self, content_type, self._parts)
        self._parts += 1
        return builder

    def add_content(self, content: Content) -> ContentEvent:
        """Add a whole part. Returns its event."""
        self._check_open()
        plain = plain_content(content)
        builder = self.create_content_builder(plain.type)
        builder.set(**payload_of(plain))
        return builder.complete()

    def get_message_data(self) -> MessageEvent:
        """Return the event that begins the message; after `complete`, the event that ends it."""
        return self.last

    def complete(self) -> MessageEvent:
        """End the message. Raises RuntimeError: it is complete, or one of its parts is not."""
        self._check_open()
        if len(self._done) < self._parts:
            raise RuntimeError("a part of the message is not complete; call its complete() first")
        number = self.response_builder.number()
        done = tuple(sorted(self._done, key=lambda event: event.index))
        self.last = MessageEvent(number, "completed", self.message_id, self.message_type, self.role, done)
        return self.last

    def _check_open(self) -> None:
        if self.last.content is not None:
            raise RuntimeError("the message is complete")

    def note(self, event: ContentEvent) -> None:
        self._done.append(event)


class ContentBuilder:
    """Builds one part of a message; `MessageBuilder.create_content_builder` makes it.

    `add_...` return the event of a delta, and `complete` the event that ends the part. `set_...` only keep a value,
    and return the content so far. Deltas of data are merged as `DataContent` describes.
    """

    def __init__(self, message: MessageBuilder, content_type: ContentType, index: int) -> None:
        if content_type not in CONTENT_TYPES:
            raise ItemError(
                f"the type of content must be one of {', '.join(CONTENT_TYPES)}, not {content_type!r:.80}"
            )
        self.message_builder = message
        self.content_type = content_type
        self.index = index
        self._part = OpenPart(content_type, index, message.message_id)
        self._payload: dict[str, Any] = {}
        self._ended = False

    def add_text_delta(self, text: str) -> ContentEvent:
        """Append text to a part of type `text`."""
        return self._delta("text", text=text)

    add_delta = add_text_delta

    def add_data_delta(self, delta_data: Mapping[str, Any]) -> ContentEvent:
        """Append to a part of type `data`."""
        return self._delta("data", data=delta_data)

    def set_text(self, text: str) -> Content:
        return self._set("text", text=text)

    def set_refusal(self, text: str) -> Content:
        return self._set("refusal", refusal=text)

    def set_image_url(self, image_url: str) -> Content:
        return self._set("image", image_url=image_url)

    def set_video_url(self, video_url: str) -> Content:
        return self._set("video", video_url=video_url)

    def set_audio(self, data: str, format: str | None = None) -> Content:
        """Set base64 text, and the name of its format, such as `wav`."""
        return self._set("audio", data=data, format=format)

    def set_data(self, data: Any) -> Content:
        return self._set("data", data=data)

    def update_data(self, key: str, value: Any) -> Content:
        """Set one member of a part of type `data`."""
        return self._set("data", data={**(self._payload.get("data") or {}), key: value})

    def set(self, **fields: Any) -> Content:
        """Set fields of the part, such as those of a file: `set(file_url=..., filename=...)`."""
        return self._set(self.content_type, **fields)

    def get_content_data(self) -> Content:
        """Return the content as it was set."""
        return make_content(self.content_type, dict(self._payload))

    def complete(self) -> ContentEvent:
        """End the part. Raises RuntimeError: it is complete, or it was set and got deltas as well."""
        self._check_open()
        if self._part.pieces and self._payload:
            raise RuntimeError("a part has either deltas or a value that is set, not both")
        text, payload = self._part.whole() if self._part.pieces else ("", None)
        if not self._part.pieces:
            whole = payload_of(self.get_content_data())
            text, payload = (whole["text"], None) if self.content_type == "text" else ("", whole)
        self._ended = True
        event = self._event("completed", False, text, payload)
        self.message_builder.note(event)
        return event

    def _delta(self, kind: ContentType, **fields: Any) -> ContentEvent:
        self._check(kind)
        if self.content_type not in GROWING:
            raise ItemError(f"content of type {self.content_type} does not grow")
        content = plain_content(make_content(kind, {**fields, "delta": True}))
        text, payload = self._part.take(content)
        return self._event("in_progress", True, text, payload)

    def _set(self, kind: ContentType, **fields: Any) -> Content:
        self._check(kind)
        content = plain_content(make_content(kind, {**self._payload, **fields}))
        self._payload = payload_of(content)
        return content

    def _check(self, kind: ContentType) -> None:
        self._check_open()
        if kind != self.content_type:
            raise ItemError(f"this is for content of type {kind}, and the part has type {self.content_type}")

    def _check_open(self) -> None:
        if self._ended:
            raise RuntimeError("the part is complete")

    def _event(self, status: Status, delta: bool, text: str, payload: dict[str, Any] | None) -> ContentEvent:
        number = self.message_builder.response_builder.number()
        id = self.message_builder.message_id
        return ContentEvent(number, status, self.content_type, self.index, delta, id, text, payload)
