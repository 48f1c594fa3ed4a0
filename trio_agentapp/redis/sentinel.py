"""Asking Sentinels where the master of a service is."""

from __future__ import annotations

from typing import Any

import trio
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from .errors import LinkDown
from .url import SentinelService, TCPAddress, TLSOptions

__all__ = ["discover_master"]


async def discover_master(
    service: SentinelService, *, tls: TLSOptions | None, timeout: float, limiter: trio.CapacityLimiter
) -> TCPAddress:
    """The master's address, as the first Sentinel that knows a healthy one tells it.

    Works in a thread of `limiter`, through redis-py; a cancelled caller leaves the thread behind, which ends by
    itself, at most `timeout` seconds later for each Sentinel. Raises LinkDown if none of them knows a master.
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
        options |= {
            "ssl": True,
            "ssl_ca_certs": tls.ca_certs,
            "ssl_ca_path": tls.ca_path,
            "ssl_ca_data": tls.ca_data,
            "ssl_certfile": tls.certfile,
            "ssl_keyfile": tls.keyfile,
            "ssl_password": tls.password,
            "ssl_cert_reqs": tls.cert_reqs,
            "ssl_check_hostname": tls.check_hostname,
            "ssl_min_version": tls.min_version,
            "ssl_ciphers": tls.ciphers,
        }
    sentinels = [(address.host, address.port) for address in service.sentinels]
    with Sentinel(sentinels, sentinel_kwargs=options) as sentinel:  # type: ignore[no-untyped-call]
        try:
            host, port = sentinel.discover_master(service.service)
        except MasterNotFoundError as error:
            raise LinkDown(f"No Sentinel of {service} knows a healthy master: {error}") from error
        except RedisError as error:
            raise LinkDown(f"A Sentinel of {service} answered: {error}") from error
    return TCPAddress(str(host), int(port))
