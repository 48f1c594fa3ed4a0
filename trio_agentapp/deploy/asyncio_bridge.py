"""One implementation, in Trio, that asyncio programs can await too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple, Unpack

import trio

__all__ = ["run_trio"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


async def run_trio(fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts) -> T:
    """Await `fn(*args)`, which needs Trio, from whichever of Trio and asyncio is running.

    Under asyncio it runs in a thread, which is joined before this returns, also when the task is cancelled: the
    cancellation becomes Trio's and is waited for.

    Raises:
        RuntimeError: neither runs.
    """
    if trio.lowlevel.in_trio_task():
        return await fn(*args)
    return await _from_asyncio(fn, *args)


async def _from_asyncio(fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts) -> T:
    import asyncio  # a program of Trio does not pay for it

    scope = trio.CancelScope()
    running: list[trio.lowlevel.TrioToken] = []
    unwanted = False

    async def main() -> T:
        running.append(trio.lowlevel.current_trio_token())
        # Whoever cancels sets `unwanted` and then looks for the token: one of the two sees the other.
        if unwanted:
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
            unwanted = True
            for token in running:
                token.run_sync_soon(scope.cancel)
            while not future.done():
                try:
                    await asyncio.wait([future])
                except asyncio.CancelledError:
                    continue  # we are ending already
            if not future.cancelled():
                future.exception()  # looked at; the cancellation is what the caller gets
            raise
