"""Where an app would do nothing and say nothing, a sentence says what to do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from trio_agentapp import AgentApp, TextContent


async def nothing() -> None: ...


async def forgotten() -> Any:
    for _ in ():
        yield "never"


def in_thread() -> None: ...


async def empty() -> str:
    return ""


async def play(app: AgentApp) -> None:
    async with app.stream_query("hi") as events:
        async for _ in events:
            pass


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize("handler", [nothing, forgotten, in_thread, empty])
async def test_a_handler_without_output_is_told_once(
    handler: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    app = AgentApp(agent=handler)
    async with app.runtime():
        for _ in range(3):
            await play(app)

    [told] = warnings_in(caplog)
    assert f"handler {handler.__qualname__!r} ended without output" in told
    assert "yield or return text" in told


async def text() -> str:
    return "hi"


async def part() -> Any:
    yield TextContent(text="hi")


async def failing() -> str:
    raise ValueError


@pytest.mark.parametrize("handler", [text, part, failing])
async def test_one_with_output_or_a_failure_is_not(
    handler: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    await play(AgentApp(agent=handler))

    assert not warnings_in(caplog)
