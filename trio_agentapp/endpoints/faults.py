"""Turns msgspec's errors into messages for clients, with the exact place and the permitted values."""

from __future__ import annotations

import enum
import re
import typing
from collections import abc
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

import msgspec

from .annotations import alternatives

__all__ = ["Nested", "choices_of", "faults_of", "one_of", "text_of", "words_of"]

MAX_ECHO = 200
"""Limit of characters of a message, which may contain input of the client or come from a user's validator."""

MAX_CHOICES = 20

_ERROR = re.compile(r"(?P<message>.*?)(?: - at `(?P<key>key` in `)?(?P<path>\$[^`]*)`)?", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")

_TYPES = {
    "int": "an integer",
    "float": "a number",
    "decimal": "a number",
    "bool": "a boolean",
    "str": "a string",
    "bytes": "base64 text",
    "array": "a list",
    "object": "an object",
    "null": "null",
    "uuid": "a UUID",
    "date": "a date (ISO 8601)",
    "time": "a time (ISO 8601)",
    "datetime": "a date and time (ISO 8601)",
    "duration": 'a duration such as "PT5S" (ISO 8601)',
}
"""How the types in msgspec's messages are shown to clients."""

_MESSAGES: tuple[tuple[str, str], ...] = (
    (r"Expected `array` of length (\d+), got (\d+)", r"must have \1 items, not \2"),
    (r"Invalid RFC3339 encoded (\w+)", r"must be `\1`"),
    (r"Invalid ISO8601 duration", "must be `duration`"),
    (r"Invalid UUID", "must be `uuid`"),
    (r"Invalid base64 encoded string", "must be `bytes`"),
    (r"Invalid decimal string", "must be `decimal`"),
    (r"(?:Integer value|Number|Duration|Timestamp) (?:is )?out of range", "is out of range"),
    (r"Object contains unknown field `(.*)`", r"has an unknown field '\1'"),
    (r"Expected `int`, got `float`", "must be `int`, not a fraction"),
    (r"Expected `(.*?)`, got `int`", r"must be `\1`, not `float`"),
    (r"Expected `(.*?)`, got `(.*)`", r"must be `\1`, not `\2`"),
    (r"Expected (.*)", r"must be \1"),
)
"""Patterns of msgspec's messages, and what replaces them. A type in backticks is shown as in `_TYPES`."""


class Nested(ValueError):
    """Faults within a value that a hook converted. It is a ValueError, since msgspec adds the place to one."""

    def __init__(self, errors: list[tuple[str, str]]) -> None:
        super().__init__(errors)
        self.errors = errors


def faults_of(
    error: msgspec.ValidationError, value: Any, kind: Any, hook: Callable[[Any, Any], Any]
) -> list[tuple[str, str]]:
    """Return path and message of the fault that stopped `msgspec.convert(value, kind, dec_hook=hook)`.

    The list has one fault, or all faults that a hook found within a value that it converted.
    """
    found = _ERROR.fullmatch(str(error))
    assert found is not None  # noqa: S101  every part of the pattern may be empty
    path, kind = _placed(found["path"] or "$", value, kind, hook)
    message = found["message"]
    if isinstance(error.__cause__, Nested):
        return [(path + inner.removeprefix("$"), message) for inner, message in error.__cause__.errors]
    if isinstance(error.__cause__, ValueError | TypeError):
        return [(path, words_of(error.__cause__))]
    if missing := re.fullmatch(r"Object missing required field `(.*)`", message):
        return [(f"{path}.{missing[1]}", "is required")]
    if message.startswith(("Invalid enum value", "Invalid value")):
        return [(path, one_of(choices_of(kind)))]
    return [(path, ("a key " if found["key"] else "") + _in_words(message))]


def one_of(choices: list[Any]) -> str:
    """Return "must be one of ..." with at most `MAX_CHOICES` of the choices."""
    shown = [text_of(each) for each in choices]
    more = f" and {len(shown) - MAX_CHOICES} more" if len(shown) > MAX_CHOICES else ""
    return f"must be one of {', '.join(shown[:MAX_CHOICES])}{more}" if shown else "is not one of the allowed values"


def text_of(choice: Any) -> str:
    """Return a permitted value as clients write it."""
    return str(choice).lower() if isinstance(choice, bool) or choice is None else str(choice)


def words_of(error: Exception) -> str:
    """Return the message of a user's validator if it is meant for clients; otherwise "is not valid"."""
    # Validators of attrs have objects in their arguments, and the text of a TypeError is not meant for clients.
    public = type(error) is ValueError and len(error.args) == 1 and isinstance(error.args[0], str)
    return str(error)[:MAX_ECHO] if public else "is not valid"


def _in_words(message: str) -> str:
    for pattern, replacement in _MESSAGES:
        if found := re.fullmatch(pattern, message, re.DOTALL):
            message = found.expand(replacement)
            break
    return re.sub(r"`([^`]*)`", lambda quoted: _any_of(quoted[1].split(" | ")), message)[:MAX_ECHO]


def _any_of(types: list[str]) -> str:
    *first, last = dict.fromkeys(_TYPES.get(each, each) for each in types)
    return f"{', '.join(first)} or {last}" if first else last


def choices_of(kind: Any) -> list[Any]:
    """Return the values of an enum or a Literal, or of those in a union."""
    found: list[Any] = []
    for member in alternatives(kind)[0]:
        if get_origin(member) is Literal:
            found += [each.value if isinstance(each, enum.Enum) else each for each in get_args(member)]
        elif isinstance(member, type) and issubclass(member, enum.Enum):
            found += [each.value for each in member]
    return found


# msgspec writes `[...]` for a value of a dict, without its key. To find the key, the path is followed through the
# value and its type, and the values of that dict are converted one by one until one fails.


def _placed(path: str, value: Any, kind: Any, hook: Callable[[Any, Any], Any]) -> tuple[str, Any]:
    """Return the path with the keys of dicts, and the type at that place; `Any` if the type cannot be found."""
    exact = "$"
    for name, place in _STEP.findall(path):
        if place == "..." and isinstance(value, dict):
            inner = _item_type(kind, 1)
            name = next((key for key, item in value.items() if not _converts(item, inner, hook)), "...")
            exact += f".{name[:40]}"
            value = value.get(name)
        elif place:
            inner = _item_type(kind, 0 if place == "..." else int(place))
            exact += f"[{place}]"
            value = value[int(place)] if isinstance(value, list) and place.isdigit() else None
        else:
            inner = _field_type(kind, name)
            exact += f".{name}"
            value = value.get(name) if isinstance(value, dict) else None
        kind = inner
    return exact, kind


def _converts(value: Any, kind: Any, hook: Callable[[Any, Any], Any]) -> bool:
    try:
        msgspec.convert(value, kind, dec_hook=hook)
    except msgspec.ValidationError:
        return False
    return True


def _item_type(kind: Any, place: int) -> Any:
    """Return the type of a list's items, of a tuple's item at `place`, or of a dict's values (`place` 1)."""
    for member in alternatives(kind)[0]:
        arguments = get_args(member)
        origin = get_origin(member)
        if origin is tuple and arguments[1:] != (Ellipsis,):
            return arguments[place] if place < len(arguments) else Any
        if isinstance(origin, type) and issubclass(origin, abc.Collection):
            return arguments[-1] if issubclass(origin, abc.Mapping) else arguments[0]
    return Any


def _field_type(kind: Any, name: str) -> Any:
    for member in alternatives(kind)[0]:
        try:
            hints = typing.get_type_hints(member, include_extras=True)
        except (NameError, TypeError):
            continue
        if name in hints:
            return hints[name]
    return Any
