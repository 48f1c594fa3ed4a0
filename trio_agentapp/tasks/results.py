"""Results as JSON: the one place that decides how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import orjson

__all__ = ["Encode", "encode_json"]

Encode = Callable[[object], bytes]
"""Gives JSON. Raises TypeError or ValueError for what cannot be written as such."""


def encode_json(value: object) -> bytes:
    """JSON of plain values, dataclasses, enums, dates, UUIDs, sets, attrs and pydantic models."""
    return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS)


def _plain(value: Any) -> object:
    if isinstance(value, set | frozenset):
        return list(value)
    if attrs.has(type(value)):
        return {field.name: getattr(value, field.name) for field in attrs.fields(type(value))}
    for name in ("model_dump", "to_dict"):
        if callable(convert := getattr(value, name, None)):
            return convert()
    raise TypeError(f"{type(value).__qualname__} cannot be written as JSON")
