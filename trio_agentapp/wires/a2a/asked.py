"""Who calls an operation of A2A."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from ...web.identity import Caller
from .versions import Version

__all__ = ["Asked"]


@attrs.frozen(kw_only=True)
class Asked:
    """Who asks, in which version, and with which extensions."""

    caller: Caller
    version: Version
    extensions: Sequence[str] = ()
    """The URIs that the client wants to use, and that the agent has."""
    idempotency_key: str | None = None
    body: bytes = b""

    @property
    def authenticated(self) -> str | None:
        principal = self.caller.principal
        return None if principal is None else principal.user_id
