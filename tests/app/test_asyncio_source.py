"""`except asyncio.CancelledError` is told when a function is registered: on Trio it never comes."""

from __future__ import annotations

import asyncio
import inspect
import warnings
from asyncio import CancelledError
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
import trio

from trio_agentapp import AgentApp

REGISTER: dict[str, Callable[[Any], Any]] = {
    "query": lambda fn: AgentApp().query()(fn),
    "agent": lambda fn: AgentApp(agent=fn),
    "task": lambda fn: AgentApp().task("/t")(fn),
    "endpoint": lambda fn: AgentApp().endpoint("/e")(fn),
    "get": lambda fn: AgentApp().get("/g")(fn),
    "post": lambda fn: AgentApp().post("/p")(fn),
    "websocket": lambda fn: AgentApp().websocket("/w")(fn),
}


async def dotted() -> None:
    try:
        await trio.sleep(1)
    except asyncio.CancelledError:  # named
        raise


async def bare() -> AsyncGenerator[int, None]:
    try:
        yield 1
    except (ValueError, CancelledError):  # named
        raise


async def within() -> None:
    import asyncio as _  # noqa: F401

    async with trio.open_nursery():
        try:
            await trio.sleep(1)
        except asyncio.exceptions.CancelledError as error:  # named
            raise error from None


@pytest.mark.parametrize("register", REGISTER.values(), ids=REGISTER)
@pytest.mark.parametrize("fn", [dotted, bare, within])
def test_each_way_in_names_file_and_line(register: Callable[[Any], Any], fn: Any) -> None:
    lines, first = inspect.getsourcelines(fn)
    place = first + next(index for index, line in enumerate(lines) if "# named" in line)

    with pytest.warns(RuntimeWarning, match=r"CancelledError is never raised here.*except trio\.Cancelled") as seen:
        register(fn)

    assert [(each.filename, each.lineno) for each in seen] == [(__file__, place)]
    assert f"({__file__}, line {place})" in str(seen[0].message)


async def of_trio() -> None:
    try:
        await trio.sleep(1)
    except trio.Cancelled:
        raise


async def in_a_loop_of_its_own() -> None:
    async def main() -> None:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            raise

    await trio.to_thread.run_sync(lambda: asyncio.run(main()))


def in_a_thread() -> None:
    try:
        asyncio.run(asyncio.sleep(1))
    except asyncio.CancelledError:
        raise


def without_source() -> Any:
    names: dict[str, Any] = {}
    exec("async def fn():\n    try: ...\n    except asyncio.CancelledError: ...", names)
    return names["fn"]


@pytest.mark.parametrize("register", REGISTER.values(), ids=REGISTER)
@pytest.mark.parametrize("fn", [of_trio, in_a_loop_of_its_own, in_a_thread, without_source()])
def test_other_functions_are_left_alone(register: Callable[[Any], Any], fn: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register(fn)
