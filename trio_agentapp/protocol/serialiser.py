"""Serialises what a user's function returns: models, dataclasses, objects with a `to_dict`, nested in any way.

    None, bool, int, str            as they are; lone surrogates become U+FFFD; integers of any size
    float                           NaN and infinity become null, as in JavaScript; pandas' NaT and NA, too
    datetime, date, time            ISO 8601; timedelta: seconds
    UUID, Decimal, paths, IP        text
    bytes                           base64 text
    Enum                            its value
    list, tuple, deque, range, UserList   list; sets too, in order
    mappings                        object; keys that are scalars become text, `1` as "1", `None` as "null"
    dataclasses, attrs classes, SimpleNamespace   object of their fields
    pydantic models                 `model_dump(by_alias=True)`
    msgspec structs                 their encoded names; with a tag, or as a list, if so configured
    `model_dump`, `to_dict`, `to_map`, `tolist`   what that returns (arrays and tensors have the last)
    messages, content, events       as on the wire

Optional libraries are never imported here. If a value belongs to one, it is loaded already.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import ipaddress
import math
import pathlib
import sys
import types
import uuid
from collections import UserList, deque
from collections.abc import Callable, Iterable, Mapping, Set, ValuesView
from enum import Enum
from typing import Any

import attrs
import orjson

from ..errors import ItemError
from .codec import encode_event
from .content import Content, payload_of
from .events import Event
from .exact_json import INTEGERS_OF_ORJSON
from .payload import MAX_DEPTH, clean_text

__all__ = ["to_json"]

_ECHO = 120
"""Characters of a path that an error shows."""

_TEXTS: tuple[type, ...] = (
    uuid.UUID,
    decimal.Decimal,
    pathlib.PurePath,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
)

_MISSING = ("NaTType", "NAType")
"""Names of the types of pandas' missing time and missing value.

