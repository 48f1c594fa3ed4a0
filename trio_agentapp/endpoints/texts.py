"""Converts the texts of query and path parameters to scalars, or to lists of scalars."""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import re
import uuid
from collections import abc
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

from ..errors import ValidationError
from .annotations import alternatives, plain
from .conversion import converter_of
from .faults import choices_of, text_of

__all__ = ["Read", "reader_of"]

Read = Callable[[list[str]], Any]
"""Converts the texts of one parameter, or raises ValidationError with paths that begin with `$`."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,4000}")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_BOOLEANS = dict.fromkeys(("true", "1", "yes", "on"), True) | dict.fromkeys(("false", "0", "no", "off"), False)


def _matching(pattern: re.Pattern[str], convert: Callable[[str], Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        if not pattern.fullmatch(text):
            raise ValueError(text)
        return convert(text)

    return read


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError(text)
    return number


_READERS: dict[Any, tuple[Callable[[str], Any], str]] = {
    int: (_matching(_INTEGER, int), "must be a whole number"),
    float: (_matching(_NUMBER, _finite), "must be a number"),
    decimal.Decimal: (_matching(_NUMBER, decimal.Decimal), "must be a number"),
    bool: (lambda text: _BOOLEANS[text.lower()], "must be true or false"),
    uuid.UUID: (uuid.UUID, "must be a UUID"),
    datetime.date: (datetime.date.fromisoformat, "must be a date (ISO 8601)"),
    datetime.time: (datetime.time.fromisoformat, "must be a time (ISO 8601)"),
    datetime.datetime: (datetime.datetime.fromisoformat, "must be a date and time (ISO 8601)"),
}
"""Types whose texts are converted here and not by msgspec. msgspec accepts `nan` as a number, rounds `1e30` to an
int, and refuses what HTML forms send: `on` for a checkbox, `03:04` for a time."""


def reader_of(annotation: Any) -> tuple[Read, bool] | None:
    """Return the converter of a parameter's texts, and whether the parameter may be given several times.

    Returns None if the type is neither a scalar nor a list, tuple or set of scalars. `X | None` is read as `X`,
    because no text means None. Raises Unservable as `converter_of` does.
    """
    members, _ = alternatives(annotation)
    many = len(members) == 1 and _is_collection(members[0])
    if many:
        members, _ = alternatives(get_args(members[0])[0])
    if not members or not all(map(_is_scalar, members)):
        return None
    convert = converter_of(annotation, strict=False)

    def read(texts: list[str]) -> Any:
        values = [_value_of(text, members) for text in texts]
        return convert(values if many else values[0])

    return read, many


def _is_collection(kind: Any) -> bool:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple:
        return arguments[1:] == (Ellipsis,)
    return isinstance(origin, type) and issubclass(origin, abc.Iterable) and not issubclass(origin, abc.Mapping)


def _is_scalar(kind: Any) -> bool:
    kind = plain(kind)
    if get_origin(kind) is Literal or (isinstance(kind, type) and issubclass(kind, enum.Enum)):
        return True
    return kind is str or kind in _READERS


def _value_of(text: str, members: list[Any]) -> Any:
    """Return the value of the first type that accepts the text, or the text itself, for msgspec to convert."""
    refusals = []
    for member in map(plain, members):
        if member is str:
            return text
        choices = {text_of(each): each for each in choices_of(member)}
        if text in choices:
            return choices[text]
        if member in _READERS:
            read, words = _READERS[member]
            refusals.append(words)
            try:
                return read(text)
            except (ValueError, KeyError):
                continue
    if len(refusals) < len(members):
        return text
    raise ValidationError([("$", ", or ".join(refusals))])
