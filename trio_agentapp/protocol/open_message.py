"""A message that is still being sent: its parts, which of them is open, and what a cumulative copy may change."""

from __future__ import annotations

from typing import Any

from ..errors import ItemError
from .content import Content, ContentType, DataContent, RefusalContent, TextContent, payload_of
from .events import ContentEvent
from .message import OUTPUT_OF, Message
from .payload import fold_data

__all__ = ["OpenMessage", "OpenPart", "text_of"]

_GROWS_AT: dict[ContentType, str] = {"refusal": "refusal", "audio": "data"}


def text_of(content: Content) -> str | None:
    """Return the text of a part whose cumulative text is sent in deltas; None for all other types."""
    if isinstance(content, TextContent):
        return content.text
    return content.refusal if isinstance(content, RefusalContent) else None


class OpenPart:
    """One content part and its deltas so far. They are joined at the end only, so that appending stays cheap."""

    __slots__ = ("index", "kind", "msg_id", "pieces", "rest")

    def __init__(self, kind: ContentType, index: int, msg_id: str) -> None:
        self.kind = kind
        self.index = index
        self.msg_id = msg_id
        self.pieces: list[Any] = []
        self.rest: dict[str, Any] = {}

    def take(self, content: Content) -> tuple[str, dict[str, Any] | None]:
        """Append a delta. Return the text and the payload of its event."""
        if isinstance(content, TextContent):
            self.pieces.append(content.text)
            return content.text, None
        payload = payload_of(content)
        name = _GROWS_AT.get(self.kind, "data")
        self.pieces.append(payload[name])
        self.rest.update({key: value for key, value in payload.items() if key != name and value is not None})
        return "", payload

    def whole(self) -> tuple[str, dict[str, Any] | None]:
        """Return the text and the payload of the event that closes the part: all deltas together."""
        if self.kind == "text":
            return self.joined(), None
        if self.kind == "data":
            return "", {"data": fold_data(self.pieces)}
        payload: dict[str, Any] = {_GROWS_AT[self.kind]: self.joined()}
        if self.kind == "audio":
            payload["format"] = self.rest.get("format")
        return "", payload

    def joined(self) -> str:
        """Join the deltas of a part made of text. The joined text is kept."""
        if len(self.pieces) != 1:
            self.pieces = ["".join(self.pieces)]
        text: str = self.pieces[0]
        return text


class OpenMessage:
    """One message between its first event and its last."""

    def __init__(self, id: str, frame: Message, *, cumulative: bool, began: int) -> None:
        self.id = id
        self.began = began
        """The sequence number of its first event."""
        self.frame = frame
        """The source of type, role, code, message, usage and metadata. Its content is not used."""
        self.cumulative = cumulative
        self.part: OpenPart | None = None
        self.count = 0
        """Parts begun so far, which is the index of the next."""
        self.done: list[ContentEvent] = []
        self.seen: list[OpenPart | Content] = []
        """For each place in the content of a cumulative message, the part that was made of it."""
        self.held: Content | None = None
        """The last part of a cumulative message, if it may still change and nothing of it was sent yet."""
        self.size = 0
        """Bytes of the latest copy of a cumulative message."""

    @property
    def takes_text(self) -> bool:
        """Whether plain strings are appended to this message."""
        return self.frame.type == "message" and self.frame.role == "assistant"

    @property
    def takes_data(self) -> bool:
        """Whether deltas of data are appended to this message: a tool call whose arguments arrive in pieces."""
        return self.frame.type in OUTPUT_OF and self.cumulative and not self.seen and self.held is None

    def continued_by(self, message: Message) -> bool:
        """Whether a `(msg, last)` pair with this message continues the open one."""
        return (
            self.cumulative
            and (message.id is None or message.id == self.frame.id)
            and (message.type, message.role) == (self.frame.type, self.frame.role)
        )

    def check_continuation(self, parts: list[Content]) -> None:
        """Raise ItemError unless the parts only add to those that were sent."""
        if len(parts) < len(self.seen):
            raise ItemError(
                "a (msg, last) message is cumulative: "
                f"it had {len(self.seen)} content parts, now it has {len(parts)}"
            )
        for place, (before, now) in enumerate(zip(self.seen, parts, strict=False)):
            if isinstance(before, OpenPart):
                sent, text = before.joined(), text_of(now) if now.type == before.kind else None
                if text is None or not text.startswith(sent):
                    raise ItemError(
                        "a (msg, last) message is cumulative: the text of content part "
                        f"{place} does not start with the {len(sent)} characters already sent; "
                        "to send increments, yield str or content with delta=True"
                    )
                changed = before is not self.part and text != sent
            else:
                changed = now != before
            if changed:
                raise ItemError(
                    f"a (msg, last) message is cumulative: content part {place} changed after it was sent"
                )

    def call_id(self) -> str | None:
        """Return the id of the tool call that this message makes or answers, if its data names one."""
        for event in self.done:
            if event.type == DataContent.type and isinstance(event.data, dict):
                call_id = event.data.get("call_id")
                if isinstance(call_id, str):
                    return call_id
        return None
