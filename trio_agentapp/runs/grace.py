"""A wait with a time limit that another task can cut short."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

__all__ = ["wait_within"]


async def wait_within(timeout: float, hurry: trio.Event | None, wait: Callable[[], Awaitable[None]]) -> None:
    """Await `wait()` for at most `timeout` seconds, and not longer than until `hurry` is set."""

    async def cut_short(event: trio.Event) -> None:
        await event.wait()
        nursery.cancel_scope.cancel(reason="the drain must hurry")

    with trio.move_on_after(timeout):
        async with trio.open_nursery() as nursery:
            if hurry is not None:
                nursery.start_soon(cut_short, hurry)
            await wait()
            nursery.cancel_scope.cancel(reason="the wait is over")
