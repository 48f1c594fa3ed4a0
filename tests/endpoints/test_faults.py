"""Faults of values that msgspec refuses: its messages in our words, so that a change of its messages is noticed."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import uuid
from typing import Annotated, Any, Literal

import msgspec
import pytest

from trio_agentapp.endpoints.conversion import converter_of
from trio_agentapp.errors import ValidationError


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    SMALL = 1


class Point(msgspec.Struct, forbid_unknown_fields=True):
    x: int = 0
    y: int = 0


class Circle(msgspec.Struct, tag="circle"):
    radius: float


class Square(msgspec.Struct, tag="square"):
    side: float


@dataclasses.dataclass
class Checked:
    number: int

    def __post_init__(self) -> None:
        if self.number == 1:
            raise ValueError("must not be one")
        if self.number == 2:
            raise ValueError("inner", object())
        if self.number == 3:
            raise TypeError("private")
        if self.number == 4:
            raise KeyError("private")


@dataclasses.dataclass
class Deep:
    lists: dict[str, list[Point]] = dataclasses.field(default_factory=dict)
    either: Colour | int | None = None


@pytest.mark.parametrize(
    ("kind", "value", "path", "message"),
    [
        (int, "5", "$", "must be an integer, not a string"),
        (int, 1.5, "$", "must be an integer, not a fraction"),
        (int, True, "$", "must be an integer, not a boolean"),
        (float, "x", "$", "must be a number, not a string"),
        (bool, 1, "$", "must be a boolean, not a number"),
        (str, None, "$", "must be a string, not null"),
        (str | None, {}, "$", "must be a string or null, not an object"),
        (int | str | list[int], 1.5, "$", "must be an integer, a string or a list, not a number"),
        (bytes, "?", "$", "must be base64 text"),
        (uuid.UUID, "x", "$", "must be a UUID"),
        (uuid.UUID, 5, "$", "must be a UUID, not a number"),
        (decimal.Decimal, "x", "$", "must be a number"),
        (decimal.Decimal, "Infinity", "$", "must be a finite number"),
        (list[decimal.Decimal], ["1", "sNaN"], "$[1]", "must be a finite number"),
        (datetime.datetime, "x", "$", "must be a date and time (ISO 8601)"),
        (datetime.date, "x", "$", "must be a date (ISO 8601)"),
        (datetime.time, "x", "$", "must be a time (ISO 8601)"),
        (datetime.timedelta, "x", "$", 'must be a duration such as "PT5S" (ISO 8601)'),
        (datetime.timedelta, [], "$", 'must be a duration such as "PT5S" (ISO 8601), not a list'),
        (datetime.timedelta, 1e300, "$", "is out of range"),
        (Colour, "green", "$", "must be one of red, blue"),
        (Size, 2, "$", "must be one of 1"),
        (Literal["a", 1], "b", "$", "must be one of a, 1"),
        (tuple[int, str], [1], "$", "must have 2 items, not 1"),
        (tuple[int, str], [1, 2], "$[1]", "must be a string, not a number"),
        (set[int], [1, "x"], "$[1]", "must be an integer, not a string"),
        (dict[int, int], {"a": 1}, "$", "a key must be an integer, not a string"),
        (
            dict[str, dict[str, int]],
            {"a": {"b": 1}, "c": {"d": 1, "e": None}},
            "$.c.e",
            "must be an integer, not null",
        ),
        (dict[str, Colour], {"a": "red", "b": "x"}, "$.b", "must be one of red, blue"),
        (Annotated[int, msgspec.Meta(ge=0)], -1, "$", "must be an integer >= 0"),
        (Annotated[str, msgspec.Meta(max_length=2)], "abc", "$", "must be a string of length <= 2"),
        (Annotated[list[int], msgspec.Meta(min_length=1)], [], "$", "must be a list of length >= 1"),
        (Point, {"z": 1}, "$", "has an unknown field 'z'"),
        (Circle | Square, {"type": "x"}, "$.type", "is not one of the allowed values"),
        (Circle | Square, {"radius": 1}, "$.type", "is required"),
        (Checked, {"number": 1}, "$", "must not be one"),
        (Checked, {"number": 2}, "$", "is not valid"),
        (Checked, {"number": 3}, "$", "is not valid"),
        (Checked, {"number": 4}, "$", "is not valid"),
        (list[Checked], [{"number": 5}, {"number": 1}], "$[1]", "must not be one"),
        (Deep, {"lists": {"a": [{}], "b": [{}, {"x": "1"}]}}, "$.lists.b[1].x", "must be an integer, not a string"),
        (Deep, {"either": "green"}, "$.either", "must be one of red, blue"),
    ],
    ids=str,
)
def test_the_first_fault(kind: Any, value: Any, path: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        converter_of(kind)(value)
    assert caught.value.errors == [(path, message)]


def test_what_clients_sent_is_never_quoted_at_length() -> None:
    long = "SECRET" * 1000
    for kind, value in (
        (Colour, long),
        (Point, {long: 1}),
        (Circle | Square, {"type": long}),
        (dict[str, int], {long: "x"}),
        (dict[int, int], {long: 1}),
        (datetime.date, long),
    ):
        with pytest.raises(ValidationError) as caught:
            converter_of(kind)(value)
        assert all(len(path) < 100 and len(message) < 250 for path, message in caught.value.errors)
