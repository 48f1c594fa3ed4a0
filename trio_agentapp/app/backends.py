"""Which interrupt backend an app gets."""

from __future__ import annotations

from ..abc import BaseInterruptBackend
from ..interrupts import LocalInterruptBackend
from .settings import Settings

__all__ = ["backend_of"]


def backend_of(settings: Settings) -> BaseInterruptBackend:
    """The one given, or Redis, or this process alone."""
    if settings.interrupt_redis_url is None:
        return settings.interrupt_backend or LocalInterruptBackend()
    # Loaded when it is wanted: an app on one node needs no Redis client.
    from ..interrupts.redis import RedisInterruptBackend

    return RedisInterruptBackend(
        settings.interrupt_redis_url, prefix=settings.redis_prefix, timings=settings.timings
    )
