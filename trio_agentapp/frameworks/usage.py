"""Adds up the tokens that models have used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["added"]


def added(usage: Mapping[str, Any] | None, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sum of two usages. Numbers in nested mappings are added, too."""
    total = dict(usage or {})
    for name, value in more.items():
        if isinstance(value, Mapping):
            total[name] = added(total.get(name), value)
        elif isinstance(value, int):
            total[name] = total.get(name, 0) + value
    return total
