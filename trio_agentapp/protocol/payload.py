"""Copies values of handlers into values that JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from ..errors import ItemError
from .exact_json import INTEGERS_OF_ORJSON

__all__ = ["MAX_DEPTH", "clean_text", "fold_data", "is_half", "json_bytes", "json_text", "plain_json"]

MAX_DEPTH = 200
"""Levels of nesting. orjson writes at most 254, and a cycle would never end."""

_FIRST_STAYS = frozenset({"call_id", "name"})


def clean_text(text: str) -> str:
    """Return a `str` that UTF-8 can encode: the two halves of a surrogate pair become one character, and a lone
    surrogate becomes U+FFFD.
    """
    if type(text) is not str:
        text = str.__str__(text)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def is_half(text: str) -> bool:
    """Whether the text ends with the first half of a surrogate pair; the second may follow."""
    return "\ud800" <= text[-1:] <= "\udbff"


def plain_json(value: Any, path: str = "$", depth: int = 0) -> Any:
    """Return a copy of a JSON value that shares nothing mutable with it, so the handler may change its own.

    Tuples become lists. Raises ItemError with type and path for a value that has no form in JSON: another type, a
    key that is not a string, NaN, infinity, an integer beyond 64 bits, nesting deeper than `MAX_DEPTH`.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, int):
        if value not in INTEGERS_OF_ORJSON:
            raise ItemError(f"an int beyond 64 bits at {path} has no form in JSON")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ItemError(f"a float that is not finite at {path} has no form in JSON")
        return float(value)
    if depth >= MAX_DEPTH:
        raise ItemError(f"data nested deeper than {MAX_DEPTH} levels (or in itself) has no form in JSON")
    if isinstance(value, Mapping):
        copy: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise ItemError(f"a key of type {type(key).__name__} at {path} has no form in JSON")
            name = clean_text(key)
            copy[name] = plain_json(item, f"{path}.{name:.40}", depth + 1)
        return copy
    if isinstance(value, list | tuple):
        return [plain_json(item, f"{path}[{place}]", depth + 1) for place, item in enumerate(value)]
    raise ItemError(f"{type(value).__name__} at {path} has no form in JSON")


def json_text(value: Any) -> str:
    """Return a text as it is, and any other plain JSON value as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def json_bytes(value: Any) -> bytes:
    """Return the compact JSON of a value. Raises ItemError, naming the place of a value without a form in JSON."""
    try:
        return orjson.dumps(value)
    except TypeError:
        # Either there is such a value, which plain_json names, or only a lone surrogate, which it replaces.
        return orjson.dumps(plain_json(value))


def fold_data(pieces: Iterable[Any]) -> Any:
    """Merge the deltas of one data part. The rule is described at `DataContent`."""
    whole: Any = None
    # Strings are joined once, at the end: the arguments of a tool call can come in thousands of pieces.
    texts: dict[str, list[str]] = {}
    for piece in pieces:
        if isinstance(whole, dict) and isinstance(piece, dict):
            for key, value in piece.items():
                before = whole.get(key)
                if value is None or (before and key in _FIRST_STAYS):
                    whole.setdefault(key, value)
                elif isinstance(before, str) and isinstance(value, str):
                    texts.setdefault(key, [before]).append(value)
                else:
                    whole[key] = value
                    texts.pop(key, None)
        elif isinstance(whole, str) and isinstance(piece, str):
            texts.setdefault("", [whole]).append(piece)
        elif piece is not None:
            whole = dict(piece) if isinstance(piece, dict) else piece
            texts.clear()
    if isinstance(whole, str):
        return "".join(texts.get("", [whole]))
    for key, parts in texts.items():
        whole[key] = "".join(parts)
    return whole
