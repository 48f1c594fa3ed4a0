"""One task opens and closes everything, whatever ends the server."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from quart_trio import QuartTrio

from trio_agentapp.server.lifespan import Lifespan

Start = Callable[..., Awaitable[Any]]


class App(QuartTrio):
    """In this process, through Quart's own test harness."""

    asgi_lifespan_class = Lifespan
    launched = True
    gc_threshold = 0

    def __init__(self) -> None:
        super().__init__("app")
        self.seen: list[str] = []

    @asynccontextmanager
    async def runtime(self) -> AsyncIterator[None]:
        self.seen.append("runtime opened")
        try:
            async with trio.open_nursery() as nursery:  # a user's lifespan may hold one across the yield
                yield
                nursery.cancel_scope.cancel()
        finally:
            self.seen.append("runtime closed")

    async def drain(self, hurry: trio.Event) -> None:
        self.seen.append("drained in a hurry" if hurry.is_set() else "drained")


def while_serving(app: App, name: str) -> None:
    @app.while_serving
    async def serving() -> AsyncGenerator[None, None]:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                app.seen.append(f"{name} opened")
                yield
                nursery.cancel_scope.cancel()
        finally:
            app.seen.append(f"{name} closed")


async def test_while_serving_generators_hold_nurseries_and_close_in_reverse() -> None:
    app = App()
    app.before_serving(lambda: app.seen.append("before"))
    app.after_serving(lambda: app.seen.append("after"))
    while_serving(app, "a")
    while_serving(app, "b")
    async with app.test_app():
        app.seen.append("serving")
    assert app.seen == [
        "runtime opened",
        "before",
        "a opened",
        "b opened",
        "serving",
        "drained",
        "after",
        "b closed",
        "a closed",
        "runtime closed",
    ]


async def lifespan_of(app: App, *after_start: Callable[[], object]) -> list[dict[str, Any]]:
    """Drive the lifespan by hand; what it sent."""
    sent: list[dict[str, Any]] = []
    to_app, from_server = trio.open_memory_channel[dict[str, Any]](3)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if message["type"] == "lifespan.startup.complete":
            for step in after_start:
                step()

    await to_app.send({"type": "lifespan.startup"})
    with trio.fail_after(5):
        await app({"type": "lifespan", "asgi": {}}, from_server.receive, send)  # type: ignore[arg-type]
    to_app.close()
    from_server.close()
    return sent


@pytest.mark.parametrize("how", ["before_serving", "runtime", "background"])
async def test_a_failed_start_closes_what_was_opened(how: str, caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    while_serving(app, "a")

    async def fail() -> None:
        raise ZeroDivisionError("no start")

    match how:
        case "before_serving":
            app.before_serving(fail)
        case "runtime":
            app.runtime = lambda: _failing_runtime()  # type: ignore[method-assign]
        case _:

            async def light() -> None:
                app.nursery.start_soon(fail)
                await trio.testing.wait_all_tasks_blocked()

            app.before_serving(light)
    [message] = await lifespan_of(app)
    assert message == {"type": "lifespan.startup.failed", "message": "ZeroDivisionError: no start"}
    assert app.seen.count("runtime opened") == app.seen.count("runtime closed")
    assert app.seen.count("a opened") == app.seen.count("a closed")
    assert "start-up failed: ZeroDivisionError: no start" in caplog.text
    assert "Traceback" in caplog.text


@asynccontextmanager
async def _failing_runtime() -> AsyncIterator[None]:
    raise ZeroDivisionError("no start")
    yield


async def test_an_expected_failure_is_told_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    async def refuse() -> None:
        raise ConnectionRefusedError("no backend")

    app.before_serving(refuse)
    await lifespan_of(app)
    assert "start-up failed: ConnectionRefusedError: no backend" in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_background_crash_ends_the_server_in_order() -> None:
    app = App()
    while_serving(app, "a")
    app.after_serving(lambda: app.seen.append("after"))

    async def explode() -> None:
        raise ZeroDivisionError("background bug")

    messages = await lifespan_of(app, lambda: app.nursery.start_soon(explode))
    assert [message["type"] for message in messages] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.failed",
    ]
    assert app.seen[2:] == ["drained in a hurry", "after", "a closed", "runtime closed"]


