"""Lets asyncio programs await functions that are written for Trio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple, Unpack

import trio

__all__ = ["run_trio"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


async def run_trio(fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts) -> T:
    """Await `fn(*args)`, which needs Trio, in a Trio or an asyncio program.

    Under asyncio it runs in a thread, which is joined before this returns. When the asyncio task is cancelled, the
    function is cancelled in Trio, and this waits for its end.

    Raises:
        RuntimeError: neither Trio nor asyncio is running.
    """
    if trio.lowlevel.in_trio_task():
        return await fn(*args)
    return await _from_asyncio(fn, *args)


async def _from_asyncio(fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts) -> T:
    import asyncio  # a Trio program does not load it

    scope = trio.CancelScope()
    running: list[trio.lowlevel.TrioToken] = []
    cancelled = False

    async def main() -> T:
        running.append(trio.lowlevel.current_trio_token())
        # The canceller sets `cancelled` and then looks for the token, so one of the two sees the other.
        if cancelled:
            scope.cancel(reason="the asyncio task was cancelled")
        with scope:
            return await fn(*args)
        raise asyncio.CancelledError

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError("deployments are awaited in trio.run or asyncio.run, and neither is running") from None
    with ThreadPoolExecutor(1, "deploy") as thread:
        future = loop.run_in_executor(thread, trio.run, main)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            cancelled = True
            for token in running:
                token.run_sync_soon(scope.cancel)
            while not future.done():
                try:
                    await asyncio.wait([future])
                except asyncio.CancelledError:
                    continue  # it is being cancelled already
            if not future.cancelled():
                future.exception()  # retrieved, so that asyncio does not log it; the caller gets the cancellation
            raise
