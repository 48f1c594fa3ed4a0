"""The objects of A2A as tables: reads JSON into them, with the path of every fault.

Names are accepted in camelCase and in snake_case. Unknown fields are dropped, and null is the same as a missing
field, as in the JSON form of Protocol Buffers (https://protobuf.dev/programming-guides/json/).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeAlias

from ...protocol.structure import Check, Faults, is_boolean, is_identifier, is_string, kind_of

__all__ = ["Kind", "Shape", "read", "snake_of"]

Kind: TypeAlias = "str | list[Kind] | Shape | tuple[str, Kind]"
"""A name of `_CHECKS`; [kind]: a list; ("map", kind): an object; or a shape."""


class Shape(dict[str, Kind]):
    """The fields of one object, by their camelCase names. Those that end in `!` are required."""

    def __init__(self, fields: Mapping[str, Kind]) -> None:
        super().__init__({name.rstrip("!"): kind for name, kind in fields.items()})
        self.required = frozenset(name[:-1] for name in fields if name.endswith("!"))
        self.names = {snake_of(name): name for name in self} | {name: name for name in self}


def snake_of(name: str) -> str:
    return re.sub(r"[A-Z]", lambda found: "_" + found[0].lower(), name)


def read(shape: Shape, value: Any, path: str, faults: Faults, *, strict: bool = False) -> dict[str, Any]:
    """Return the known fields of `value` in camelCase, and note the faults. `strict`: unknown fields are faults."""
    if not isinstance(value, Mapping):
        faults.add(path or "params", f"must be an object, not {kind_of(value)}")
        return {}
    found: dict[str, Any] = {}
    for given, item in value.items():
        name = shape.names.get(given)
        if name is None:
            if strict and not (isinstance(given, str) and given.startswith("x-")):
                faults.add(_within(path, str(given)[:80]), "is no field of an agent card" + _hint(given, shape))
        elif item is not None:
            found[name] = _read_kind(shape[name], item, _within(path, name), faults, strict)
    for name in sorted(shape.required - found.keys()):
        faults.add(_within(path, name), "is required")
    return found


def _hint(given: Any, shape: Shape) -> str:
    import difflib

    near = difflib.get_close_matches(str(given), shape.names, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _within(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _read_kind(kind: Kind, value: Any, path: str, faults: Faults, strict: bool) -> Any:
    match kind:
        case Shape():
            return read(kind, value, path, faults, strict=strict)
        case [inner]:
            if not isinstance(value, list | tuple):
                faults.add(path, f"must be a list, not {kind_of(value)}")
                return []
            return [_read_kind(inner, item, f"{path}[{place}]", faults, strict) for place, item in enumerate(value)]
        case ("map", inner):
            if not isinstance(value, Mapping):
                faults.add(path, f"must be an object, not {kind_of(value)}")
                return {}
            return {
                str(name): _read_kind(inner, item, f"{path}.{name}", faults, strict) for name, item in value.items()
            }
    fault = _CHECKS[kind](value)  # type: ignore[index]  # the other kinds were matched
    if fault is not None:
        faults.add(path, fault)
    return value


def _number(value: Any) -> str | None:
    right = isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31
    return None if right else f"must be a whole number, not {kind_of(value)}"


def _count(value: Any) -> str | None:
    return _number(value) or ("must not be negative" if value < 0 else None)


def _object(value: Any) -> str | None:
    return None if isinstance(value, Mapping) else f"must be an object, not {kind_of(value)}"


def _time(value: Any) -> str | None:
    if fault := is_string(value):
        return fault
    try:
        if datetime.fromisoformat(value).tzinfo is not None:
            return None
    except ValueError:
        pass
    return "must be a time such as 2026-01-31T12:00:00.000Z"


def _base64(value: Any) -> str | None:
    if fault := is_string(value):
        return fault
    try:
        base64.b64decode(value.translate(_URL_SAFE).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return "must be base64"
    return None


_URL_SAFE = str.maketrans("-_", "+/")
_CHECKS: Mapping[str, Check] = {
    "text": is_string,
    "id": is_identifier,
    "number": _number,
    "count": _count,
    "flag": is_boolean,
    "object": _object,
    "any": lambda _: None,
    "time": _time,
    "base64": _base64,
}
