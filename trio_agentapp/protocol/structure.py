"""Checks JSON values and makes messages and content of them. Each fault has its JSON path.

Nothing is coerced: "5" and true are not numbers, 1 is not a boolean. Unknown fields are kept, and null means "not
given". A fault quotes at most `_ECHO` characters of what the client sent.
"""

# Why no converter such as cattrs or msgspec does this: a request lists all of its faults, a role may follow from
# the type of a message, null is the same as a missing field, unknown fields are kept, and the fault of a missing
# field names the one that was probably meant. With cattrs each of these is a hook, and paths must be collected from
# nested exception groups: no fewer lines. cattrs also adds 19 ms of CPU time to `import trio_agentapp.protocol`,
# which takes 74 ms, and encodes an event in 0.58 us in place of 0.32. It decodes a request in 17 us in place of 31.

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from ..errors import ValidationError
from .content import CONTENT_TYPES, FIELDS, GROWING, Content, make_content
from .ids import identifier_fault
from .message import MESSAGE_FIELDS, OUTPUT_OF, ROLES, Message, Role

__all__ = [
    "Faults",
    "MAX_FAULTS",
    "content_from",
    "contents_from",
    "hint_misspelt",
    "instead",
    "message_from",
    "messages_from",
    "misspelt",
]

MAX_FAULTS = 100
"""Faults reported for one request; a body of a megabyte can have hundreds of thousands."""

MAX_HINTED = 50
"""Fields of an object that are looked at for misspelt names."""

_ECHO = 40

Check = Callable[[Any], str | None]
"""Returns what is wrong with a value, or None."""


class Faults:
    """The faults of one request, as `(JSON path, message)`."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []

    def add(self, path: str, message: str) -> None:
        """Note a fault. Raises ValidationError as soon as there are `MAX_FAULTS`."""
        self.found.append((path, message))
        if len(self.found) >= MAX_FAULTS:
            self.settle()

    def add_within(self, path: str, faults: Iterable[tuple[str, str]]) -> None:
        """Note the faults of a value that is at `path`; the paths in these faults begin with `$`."""
        for inner, message in faults:
            self.add(path + inner.removeprefix("$"), message)

    def check(self, path: str, value: Any, check: Check) -> bool:
        """Note what `check` finds wrong; return whether the value is right."""
        fault = check(value)
        if fault is not None:
            self.add(path, fault)
        return fault is None

    def objects(self, path: str, value: Any, *, required: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the objects in a list, each with its path. Notes what is no list, and what in it is no object.

        None has no objects, and is a fault if the list is `required`.
        """
        if (value is not None or required) and self.check(path, value, is_list):
            for place, item in enumerate(value):
                if self.check(f"{path}[{place}]", item, is_object):
                    yield f"{path}[{place}]", item

    def settle(self) -> None:
        """Raise ValidationError if there are faults."""
        if self.found:
            raise ValidationError(self.found)


