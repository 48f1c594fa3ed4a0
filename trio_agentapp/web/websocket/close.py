"""The exception that closes a WebSocket."""

from __future__ import annotations

__all__ = ["Close"]


class Close(Exception):
    """Close the socket with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
