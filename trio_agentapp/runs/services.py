"""The services of a registry, which live until its last run has ended."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial

import trio

__all__ = ["KeptServices"]

logger = logging.getLogger("trio_agentapp.runs")


class KeptServices:
    """Runs services in a nursery, and keeps them from being cancelled before the block around them is left.

    Runs need the backend and the store to their end. What cancels the registry, such as a service that failed, must
    therefore stop the runs first, and the other services afterwards.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._scopes: list[trio.CancelScope] = []

    async def __aenter__(self) -> KeptServices:
        return self

    async def __aexit__(self, *_: object) -> None:
        for scope in self._scopes:
            scope.cancel(reason="the run registry is closed")

    async def start(self, name: str, service: Callable[..., Awaitable[None]], *args: object) -> None:
        """Start a service and wait until it is ready (`task_status`)."""
        await self._nursery.start(partial(self._serve, self._new_scope(), name, service, *args), name=name)

    def start_soon(self, name: str, service: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(self._serve, self._new_scope(), name, service, name=name)

    def shield(self) -> None:
        """Call this when all have started. Until then a start can be cancelled."""
        for scope in self._scopes:
            scope.shield = True

    def _new_scope(self) -> trio.CancelScope:
        scope = trio.CancelScope()
        self._scopes.append(scope)
        return scope

    async def _serve(
        self,
        scope: trio.CancelScope,
        name: str,
        service: Callable[..., Awaitable[None]],
        *args: object,
        **status: object,
    ) -> None:
        with scope:
            try:
                await service(*args, **status)
            except Exception:
                if scope.shield:
                    logger.critical("%s failed; all runs of this node are stopped, and the app with them", name)
                raise
