"""Asks Sentinels for the address of a service's master."""

from __future__ import annotations

from typing import Any

import trio
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from .errors import LinkDown
from .url import TLS_OPTIONS, SentinelService, TCPAddress, TLSOptions

__all__ = ["discover_master"]


async def discover_master(
    service: SentinelService, *, tls: TLSOptions | None, timeout: float, limiter: trio.CapacityLimiter
) -> TCPAddress:
    """Return the master's address from the first Sentinel that knows a healthy one.

    redis-py asks them, in a thread of `limiter`. If the caller is cancelled the thread is abandoned; it ends after
    `timeout` seconds for each Sentinel at most.

    Raises:
        LinkDown: no Sentinel knows a master.
    """
    return await trio.to_thread.run_sync(_discover, service, tls, timeout, abandon_on_cancel=True, limiter=limiter)


def _discover(service: SentinelService, tls: TLSOptions | None, timeout: float) -> TCPAddress:
    options: dict[str, Any] = {
        "username": service.username,
        "password": service.password,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
    }
    if tls is not None:
        options |= {"ssl": True, **{name: getattr(tls, field) for name, field in TLS_OPTIONS.items()}}
    sentinels = [(address.host, address.port) for address in service.sentinels]
    with Sentinel(sentinels, sentinel_kwargs=options) as sentinel:  # type: ignore[no-untyped-call]
        try:
            host, port = sentinel.discover_master(service.service)
        except MasterNotFoundError as error:
            raise LinkDown(f"No Sentinel of {service} knows a healthy master: {error}") from error
        except RedisError as error:
            raise LinkDown(f"A Sentinel of {service} answered: {error}") from error
    return TCPAddress(str(host), int(port))
