"""The settings of an app as operators may see them: JSON without secrets."""

from __future__ import annotations

from typing import Any

import attrs

from ..protocol.text import masked_url, type_name
from ..protocol.timings import Timings
from .settings import SECRETS, Settings

__all__ = ["shown_settings"]


def shown_settings(settings: Settings) -> dict[str, Any]:
    """Return all settings by name. Passwords in URLs and tokens are `***`; objects are shown by their names."""
    return {field.name: _shown(field.name, getattr(settings, field.name)) for field in attrs.fields(type(settings))}


def _shown(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if name in SECRETS:
        return "***"
    if isinstance(value, str):
        return masked_url(value) if "://" in value else value
    if isinstance(value, tuple | list):
        return [_shown(name, each) for each in value]
    if isinstance(value, Timings):
        return attrs.asdict(value)
    module = getattr(value, "__module__", type(value).__module__)
    return f"{module}.{getattr(value, '__qualname__', type_name(value))}"
