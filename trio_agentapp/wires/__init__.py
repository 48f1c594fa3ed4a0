"""Other protocols over the runs of an app: each is a `ProtocolAdapter`, so a stop reaches every run by every way.

Names are looked up when they are asked for: an app loads the protocols that it serves.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES: dict[str, str] = {
    "AGUIAdapter": "agui",
    "AGUIAdaptorConfig": "agui",
    "AISDKAdapter": "aisdk",
}
"""The module of each public name."""

__all__ = ["AGUIAdapter", "AGUIAdaptorConfig", "AISDKAdapter"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
