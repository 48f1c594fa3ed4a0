"""Where an app would do nothing and say nothing, a sentence says what to do."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypercorn.utils import is_asgi

from trio_agentapp import AgentApp, AgentClient, TextContent
from trio_agentapp.errors import ConfigurationError
from trio_agentapp.telemetry.tracebacks import traceback_text


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


async def wrong() -> Any:
    yield {"a", "set"}


def wrong_in_thread() -> Any:
    yield {"a", "set"}


@pytest.mark.parametrize("handler", [wrong, wrong_in_thread])
async def test_an_item_of_a_wrong_type_is_logged_with_the_users_line_alone(
    handler: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    await play(AgentApp(agent=handler))

    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[1] is not None
    lines = traceback_text(record.exc_info[1]).splitlines()
    assert [line for line in lines if line.startswith("  File")] == [lines[1]]
    assert f"in {handler.__name__}" in lines[1]
    assert lines[2].strip() == 'yield {"a", "set"}'
    assert "a handler may yield str" in lines[-1]
    assert lines[-1].endswith("not set")


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


async def test_a_stop_from_outside_names_the_ways_that_work() -> None:
    with pytest.raises(RuntimeError, match=r"trio-agentapp stop URL --session s1 --user ann") as caught:
        await AgentApp(agent=text).stop_chat("ann", "s1")

    assert "POST /stop" in str(caught.value)
    assert "AgentClient(URL).stop" in str(caught.value)


def test_a_client_under_asyncio_says_what_to_use() -> None:
    async def main() -> None:
        async with AgentClient("http://127.0.0.1:9"):
            pass

    with pytest.raises(ConfigurationError, match=r"trio\.run\(main\).*httpx\.AsyncClient"):
        asyncio.run(main())


def test_a_server_for_wsgi_is_told_what_serves() -> None:
    def start_response(*_: object) -> None: ...

    with pytest.raises(ConfigurationError, match=r"gunicorn.*hypercorn -k trio agent:app"):
        b"".join(AgentApp(agent=text)({"REQUEST_METHOD": "GET"}, start_response))


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_server_on_asyncio_that_skips_the_start_is_told_at_the_first_request(kind: str) -> None:
    async def main() -> None:
        async def receive() -> Any: ...

        await AgentApp(agent=text)({"type": kind}, receive, receive)

    with pytest.raises(ConfigurationError, match=r"uvicorn.*hypercorn -k trio agent:app"):
        asyncio.run(main())


def test_servers_still_see_an_app_of_asgi() -> None:
    app = AgentApp(agent=text)
    assert inspect.iscoroutinefunction(app.__call__)
    assert is_asgi(app)
    with pytest.raises(TypeError):  # by which uvicorn knows that it is not the factory of one
        app()  # type: ignore[call-arg]
