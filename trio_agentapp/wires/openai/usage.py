"""The usage of a run in numbers of tokens. Handlers set `run.usage` as their model reports it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

__all__ = ["Usage", "usage_of"]


@attrs.frozen
class Usage:
    """Numbers of tokens."""

    input: int = 0
    output: int = 0
    total: int = 0
    cached: int = 0
    reasoning: int = 0

    def of_response(self) -> dict[str, Any]:
        """As a response of the Responses API has it."""
        return {
            "input_tokens": self.input,
            "input_tokens_details": {"cached_tokens": self.cached, "cache_write_tokens": 0},
            "output_tokens": self.output,
            "output_tokens_details": {"reasoning_tokens": self.reasoning},
            "total_tokens": self.total,
        }

    def of_completion(self) -> dict[str, Any]:
        """As a chat completion has it."""
        return {
            "prompt_tokens": self.input,
            "completion_tokens": self.output,
            "total_tokens": self.total,
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        }


def usage_of(found: Mapping[str, Any] | None) -> Usage | None:
    """Return the usage in what a handler has set, in the names of either API; None if there are no tokens in it."""
    if found is None:
        return None
    input_, output = (
        _first(found, "input_tokens", "prompt_tokens"),
        _first(found, "output_tokens", "completion_tokens"),
    )
    total = _first(found, "total_tokens")
    if input_ is None and output is None and total is None:
        return None
    return Usage(
        input_ or 0,
        output or 0,
        (input_ or 0) + (output or 0) if total is None else total,
        _detail(found, "cached_tokens", "input_tokens_details", "prompt_tokens_details"),
        _detail(found, "reasoning_tokens", "output_tokens_details", "completion_tokens_details"),
    )


def _first(found: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = found.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return int(value)
    return None


def _detail(found: Mapping[str, Any], name: str, *places: str) -> int:
    for place in places:
        inner = found.get(place)
        if isinstance(inner, Mapping) and (value := _first(inner, name)) is not None:
            return value
    return _first(found, name) or 0
