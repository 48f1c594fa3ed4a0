"""Translates errors of the link and of the server into `BackendUnavailable`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import OutOfMemoryError, RedisError

from ..errors import BackendUnavailable
from .errors import LinkError

__all__ = ["is_full", "unavailable_on_error"]

logger = logging.getLogger("trio_agentapp.redis")


@contextmanager
def unavailable_on_error(detail: str, *, retry_after: float = 1.0) -> Iterator[None]:
    """Raise BackendUnavailable with `detail` if the link fails or the server refuses: both may be temporary."""
    try:
        yield
    except (LinkError, RedisError) as exc:
        if isinstance(exc, RedisError):
            logger.warning("Redis refused: %s", exc)
        raise BackendUnavailable(detail, retry_after=retry_after) from exc


def is_full(error: Exception) -> bool:
    """Return whether the server refused because it is full.

    Before Redis 7, a script wraps this error in another one.
    """
    return isinstance(error, OutOfMemoryError) or (isinstance(error, RedisError) and "-OOM " in str(error))
