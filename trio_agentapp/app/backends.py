"""Chooses the interrupt backend and the event store of an app by its settings."""

from __future__ import annotations

from ..abc import BaseInterruptBackend, EventStore
from ..events import LocalEventStore
from ..interrupts import LocalInterruptBackend
from .settings import Settings

__all__ = ["backend_of", "event_store_of"]


def backend_of(settings: Settings) -> BaseInterruptBackend:
    """The backend from the settings, else a Redis backend, else one for this process alone."""
    if settings.interrupt_redis_url is None:
        return settings.interrupt_backend or LocalInterruptBackend()
    # Imported only if needed: an app on one node needs no Redis client.
    from ..interrupts.redis import RedisInterruptBackend

    return RedisInterruptBackend(
        settings.interrupt_redis_url, prefix=settings.redis_prefix, timings=settings.timings
    )


def event_store_of(settings: Settings, backend: BaseInterruptBackend, node_id: str) -> EventStore:
    """The store from the settings, or one in this process's memory, or in the Redis of the interrupt backend."""
    if isinstance(settings.event_store, EventStore):
        return settings.event_store
    if settings.event_store == "local":
        return LocalEventStore()
    from ..events.redis import RedisEventStore
    from ..interrupts.redis import RedisInterruptBackend

    assert isinstance(backend, RedisInterruptBackend)  # noqa: S101  the settings have checked it
    return RedisEventStore(backend.link, backend.layout, settings.timings, node_id=node_id)
