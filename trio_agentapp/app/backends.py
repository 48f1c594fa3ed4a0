"""Chooses the backends of an app by its settings: for interrupts, for events, and for limits of principals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from ..abc import BaseInterruptBackend, EventStore
from ..events import LocalEventStore
from ..interrupts import LocalInterruptBackend
from ..limits import Rates
from .settings import Settings

__all__ = ["backend_of", "event_store_of", "sharing_of"]


def backend_of(settings: Settings) -> BaseInterruptBackend:
    """Return the backend of the settings: the given one, one for the given Redis, or one for this process alone."""
    if settings.interrupt_redis_url is None:
        return settings.interrupt_backend or LocalInterruptBackend()
    # Imported only if needed: an app on one node needs no Redis client.
    from ..interrupts.redis import RedisInterruptBackend

    return RedisInterruptBackend(
        settings.interrupt_redis_url, prefix=settings.redis_prefix, timings=settings.timings
    )


def sharing_of(backend: BaseInterruptBackend, limits: Iterable[Rates]) -> Callable[[], Awaitable[None]] | None:
    """Return a task that shares limits over the Redis of the interrupt backend; None if that is not Redis."""
    if isinstance(backend, LocalInterruptBackend):
        return None
    from ..interrupts.redis import RedisInterruptBackend

    if not isinstance(backend, RedisInterruptBackend):
        return None
    from ..limits.shared import share_forever

    return partial(share_forever, backend.link, backend.layout, limits)


def event_store_of(settings: Settings, backend: BaseInterruptBackend, node_id: str) -> EventStore:
    """Return the event store of the settings: the given one, or one in memory or in the backend's Redis."""
    if isinstance(settings.event_store, EventStore):
        return settings.event_store
    if settings.event_store == "local":
        return LocalEventStore()
    from ..events.redis import RedisEventStore
    from ..interrupts.redis import RedisInterruptBackend

    assert isinstance(backend, RedisInterruptBackend)  # noqa: S101  the settings have checked it
    return RedisEventStore(backend.link, backend.layout, settings.timings, node_id=node_id)
