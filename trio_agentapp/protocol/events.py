"""Events: frozen, numbered facts of a run. Fields, their order and their meaning: docs/reference/wire.md.

The builder makes them, the log keeps them, each transport encodes them. An event keeps its JSON, so it is encoded
once for any number of readers (`codec.encode_event`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import attrs

from .content import Content, ContentType, make_content
from .message import Role

__all__ = [
    "ContentEvent",
    "ENVELOPE",
    "Event",
    "Failure",
    "MessageEvent",
    "ResponseEvent",
    "StateEvent",
    "Status",
    "TERMINAL",
    "mass",
]

if TYPE_CHECKING:
    from attrs import frozen
else:
    # Frozen for the type checker only: attrs' guard against assignment makes `__init__` three times as slow
    # (1.3 against 0.4 us), and one event is made for every token of every chat.
    frozen = partial(attrs.define, unsafe_hash=True)

Status: TypeAlias = Literal["created", "in_progress", "completed", "failed", "canceled", "rejected", "incomplete"]

TERMINAL: frozenset[Status] = frozenset({"completed", "failed", "canceled", "rejected"})
"""How a response can end. Only messages and content parts can end as `incomplete`."""

ENVELOPE = 200
"""Estimated bytes of JSON around a message or one of its parts: field names, ids, numbers."""


def mass(value: Any) -> int:
    """Estimate the size of a value as JSON, in bytes."""
    if value is None:
        return 8
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(len(key) + 4 + mass(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return sum(1 + mass(item) for item in value)
    return 8


@frozen
class Failure:
    """Why a response did not complete: a stable code and a text for people."""

    code: str
    message: str


@frozen
class ContentEvent:
    """A piece of a content part (`delta` true), or the whole part at its end (`delta` false).

    `index` is the part's place in its message, from 0. `text` holds the text of a text part, `payload` the fields
    of all other types.
    """

    object: ClassVar[Literal["content"]] = "content"
    sequence_number: int
    status: Status
    type: ContentType
    index: int
    delta: bool
    msg_id: str
    text: str = ""
    payload: Mapping[str, Any] | None = None
    error: Failure | None = None
    encoded: bytes | None = attrs.field(default=None, init=False, eq=False, repr=False)

    @property
    def data(self) -> Any:
        """The data of a `data` or `audio` part, else None."""
        return None if self.payload is None else self.payload.get("data")

    @property
    def refusal(self) -> str:
        """The text of a `refusal` part, else the empty string."""
        return "" if self.payload is None else self.payload.get("refusal", "")

    @property
    def content(self) -> Content:
        """The payload as a content object, as if `delta` were false."""
        return make_content(self.type, {"text": self.text} if self.payload is None else dict(self.payload))

    @property
    def weight(self) -> int:
        """Estimated bytes of its JSON; constant time for text."""
        size = ENVELOPE + len(self.text)
        return size if self.payload is None else size + mass(self.payload)


@frozen
class MessageEvent:
    """A message begins (`content` None) or ends (`content` holds the closing event of each of its parts)."""

    object: ClassVar[Literal["message"]] = "message"
    sequence_number: int
    status: Status
    id: str
    type: str
    role: Role
    content: tuple[ContentEvent, ...] | None = None
    code: str | None = None
    message: str | None = None
    usage: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] | None = None
    error: Failure | None = None
    extra: Mapping[str, Any] | None = None
    """Further fields of the message, sent after the others."""
    encoded: bytes | None = attrs.field(default=None, init=False, eq=False, repr=False)

    @property
    def weight(self) -> int:
        """Estimated bytes of its JSON with its content."""
        size = ENVELOPE + mass(self.usage) + mass(self.metadata) + mass(self.extra) + len(self.message or "")
        return size + sum(part.weight for part in self.content or ())


@frozen
class ResponseEvent:
    """The whole response: created, then in progress, then one terminal event.

    `created_at` and `completed_at` are seconds since the epoch. `output` holds the closing event of each
    message and is None until the end.
    """

    object: ClassVar[Literal["response"]] = "response"
    sequence_number: int
    status: Status
    id: str
    created_at: int
    completed_at: int | None = None
    output: tuple[MessageEvent, ...] | None = None
    usage: Mapping[str, Any] | None = None
    session_id: str | None = None
    error: Failure | None = None
    encoded: bytes | None = attrs.field(default=None, init=False, eq=False, repr=False)

    @property
    def terminal(self) -> bool:
        """Whether this is the last event of the run."""
        return self.status in TERMINAL

    @property
    def weight(self) -> int:
        """Estimated bytes of its JSON with its output."""
        return ENVELOPE + mass(self.usage) + sum(message.weight for message in self.output or ())


@frozen
class StateEvent:
    """The state of the run (`run.state`) as a whole, or what has changed in it since the last such event.

    `delta` false: `state` is the whole object. `delta` true: `patch` holds the changes (JSON Patch, RFC 6902).
    """

    object: ClassVar[Literal["state"]] = "state"
    sequence_number: int
    delta: bool
    state: Mapping[str, Any] | None = None
    patch: Sequence[Mapping[str, Any]] | None = None
    status: Status = "in_progress"
    error: Failure | None = None
    encoded: bytes | None = attrs.field(default=None, init=False, eq=False, repr=False)

    @property
    def weight(self) -> int:
        """Estimated bytes of its JSON."""
        return ENVELOPE + mass(self.patch) + mass(self.state)


Event: TypeAlias = ResponseEvent | MessageEvent | ContentEvent | StateEvent