def kind_of(value: Any) -> str:
    """Return the JSON type of a value, with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list() | tuple():
            return "a list"
        case dict():
            return "an object"
    return type(value).__name__


def is_string(value: Any) -> str | None:
    return None if isinstance(value, str) else f"must be a string, not {kind_of(value)}"


def is_object(value: Any) -> str | None:
    return None if isinstance(value, dict) else f"must be an object, not {kind_of(value)}"


def is_list(value: Any) -> str | None:
    return None if isinstance(value, list | tuple) else f"must be a list, not {kind_of(value)}"


def is_boolean(value: Any) -> str | None:
    return None if isinstance(value, bool) else f"must be a boolean, not {kind_of(value)}"


def is_identifier(value: Any) -> str | None:
    return is_string(value) or identifier_fault(value)


def one_of(what: str, known: tuple[str, ...]) -> Check:
    """Return a check that a value is one of the known strings."""

    def check(value: Any) -> str | None:
        if not isinstance(value, str):
            return f"must be a string, not {kind_of(value)}"
        if value in known:
            return None
        echo = repr(value if len(value) <= _ECHO else value[:_ECHO] + "...")
        return f"unknown {what} {echo}; known: {', '.join(known)}"

    return check


_is_role = one_of("role", ROLES)
_is_message_type = is_identifier
_is_content_type = one_of("content type", CONTENT_TYPES)

# The field that each type of content requires. A file requires any one of three.
NEEDED: dict[str, str] = {
    "text": "text",
    "data": "data",
    "image": "image_url",
    "audio": "data",
    "video": "video_url",
    "refusal": "refusal",
}
FILE_BY = ("file_url", "file_id", "file_data")


def content_from(value: Any, path: str, faults: Faults) -> Content | None:
    """Return one content object, or None after noting faults. A content object is returned as it is."""
    if isinstance(value, Content):
        return value
    if not faults.check(path, value, is_object):
        return None
    kind = value.get("type")
    if kind is None:
        faults.add(f"{path}.type", "is required")
        return None
    if not faults.check(f"{path}.type", kind, _is_content_type):
        return None
    payload: dict[str, Any] = {}
    before = len(faults.found)
    for name in FIELDS[kind]:
        field = value.get(name)
        if kind == "data":
            if name not in value:
                faults.add(f"{path}.{name}", f"is required{instead(value, name)}")
        elif field is None:
            if NEEDED.get(kind) == name:
                faults.add(f"{path}.{name}", f"is required{instead(value, name)}")
        else:
            faults.check(f"{path}.{name}", field, is_string)
        payload[name] = field
    if kind == "file" and all(value.get(name) is None for name in FILE_BY):
        faults.add(path, f"needs one of {', '.join(FILE_BY)}")
    delta = value.get("delta")
    if delta is not None and faults.check(f"{path}.delta", delta, is_boolean) and kind in GROWING:
        payload["delta"] = delta
    if len(faults.found) > before:
        hint_misspelt(value, {"type", "delta", *FIELDS[kind]}, NEEDED.get(kind), path, faults)
        return None
    return make_content(kind, payload)


def contents_from(value: Any, path: str, faults: Faults) -> list[Content]:
    """Return the content of a message, which may be absent, a plain string, or a list."""
    if value is None:
        return []
    if isinstance(value, str):
        return [make_content("text", {"text": value})]
    if not isinstance(value, list | tuple):
        faults.add(path, f"must be a string or a list, not {kind_of(value)}")
        return []
    parts = (content_from(part, f"{path}[{place}]", faults) for place, part in enumerate(value))
    return [part for part in parts if part is not None]


def message_from(value: Any, path: str, faults: Faults, *, speaker: Role = "user") -> Message | None:
    """Return one message, or None after noting faults. A `Message` is returned as it is.

    A message without a role gets the one that its type implies: a tool call is the assistant's, its output is the
    tool's, and any other message is `speaker`'s.
    """
    if isinstance(value, Message):
        return value
    if not faults.check(path, value, is_object):
        return None
    before = len(faults.found)
    kind = value.get("type")
    if kind is None:
        kind = "message"
    else:
        faults.check(f"{path}.type", kind, _is_message_type)
    author = value.get("role")
    if author is not None:
        faults.check(f"{path}.role", author, _is_role)
    if "content" not in value and kind in _SPEAKING:
        faults.add(f"{path}.content", f"is required{instead(value, 'content', ('text', 'contents', 'parts'))}")
    content = contents_from(value.get("content"), f"{path}.content", faults)
    words = {name: value.get(name) for name in ("id", "code", "message", "usage", "metadata")}
    for name, word in words.items():
        if word is not None:
            faults.check(f"{path}.{name}", word, _MESSAGE_CHECKS[name])
    if len(faults.found) > before:
        hint_misspelt(value, MESSAGE_FIELDS, "content", path, faults)
        return None
    extra = {name: item for name, item in value.items() if name not in MESSAGE_FIELDS}
    return Message(role=author or _implied_role(kind, speaker), type=kind, content=content, extra=extra, **words)


def messages_from(value: Any, path: str, faults: Faults) -> list[Message]:
    """Return a list of messages, without those that have faults."""
    if not faults.check(path, value, is_list):
        return []
    messages = (message_from(message, f"{path}[{place}]", faults) for place, message in enumerate(value))
    return [message for message in messages if message is not None]


_SPEAKING = ("message", "reasoning")
"""Types of messages that must have content."""


def instead(value: Mapping[str, Any], wanted: str, others: Iterable[str] = ()) -> str:
    """Return the end of a fault about a missing field: the name of a field that was perhaps meant, or ""."""
    found = next((name for name in others if name in value), None) or nearest(wanted, [*islice(value, MAX_HINTED)])
    return "" if found is None else f"; {found!r} is not a field of this object, {wanted!r} is"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` is probably a misspelling of."""
    # Imported only if needed: most requests have no unknown field.
    import difflib

    return next(iter(difflib.get_close_matches(name[:_ECHO], known, n=1)), None)


def misspelt(value: Mapping[str, Any], known: Collection[str], required: str | None = None) -> dict[str, str]:
    """The unknown fields of an object that are probably misspelt, each with a known name that the object lacks.

    `required` is not suggested: `instead` does that.
    """
    missing = [name for name in known if name not in value and name != required]
    unknown = [name for name in islice(value, MAX_HINTED) if name not in known]
    return {name: near for name in unknown if (near := nearest(name, missing)) is not None}


def hint_misspelt(
    value: Mapping[str, Any], known: Collection[str], required: str | None, path: str, faults: Faults
) -> None:
    """Note the misspelt fields of an object that is refused. In other objects unknown fields are allowed."""
    for name, near in misspelt(value, known, required).items():
        faults.add(f"{path}.{name}", f"is not a field of this object; did you mean {near!r}?")


_MESSAGE_CHECKS: dict[str, Check] = {
    "id": is_identifier,
    "code": is_string,
    "message": is_string,
    "usage": is_object,
    "metadata": is_object,
}


def _implied_role(kind: str, speaker: Role) -> Role:
    if kind in OUTPUT_OF:
        return "assistant"
    return "tool" if kind in OUTPUT_OF.values() else speaker
