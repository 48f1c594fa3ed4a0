"""Code written for asyncio fails under Trio as ever, and the log says what to use."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from trio_agentapp.telemetry.tracebacks import traceback_text

WAY_OUT = "await trio.to_thread.run_sync(asyncio.run, main())"


async def nothing() -> None: ...


async def create_task() -> None:
    coroutine = nothing()
    try:
        asyncio.create_task(coroutine)  # noqa: RUF006
    finally:
        coroutine.close()


async def get() -> None:
    await asyncio.Queue[int]().get()


async def in_group() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asyncio.sleep, 1)
        nursery.start_soon(asyncio.sleep, 0)


async def timeout() -> None:
    async with asyncio.timeout(1):
        await trio.lowlevel.checkpoint()


async def get_running_loop() -> None:
    await asyncio.to_thread(print)


async def current() -> None:
    await trio.to_thread.run_sync(asyncio.get_event_loop)


WRONG: list[Callable[[], Awaitable[Any]]] = [
    lambda: asyncio.sleep(1),
    lambda: asyncio.sleep(0),
    create_task,
    get,
    in_group,
    timeout,
    get_running_loop,
    current,
]


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("wrong", WRONG)
async def test_asyncio_under_trio_is_logged_with_what_to_use(wrong: Callable[[], Awaitable[Any]]) -> None:
    with pytest.raises((RuntimeError, TypeError, AttributeError, ExceptionGroup)) as caught:
        await wrong()

    assert WAY_OUT in traceback_text(caught.value).splitlines()[-1]


async def in_its_own_loop() -> None:
    """What fails in a loop that runs is no matter of Trio."""

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            await group.__aenter__()

    try:
        await trio.to_thread.run_sync(lambda: asyncio.run(main()))
    except* RuntimeError as group:
        raise group.exceptions[0] from None


async def of_the_users_own() -> None:
    raise RuntimeError("no luck")


@pytest.mark.parametrize("other", [in_its_own_loop, of_the_users_own])
async def test_other_errors_have_no_hint(other: Callable[[], Awaitable[None]]) -> None:
    with pytest.raises((RuntimeError, ExceptionGroup)) as caught:
        await other()

    assert WAY_OUT not in traceback_text(caught.value)
