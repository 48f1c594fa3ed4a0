"""Reading JSON without a change to its integers."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

__all__ = ["INTEGERS_OF_ORJSON", "exact_loads", "may_exceed_64_bits"]

INTEGERS_OF_ORJSON = range(-(2**63), 2**64)
"""The integers that orjson can write. It reads all others as floats."""

_MANY_DIGITS = re.compile(r"[0-9]{19}")
_MANY_DIGITS_IN_BYTES = re.compile(rb"[0-9]{19}")


def may_exceed_64_bits(raw: bytes | str) -> bool:
    """Return whether JSON may have an integer that orjson reads as a float, because it has 19 digits in a row."""
    return bool(_MANY_DIGITS.search(raw) if isinstance(raw, str) else _MANY_DIGITS_IN_BYTES.search(raw))


def exact_loads(raw: bytes | str) -> Any:
    """Return the JSON value with every integer kept exactly, of any size. Raises ValueError if it is not JSON."""
    value = orjson.loads(raw)
    if not may_exceed_64_bits(raw):
        return value
    try:
        return json.loads(raw)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply to be read") from None
