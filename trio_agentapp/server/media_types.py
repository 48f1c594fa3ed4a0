"""Which bodies are read as JSON, by the type that their request names."""

from __future__ import annotations

from quart.wrappers import Request

from ..errors import UnsupportedMediaType

__all__ = ["check_is_json"]


def check_is_json(request: Request) -> None:
    """Raise UnsupportedMediaType if a request names another type for its body than JSON.

    Programs may leave the type out. Web pages may not: a browser lets a page of any origin send a body without a
    type, or with that of a form, and does not ask the server first (Fetch standard, "CORS-safelisted method" and
    "no-CORS-safelisted request-header").
    """
    named = request.mimetype
    if not named and "Origin" in request.headers:
        raise UnsupportedMediaType("A web page must send its body with the header Content-Type: application/json.")
    if named not in ("", "application/json") and not named.endswith("+json"):
        raise UnsupportedMediaType(f"The body must be application/json, not {named[:80]!r}.")
