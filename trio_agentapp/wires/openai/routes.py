"""Where the APIs of OpenAI are served."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from quart import Response

from ...web.protocol_adapter import WireRoute
from .errors import in_their_shape

__all__ = ["BASES", "served"]

BASES = ("/v1", "/compatible-mode/v1")
"""OpenAI's own path, and the one under which other servers have the same API."""


def served(*routes: tuple[str, str, Callable[..., Awaitable[Response]]]) -> Sequence[WireRoute]:
    """Return routes under every base, with errors in the shape that OpenAI's clients read."""
    return [(method, base + path, in_their_shape(view)) for base in BASES for method, path, view in routes]