async def test_a_crash_in_while_serving_unwinds_its_nursery() -> None:
    app = App()

    @app.while_serving
    async def serving() -> AsyncGenerator[None, None]:
        async with trio.open_nursery() as nursery:
            app.light = lambda: nursery.start_soon(explode)  # type: ignore[attr-defined]
            yield

    async def explode() -> None:
        raise ZeroDivisionError("bug in while_serving")

    messages = await lifespan_of(app, lambda: app.light())  # type: ignore[attr-defined]
    assert messages[-1] == {
        "type": "lifespan.shutdown.failed",
        "message": "ZeroDivisionError: bug in while_serving",
    }
    assert app.seen[-1] == "runtime closed"


@pytest.mark.parametrize(("timeout", "done"), [(5.0, True), (None, False)])
async def test_background_tasks_get_their_timeout(timeout: float | None, done: bool) -> None:
    """Before `complete` is sent, because Hypercorn cancels what is left then."""
    app = App()
    app.config["BACKGROUND_TASK_SHUTDOWN_TIMEOUT"] = timeout

    async def work() -> None:
        await app.shutdown_event.wait()
        await trio.sleep(0.1)
        app.seen.append("worked")

    async with app.test_app():
        app.add_background_task(work)
    assert ("worked" in app.seen) is done


async def test_the_collector_is_tuned_while_serving_only() -> None:
    app = App()
    app.gc_threshold = 50_000
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    async with app.test_app():
        assert gc.get_threshold() == (50_000, 20, 100)
        assert gc.get_freeze_count() > frozen
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


async def test_no_signals_are_taken_when_launched() -> None:
    app = App()
    async with app.test_app():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_hypercorn_without_workers_cleans_up_on_sigterm(start_server: Start) -> None:
    """Without our handler SIGTERM ends the process at once."""
    server = await start_server("--workers", "0", "--graceful-timeout", "1")
    async with server.connect() as client:
        await client.get("/stream?cleanup=0.5")
        await client.read_until(b"tick")
        server.signal()
        assert await server.wait_exit() == 0
    assert server.trace[-2:] == ["after serving", "runtime closed"]
    assert "cleaned up" in server.trace
    assert server.trace[0] == "imported by a launcher"


async def test_a_second_sigterm_hurries_hypercorn_without_workers(start_server: Start) -> None:
    server = await start_server("--workers", "0", "--graceful-timeout", "1", drain_timeout=60)
    async with server.connect() as client:
        await client.get("/stream")
        await client.read_until(b"tick")
        server.signal()
        await server.wait_traced("draining")
        server.signal()
        await server.wait_traced("hurried")
        assert await server.wait_exit() == 0


async def _pid_of_a_worker(server: Any) -> int:
    async with server.connect() as client:
        await client.get("/pid", "Connection: close")
        return int((await client.read_to_eof()).split(b"\r\n\r\n")[1])


@pytest.mark.parametrize("to", ["master", "worker"])
async def test_hypercorn_with_two_workers_completes_the_cleanup(start_server: Start, to: str) -> None:
    """The first worker to leave makes the master SIGTERM the other one, which is cleaning up."""
    options = {"drain_timeout": 60} if to == "master" else {}
    server = await start_server("--workers", "2", "--graceful-timeout", "1", **options)
    await server.wait_traced("before serving", 2)
    async with server.connect() as client:
        await client.get("/stream?cleanup=3")
        await client.read_until(b"tick")
        if to == "master":
            server.signal()
        else:
            os.kill(await _pid_of_a_worker(server), signal.SIGTERM)
        assert await server.wait_exit() == 0
    assert "cleaned up" in server.trace
    assert server.trace.count("runtime closed") == 2
    assert server.trace.count("after serving") == 2
    assert "hurried" not in server.trace, "the master's repeated SIGTERM is not a wish to hurry"


async def test_a_background_crash_leaves_no_zombie_under_hypercorn(start_server: Start) -> None:
    """With a stream open. With workers the exit code is Hypercorn's, and not checked."""
    server = await start_server("--workers", "0")
    async with server.connect() as client, server.connect() as other:
        await client.get("/stream")
        await client.read_until(b"tick")
        await other.get("/crash")
        assert await server.wait_exit() == 1
    assert "ZeroDivisionError: background bug" in server.log
    assert server.trace[-1] == "runtime closed"


async def test_a_server_on_asyncio_is_refused_with_the_command_that_works(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text("from trio_agentapp import AgentApp\n\napp = AgentApp()\n")
    command = [sys.executable, "-m", "hypercorn", "--bind", "127.0.0.1:0", "agent:app"]
    with trio.fail_after(60):
        ended = await trio.run_process(command, cwd=tmp_path, capture_stderr=True, check=False)
    assert b"hypercorn -k trio agent:app" in ended.stderr
    assert b"no running" not in ended.stderr
    assert b"TrioInternalError" not in ended.stderr
