"""Reads credentials from headers, for the hooks of this package."""

from __future__ import annotations

from collections.abc import Iterable

from quart import Request, Websocket

from ..errors import InvalidCredentials
from ..protocol.ids import identifier_fault

__all__ = ["bearer_token", "only_header", "user_of", "words_of"]

MAX_CREDENTIAL = 16 * 1024
"""Characters of a token. Identity providers stay below 8 KB, which is what most proxies accept."""


def only_header(request: Request | Websocket, name: str) -> str | None:
    """Return the value of a header, None without it.

    Raises InvalidCredentials: the header is too long, or is there twice, so that a proxy may have checked the other
    one.
    """
    values = request.headers.getlist(name)
    if not values:
        return None
    if len(values) > 1 or len(values[0]) > MAX_CREDENTIAL:
        raise InvalidCredentials
    return str(values[0])


def bearer_token(request: Request | Websocket) -> str | None:
    """Return the token of `Authorization: Bearer` (RFC 6750, section 2.1), None without one.

    Raises InvalidCredentials, as `only_header` does.
    """
    scheme, _, token = (only_header(request, "Authorization") or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def user_of(value: object) -> str:
    """Return a user id. Raises InvalidCredentials: it is not one."""
    if not isinstance(value, str) or identifier_fault(value) is not None:
        raise InvalidCredentials
    return value


def words_of(value: object) -> Iterable[str]:
    """Return scopes from one text with spaces in between (RFC 8693, section 4.2), or from a list."""
    if isinstance(value, str):
        return value.split()
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
