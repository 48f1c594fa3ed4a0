"""Services on this machine: what they have in common, and those that run in threads of this process.

This module loads no web server, so that listing services stays cheap.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from ..errors import DeployError
from ..protocol.deployment import DeploymentStatus

__all__ = ["SERVICES", "Service", "ThreadedService", "end_service"]

FORCE_TIMEOUT = 10.0
"""Seconds to end for a service that was killed or cancelled."""


class Service(Protocol):
    """A service that can be looked at and stopped."""

    deploy_id: str

    async def look(self) -> DeploymentStatus:
        """Ask the service for its state."""

    async def stop(self, timeout: float | None) -> DeploymentStatus:
        """Drain it; end it by force after `timeout` seconds, by default after what its own settings allow."""


class ThreadedService(Service, Protocol):
    """A service in a thread of this process."""

    @property
    def stop_within(self) -> float:
        """Seconds that it needs at most to end."""

    def request_stop(self, *, hurry: bool = False) -> None:
        """Start the drain; with `hurry`, stop the live runs at once. From any thread, at any time."""

    def join(self, seconds: float) -> None:
        """Wait for the end, blocking this thread."""


SERVICES: dict[str, ThreadedService] = {}
"""The services in threads of this process, by id."""


async def end_service(
    wait_end: Callable[[], Awaitable[object]], force: Callable[[], object], timeout: float, otherwise: str
) -> bool:
    """Wait for the end of a service that was asked to stop; call `force` after `timeout` seconds.

    Returns whether `force` was called.

    Raises:
        DeployError: it does not end even then; with `otherwise` as its message.
    """
    with trio.move_on_after(timeout):
        await wait_end()
        return False
    force()
    with trio.move_on_after(FORCE_TIMEOUT):
        await wait_end()
        return True
    raise DeployError(otherwise)