They are compared by name, without importing pandas.
"""

_OWN_METHODS = ("model_dump", "to_dict", "to_map", "tolist")


def to_json(value: object) -> bytes:
    """Return the compact JSON of `value` in UTF-8, without a line end.

    Raises ItemError, naming type and place, for what has no JSON: unknown types, generators, keys that are not
    scalars or become the same text, a value that contains itself, more than `MAX_DEPTH` levels. Exceptions of an
    object's own `to_dict` and the like pass through.
    """
    if type(value) is str:
        return orjson.dumps(clean_text(value))
    return orjson.dumps(_Serialiser().serialise(value, "$", 0))


class _Serialiser:
    """Serialises one value, recursively."""

    def __init__(self) -> None:
        self._open: set[int] = set()
        """`id()` of each value that contains the current one, to find cycles."""

    def serialise(self, value: Any, path: str, depth: int) -> Any:
        while isinstance(value, Enum):
            value = value.value
        if value is None or value is True or value is False:
            return value
        found = _scalar(value, path)
        if found is not _NO_SCALAR:
            return found
        if id(value) in self._open:
            raise ItemError(f"{_name(value)} at {_shown(path)} contains itself and cannot be sent as JSON")
        if depth >= MAX_DEPTH:
            raise ItemError(f"data nested deeper than {MAX_DEPTH} levels cannot be sent as JSON: {_shown(path)}")
        self._open.add(id(value))
        try:
            return self._compound(value, path, depth + 1)
        finally:
            self._open.discard(id(value))

    def _compound(self, value: Any, path: str, depth: int) -> Any:
        if isinstance(value, Mapping):
            return self._mapping(value, path, depth)
        if isinstance(value, list | tuple | deque | range | ValuesView | UserList):
            return self._list(value, path, depth)
        if isinstance(value, Set):
            return self._list(_in_order(value), path, depth)
        if isinstance(value, Event):
            return orjson.Fragment(encode_event(value))
        if isinstance(value, Content):
            content = {"type": value.type, **payload_of(value)}
            return self._mapping(content | ({"delta": True} if value.delta else {}), path, depth)
        if isinstance(value, type):
            raise ItemError(f"the class {value.__name__} at {_shown(path)} cannot be sent as JSON")
        return self._object(value, path, depth)

    def _object(self, value: Any, path: str, depth: int) -> Any:
        kind = type(value)
        if _is_of("pydantic", "BaseModel", value):
            return self.serialise(_dump_model(value, path), path, depth)
        if _is_of("msgspec", "Struct", value):
            return self._struct(value, path, depth)
        for name in _OWN_METHODS:
            if callable(getattr(kind, name, None)):
                return self.serialise(getattr(value, name)(), path, depth)
        if dataclasses.is_dataclass(value):
            names = [field.name for field in dataclasses.fields(value)]
        elif isinstance(value, types.SimpleNamespace):
            names = list(vars(value))
        elif attrs.has(kind):
            names = [field.name for field in attrs.fields(kind)]
        elif kind.__module__.partition(".")[0] in ("pydantic", "pydantic_core"):
            # The secrets and URLs of pydantic have no other conversion.
            return self.serialise(sys.modules["pydantic_core"].to_jsonable_python(value), path, depth)
        else:
            raise ItemError(f"{_name(value)} at {_shown(path)} cannot be sent as JSON")
        return self._mapping({name: getattr(value, name) for name in names}, path, depth)

    def _struct(self, value: Any, path: str, depth: int) -> Any:
        msgspec = sys.modules["msgspec"]
        config = value.__struct_config__
        fields = {
            field.encode_name: item
            for field in msgspec.structs.fields(value)
            if (item := getattr(value, field.name)) is not msgspec.UNSET
        }
        if config.tag is not None:
            fields = {config.tag_field: config.tag, **fields}
        if config.array_like:
            return self._list(fields.values(), path, depth)
        return self._mapping(fields, path, depth)

    def _mapping(self, value: Mapping[Any, Any], path: str, depth: int) -> dict[str, Any]:
        members: dict[str, Any] = {}
        for key, item in value.items():
            name = key if type(key) is str and key.isascii() else _key(key, path)
            if name in members:
                raise ItemError(f"two keys at {_shown(path)} both become {name[:_ECHO]!r}")
            members[name] = self.serialise(item, f"{path}.{name[:40]}", depth)
        return members

    def _list(self, value: Iterable[Any], path: str, depth: int) -> list[Any]:
        return [self.serialise(item, f"{path}[{place}]", depth) for place, item in enumerate(value)]


_NO_SCALAR: Any = object()


def _scalar(value: Any, path: str) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, int):
        return int(value) if value in INTEGERS_OF_ORJSON else orjson.Fragment(_digits(value, path))
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if type(value).__name__ in _MISSING:
        return None
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, _TEXTS):
        return clean_text(str(value))
    return _NO_SCALAR


def _digits(value: int, path: str) -> str:
    try:
        return str(int(value))
    except ValueError:
        # Python refuses to format numbers of thousands of digits, which would take too long.
        raise ItemError(f"the int at {_shown(path)} has too many digits to be sent as JSON") from None


def _key(key: Any, path: str) -> str:
    while isinstance(key, Enum):
        key = key.value
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    if isinstance(key, int):
        return _digits(key, path)
    if isinstance(key, float):
        return repr(float(key))
    found = _scalar(key, path)
    if found is _NO_SCALAR and callable(getattr(type(key), "item", None)):
        # A number of numpy, which is not a Python number.
        return _key(key.item(), path)
    if found is _NO_SCALAR:
        raise ItemError(f"a key of type {_name(key)} at {_shown(path)} cannot be sent as JSON")
    return str(found)


def _in_order(value: Set[Any]) -> Iterable[Any]:
    """Sort a set, because its own order differs between processes."""
    try:
        return sorted(value)
    except TypeError:
        return sorted(value, key=lambda item: (type(item).__name__, repr(item)))


def _dump_model(value: Any, path: str) -> Any:
    dump: Callable[..., Any] = value.model_dump
    try:
        return dump(by_alias=True)
    except ValueError as exc:
        raise ItemError(f"{_name(value)} at {_shown(path)} cannot be sent as JSON: {exc}") from exc


def _is_of(module: str, name: str, value: object) -> bool:
    loaded = sys.modules.get(module)
    cls = getattr(loaded, name, None)
    return cls is not None and isinstance(value, cls)


def _name(value: object) -> str:
    return type(value).__name__


def _shown(path: str) -> str:
    return path if len(path) <= _ECHO else f"{path[:_ECHO]}..."
