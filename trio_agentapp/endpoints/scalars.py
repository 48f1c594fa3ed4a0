"""Scalars: what a query string or a part of a path can hold, and how JSON spells it."""

from __future__ import annotations

import base64
import binascii
import datetime
import decimal
import enum
import re
import uuid
from collections import abc
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal, get_args, get_origin

from ..protocol.structure import kind_of
from .annotations import alternatives, plain

__all__ = ["JSON_SCALARS", "Unfit", "many_of", "one_of", "scalar_of"]

Parse = Callable[[str], Any]

_INTEGER = re.compile(r"[+-]?[0-9]{1,4000}")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_BOOLEANS = dict.fromkeys(("true", "1", "yes", "on"), True) | dict.fromkeys(("false", "0", "no", "off"), False)


class Unfit(ValueError):
    """A value does not fit; the message is for whoever sent it."""


def scalar_of(annotation: Any) -> Parse | None:
    """How a text becomes a value of this type; None if that is no scalar. The function raises Unfit.

    `X | None` is read as `X`: there is no text for None.
    """
    members, _ = alternatives(annotation)
    parsers = [parser for member in members if (parser := _single(member)) is not None]
    if not parsers or len(parsers) < len(members):
        return None
    return parsers[0] if len(parsers) == 1 else partial(_first_that_fits, tuple(parsers))


def many_of(annotation: Any) -> tuple[Callable[[list[Any]], Any], Parse] | None:
    """For a list, tuple or set of scalars: what makes it of a list, and how a text becomes an item."""
    members, _ = alternatives(annotation)
    if len(members) != 1:
        return None
    origin, arguments = get_origin(members[0]), get_args(members[0])
    if origin is tuple and arguments[1:] != (Ellipsis,):
        return None
    if origin not in _MAKERS or not arguments:
        return None
    parse = scalar_of(arguments[0])
    return None if parse is None else (_MAKERS[origin], parse)


_MAKERS: dict[Any, Callable[[list[Any]], Any]] = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    abc.Sequence: list,
    abc.Collection: list,
    abc.Iterable: list,
    abc.Set: frozenset,
}


def _single(annotation: Any) -> Parse | None:
    annotation = plain(annotation)
    if get_origin(annotation) is Literal:
        return partial(_choice, {_text(each): each for each in get_args(annotation)})
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return partial(_choice, {_text(member.value): member for member in annotation})
    return _PARSERS.get(annotation)


def _first_that_fits(parsers: Iterable[Parse], text: str) -> Any:
    words = []
    for parse in parsers:
        try:
            return parse(text)
        except Unfit as exc:
            words.append(str(exc))
    raise Unfit(", or ".join(words))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def _choice(choices: dict[str, Any], text: str) -> Any:
    if text not in choices:
        raise Unfit(one_of(choices))
    return choices[text]


def one_of(choices: Iterable[Any]) -> str:
    shown = list(map(_text, choices))
    more = f" and {len(shown) - 20} more" if len(shown) > 20 else ""
    return f"must be one of {', '.join(shown[:20])}{more}"


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise Unfit("must be a whole number")
    return int(text)


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text) or abs(number := float(text)) == float("inf"):
        raise Unfit("must be a number")
    return number


def _boolean(text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise Unfit("must be true or false")
    return _BOOLEANS[text.lower()]


def _decimal(text: str) -> decimal.Decimal:
    if not _NUMBER.fullmatch(text):
        raise Unfit("must be a number")
    return decimal.Decimal(text)


def _uuid(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise Unfit("must be a UUID") from None


def _moment(cls: Any, words: str, text: str) -> Any:
    try:
        return cls.fromisoformat(text)
    except ValueError:
        raise Unfit(f"must be {words} (ISO 8601)") from None


_date_time = partial(_moment, datetime.datetime, "a date and time")
_date = partial(_moment, datetime.date, "a date")
_time = partial(_moment, datetime.time, "a time")

_PARSERS: dict[Any, Parse] = {
    str: str,
    int: _integer,
    float: _number,
    bool: _boolean,
    decimal.Decimal: _decimal,
    uuid.UUID: _uuid,
    datetime.datetime: _date_time,
    datetime.date: _date,
    datetime.time: _time,
}


def _of_kind(kinds: Any, words: str, value: Any) -> Any:
    # bool is an int to Python; JSON knows better.
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
        raise Unfit(f"must be {words}, not {_given(value)}")
    return value


def _given(value: Any) -> str:
    return "a fraction" if isinstance(value, float) else kind_of(value)


def _from_text(parse: Parse, value: Any) -> Any:
    return parse(_of_kind(str, "a string", value))


def _json_number(value: Any) -> float:
    return float(_of_kind((int, float), "a number", value))


def _json_decimal(value: Any) -> decimal.Decimal:
    return _decimal(value if isinstance(value, str) else str(_of_kind((int, float), "a number", value)))


def _json_bytes(value: Any) -> bytes:
    try:
        return base64.b64decode(_of_kind(str, "a string", value), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise exc if isinstance(exc, Unfit) else Unfit("must be base64 text") from None


def _json_seconds(value: Any) -> datetime.timedelta:
    try:
        return datetime.timedelta(seconds=_json_number(value))
    except OverflowError:
        raise Unfit("is too large") from None


JSON_SCALARS: dict[Any, Callable[[Any], Any]] = {
    str: partial(_of_kind, str, "a string"),
    int: partial(_of_kind, int, "an integer"),
    float: _json_number,
    bool: partial(_of_kind, bool, "a boolean"),
    bytes: _json_bytes,
    decimal.Decimal: _json_decimal,
    uuid.UUID: partial(_from_text, _uuid),
    datetime.datetime: partial(_from_text, _date_time),
    datetime.date: partial(_from_text, _date),
    datetime.time: partial(_from_text, _time),
    datetime.timedelta: _json_seconds,
}
"""From JSON: nothing is coerced, "5" is no number and 1 is no boolean."""
