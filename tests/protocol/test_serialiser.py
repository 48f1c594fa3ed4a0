"""The deep serialiser: what becomes JSON, how, and what is refused by name."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import ipaddress
import json
import math
import pathlib
import types
import uuid
from collections import ChainMap, OrderedDict, deque
from types import MappingProxyType
from typing import Any, NamedTuple

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_agentapp import DataContent, Message, TextContent
from trio_agentapp.errors import ItemError
from trio_agentapp.protocol.builder import ResponseBuilder
from trio_agentapp.protocol.payload import MAX_DEPTH
from trio_agentapp.protocol.serialiser import to_json


class Colour(enum.Enum):
    RED = "red"
    PAIR = (1, 2)
    NONE = None


class Level(enum.IntEnum):
    HIGH = 3


class Word(enum.StrEnum):
    YES = "yes"


@dataclasses.dataclass
class Point:
    x: float
    y: Any = None


@attrs.define
class Box:
    corner: Point
    tags: set[str] = attrs.field(factory=set)


class Pair(NamedTuple):
    a: int
    b: int


class Model(pydantic.BaseModel):
    name: str = pydantic.Field(alias="theName")
    raw: bytes = b"\xff\x00"
    when: datetime.datetime = datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    secret: pydantic.SecretStr = pydantic.SecretStr("hush")
    link: pydantic.AnyUrl = pydantic.AnyUrl("https://example.com/x")
    below: list[Model] = []


class Struct(msgspec.Struct, tag="struct", rename="camel"):
    first_name: str
    gone: int | msgspec.UnsetType = msgspec.UNSET
    inner: Any = None


class Row(msgspec.Struct, array_like=True):
    a: int
    b: str


class WithToMap:
    def to_map(self) -> dict[str, Any]:
        return {"kind": "map", "point": Point(1)}


class WithToDict:
    def to_dict(self) -> dict[str, Any]:
        return {"kind": "dict", "map": WithToMap()}


class WithModelDump:
    def model_dump(self) -> dict[str, Any]:
        return {"dumped": True}


@dataclasses.dataclass
class KnowsBetter:
    secret: str

    def to_dict(self) -> dict[str, Any]:
        return {"shown": True}


class Array:
    """As numpy's and torch's."""

    def tolist(self) -> list[float]:
        return [1.5, 2.5]


def spelled(value: object) -> Any:
    raw = to_json(value)
    assert b"\n" not in raw
    return json.loads(raw)


MOMENT = datetime.datetime(2030, 1, 2, 3, 4, 5, 600000)
UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize(
    ("value", "json_value"),
    [
        (None, None),
        (True, True),
        ("text \u2028 \U0001f600", "text \u2028 \U0001f600"),
        ("lone \ud800", "lone \ufffd"),
        (2**63, 2**63),
        (-(10**30), -(10**30)),
        (1.5, 1.5),
        (math.nan, None),
        (-math.inf, None),
        (MOMENT, "2030-01-02T03:04:05.600000"),
        (MOMENT.date(), "2030-01-02"),
        (MOMENT.time(), "03:04:05.600000"),
        (datetime.timedelta(minutes=1, milliseconds=500), 60.5),
        (UUID, str(UUID)),
        (decimal.Decimal("1.10"), "1.10"),
        (pathlib.PurePosixPath("a/b"), "a/b"),
        (ipaddress.ip_address("::1"), "::1"),
        (b"\x00\xff", "AP8="),
        (bytearray(b"ab"), "YWI="),
        (memoryview(b"ab"), "YWI="),
        (Colour.RED, "red"),
        (Colour.PAIR, [1, 2]),
        (Colour.NONE, None),
        (Level.HIGH, 3),
        (Word.YES, "yes"),
        ((1, 2), [1, 2]),
        (Pair(1, 2), [1, 2]),
        (deque([1]), [1]),
        (range(3), [0, 1, 2]),
        ({3, 10, 1}, [1, 3, 10]),
        (frozenset({"b", "a"}), ["a", "b"]),
        ({1: 1}.keys(), [1]),
        ({1: 2}.values(), [2]),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (ChainMap({"a": 1}, {"b": 2}), {"a": 1, "b": 2}),
        (Point(1.0, Box(Point(2.0), {"t"})), {"x": 1.0, "y": {"corner": {"x": 2.0, "y": None}, "tags": ["t"]}}),
        (WithToDict(), {"kind": "dict", "map": {"kind": "map", "point": {"x": 1, "y": None}}}),
        (WithModelDump(), {"dumped": True}),
        (KnowsBetter("s"), {"shown": True}),
        (Array(), [1.5, 2.5]),
        (Struct("a", inner=[Struct("b")]), None),
        (Row(1, "x"), [1, "x"]),
        (TextContent("hi"), {"type": "text", "text": "hi"}),
        (DataContent({"a": 1}, delta=True), {"type": "data", "data": {"a": 1}, "delta": True}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values(value: object, json_value: object) -> None:
    if isinstance(value, Struct):
        json_value = {
            "type": "struct",
            "firstName": "a",
            "inner": [{"type": "struct", "firstName": "b", "inner": None}],
        }
    assert spelled(value) == json_value
    assert spelled([value, {"k": value}]) == [json_value, {"k": json_value}]


def test_a_pydantic_model() -> None:
    model = Model(theName="a", below=[Model(theName="b")])
    found = spelled(model)
    below = found.pop("below")
    assert found == {
        "theName": "a",
        "raw": "/wA=",
        "when": "2030-01-02T03:04:05+00:00",
        "secret": "**********",
        "link": "https://example.com/x",
    }
    assert below[0]["theName"] == "b"


def test_keys_are_spelled() -> None:
    keys = {1: "a", None: "b", 2.5: "c", Colour.RED: "d", UUID: "e", MOMENT.date(): "f", b"ab": "g", False: "h"}
    assert spelled(keys) == {
        "1": "a",
        "null": "b",
        "2.5": "c",
        "red": "d",
        str(UUID): "e",
        "2030-01-02": "f",
        "YWI=": "g",
        "false": "h",
    }


def test_messages_and_events_are_those_of_the_wire() -> None:
    message = spelled(Message(content="hi"))
    assert message["content"] == [{"type": "text", "text": "hi"}]
    builder = ResponseBuilder("run-1234", "s1", created_at=5)
    events = spelled(builder.start())
    assert [event["status"] for event in events] == ["created", "in_progress"]
    assert events[0]["id"] == "response_run-1234"


def cyclic_list() -> list[Any]:
    items: list[Any] = [1]
    items.append({"again": items})
    return items


def cyclic_point() -> Point:
    point = Point(1.0)
    point.y = [point]
    return point


def cyclic_struct() -> Struct:
    struct = Struct("a")
    struct.inner = struct
    return struct


def cyclic_model() -> Model:
    model = Model(theName="a")
    model.below = [model]
    return model


class Endless:
    def to_dict(self) -> dict[str, Any]:
        return {"next": Endless()}


def deep(levels: int) -> list[Any]:
    outer: list[Any] = []
    for _ in range(levels - 1):
        outer = [outer]
    return outer


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (cyclic_list(), r"list at \$\[1\]\.again contains itself"),
        (cyclic_point(), r"Point at \$\.y\[0\] contains itself"),
        (cyclic_struct(), r"Struct at \$\.inner contains itself"),
        (cyclic_model(), r"Model at \$ cannot be sent as JSON: Circular"),
        (deep(MAX_DEPTH + 1), f"deeper than {MAX_DEPTH} levels"),
        (Endless(), rf"deeper than {MAX_DEPTH} levels cannot be sent as JSON: \$\.next\.next"),
        ({"a": [object()]}, r"object at \$\.a\[0\] cannot"),
        ((item for item in ()), r"generator at \$ cannot"),
        ({(1, 2): 3}, r"a key of type tuple at \$"),
        ({1: "a", "1": "b"}, r"two keys at \$ both become '1'"),
        (Point, r"the class Point at \$"),
        (10**5000, r"the int at \$ has too many digits"),
        ({"f": len}, r"builtin_function_or_method at \$\.f"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_refused(value: object, words: str) -> None:
    with pytest.raises(ItemError, match=words):
        to_json(value)


def test_the_same_twice_is_no_cycle() -> None:
    point = Point(1.0)
    assert spelled([point, point, {"p": point}])[2] == {"p": {"x": 1.0, "y": None}}


def test_as_deep_as_allowed() -> None:
    assert spelled(deep(MAX_DEPTH)) == deep(MAX_DEPTH)


def test_what_an_object_raises_is_raised() -> None:
    class Broken:
        def to_dict(self) -> None:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        to_json(Broken())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_json_values_come_back(value: object) -> None:
    clean = json.loads(json.dumps(value))
    assert spelled(value) == clean


def test_what_pandas_and_numpy_give() -> None:
    """Missing values are null, as they are in a frame's own JSON; numbers are keys as Python's are."""
    np, pd = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    assert to_json([pd.NaT, pd.NA, pd.Timestamp(0), np.float64("nan")]) == b'[null,null,"1970-01-01T00:00:00",null]'
    assert to_json({np.int64(1): np.int32(2), np.uint8(3): "x"}) == b'{"1":2,"3":"x"}'


def test_namespaces_and_lists_of_the_standard_library() -> None:
    assert to_json(types.SimpleNamespace(a=1, b=collections.UserList([1, {"c": 2}]))) == b'{"a":1,"b":[1,{"c":2}]}'


def test_halves_of_characters() -> None:
    assert to_json(["\ud83d\ude00", "\ud83d"]) == '["\U0001f600","\ufffd"]'.encode()
