"""Describes failed connections without the exception types of httpx and trio-websocket."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator

import httpx

__all__ = ["ConnectionFailed", "connection_failed"]

NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class ConnectionFailed(Exception):
    """A connection failed, or nothing arrived for too long. The client handles it; users see `ConnectionLost`.

    `sent`: the request may have arrived, so the server may have executed it. `permanent`: another attempt cannot
    succeed.
    """

    def __init__(self, reason: str, *, sent: bool, permanent: bool = False) -> None:
        super().__init__(reason)
        self.sent = sent
        self.permanent = permanent


def connection_failed(error: BaseException) -> ConnectionFailed:
    """Describe an exception of a connection. Only some errors of httpx mean that the request may have been sent."""
    causes = list(_causes(error))
    permanent = any(_of_certificate(cause) for cause in causes)
    never_sent = permanent or isinstance(error, NEVER_SENT) or not isinstance(error, httpx.TransportError)
    if isinstance(error, httpx.TimeoutException):
        reason = "no connection in time" if never_sent else "no answer in time"
    else:
        reason = next((text for cause in reversed(causes) if (text := _text(cause))), type(error).__name__)
    return ConnectionFailed(reason, sent=not never_sent, permanent=permanent)


def _of_certificate(error: BaseException) -> bool:
    """Return whether a certificate was refused: the server's by this client, or the client's by the server."""
    reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    return isinstance(error, ssl.SSLCertVerificationError) or (
        "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes, the original cause last."""
    current: BaseException | None = error
    while current is not None:
        yield current
        if isinstance(current, BaseExceptionGroup):
            current = current.exceptions[0]
        else:
            current = current.__cause__ or current.__context__


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        # Negative numbers are getaddrinfo's, which os.strerror does not know.
        number = error.errno or 0
        return os.strerror(number) if number > 0 else error.strerror or str(error)
    return "" if isinstance(error, BaseExceptionGroup) else str(error)
