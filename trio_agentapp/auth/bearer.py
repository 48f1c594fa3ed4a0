"""`BearerTokens`: authenticates clients by keys whose hashes are in a file."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from quart import Request, Websocket

from ..web import Principal
from .credentials import bearer_token, only_header
from .keys import KeyRing, parse_keys
from .watched_file import WatchedFile

__all__ = ["BearerTokens"]


class BearerTokens:
    """A hook for `authenticate`: `Authorization: Bearer KEY`, with the keys of a file.

    `header`: a header that may have the key instead, such as `X-API-Key`. The file is read again within a second
    after it has changed; `trio-agentapp token` makes keys and lines for it. The principal has the user and scopes
    of the key, and its name in `claims["key"]`.
    """

    def __init__(self, path: str | os.PathLike[str], *, header: str | None = None) -> None:
        """Read the file. Raises ConfigurationError: it cannot be read, or a line cannot be used."""
        self._header = header
        self._keys = WatchedFile(path, parse_keys, empty=KeyRing(()))

    async def __call__(self, request: Request | Websocket) -> Principal | None:
        """Return the principal, None without a key. Raises InvalidCredentials, CredentialsExpired."""
        key = bearer_token(request)
        if key is None and self._header is not None:
            key = only_header(request, self._header)
        if key is None:
            return None
        record = (await self._keys.current()).check(key, datetime.now(UTC))
        return Principal(record.user, {"key": record.name}, frozenset(record.scopes))
