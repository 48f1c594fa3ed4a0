"""The grace period of a drain: the time in which work may still end by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

__all__ = ["grace_period"]


async def grace_period(
    wait_done: Callable[[], Awaitable[object]], timeout: float, hurry: trio.Event | None = None
) -> None:
    """Await `wait_done()`, for `timeout` seconds at most, or until `hurry` is set."""
    with trio.move_on_after(timeout) as period:
        async with trio.open_nursery() as nursery:
            if hurry is not None:
                nursery.start_soon(_cancel_when_set, hurry, period)
            await wait_done()
            nursery.cancel_scope.cancel(reason="the work is done")


async def _cancel_when_set(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel(reason="the grace period was cut short")
