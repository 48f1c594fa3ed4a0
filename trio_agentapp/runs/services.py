"""Keeps the background tasks of a registry running until the last run has ended. `RunRegistry.open` starts them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial

import trio

__all__ = ["KeptServices"]

logger = logging.getLogger("trio_agentapp.runs")


class KeptServices:
    """Background tasks in a nursery. They are shielded: only leaving `async with` around this object cancels them.

    A run needs the backend and the event store until its end is written. If a service fails, Trio cancels the
    nursery of all services. The runs are inside that nursery, so they are stopped. The other services continue,
    because each has a shielded scope of its own. They end when the last run has ended and the block is left.
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
        """Start a service, and wait until it calls `task_status.started()`.

        Raises what the service raises before that.
        """
        await self._nursery.start(partial(self._serve, self._new_scope(), name, service, *args), name=name)

    def start_soon(self, name: str, service: Callable[[], Awaitable[None]]) -> None:
        """Start a service without waiting for it."""
        self._nursery.start_soon(self._serve, self._new_scope(), name, service, name=name)

    def shield(self) -> None:
        """Shield the services that have been started so far against cancellation from outside.

        Call it when all have started. Before, a start that hangs can be cancelled.
        """
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
