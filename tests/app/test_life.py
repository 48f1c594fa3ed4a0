"""What is opened is closed, in the opposite order, also when the start fails midway (DESIGN, section 2)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from quart import Blueprint

from trio_agentapp import AgentApp, AgentAppError, LocalInterruptBackend

from .conftest import Served, first_event

ROOT = Path(__file__).parents[2]


class Backend(LocalInterruptBackend):
    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self.seen = seen

    async def aclose(self) -> None:
        self.seen.append("backend closed")


def recording_app(seen: list[str], fail: str = "", **options: Any) -> AgentApp:
    def step(name: str) -> None:
        seen.append(name)
        if name == fail:
            raise ZeroDivisionError(f"bug in {name}")

    @asynccontextmanager
    async def lifespan(app: AgentApp) -> AsyncIterator[None]:
        step("lifespan in")
        app.state.model = "a model"
        try:
            async with trio.open_nursery() as nursery:  # may be held across the yield
                nursery.start_soon(trio.sleep_forever)
                yield
                nursery.cancel_scope.cancel()
        finally:
            step("lifespan out")

    async def before_start(app: AgentApp) -> None:
        step("before_start")

    def after_finish(app: AgentApp) -> None:
        step("after_finish")

    app = AgentApp(
        lifespan=lifespan,
        before_start=before_start,
        after_finish=after_finish,
        interrupt_backend=Backend(seen),
        **options,
    )
    with pytest.warns(DeprecationWarning, match="lifespan"):  # noqa: PT031

        @app.init
        async def init() -> None:
            step("init")

        @app.shutdown
        def shut_down(app: AgentApp) -> None:
            step("shutdown")

    @app.before_serving
    async def before_serving() -> None:
        step("before_serving")

    @app.after_serving
    async def after_serving() -> None:
        step("after_serving")

    @app.query()
    async def chat(self: Any, msgs: Any, run: Any) -> AsyncIterator[str]:
        try:
            yield app.state.model
            await trio.sleep_forever()
        finally:
            async with run.cleanup():
                await trio.sleep(0.01)
                # All that a handler was given is there until its cleanup is over.
                assert "lifespan out" not in seen
                assert "backend closed" not in seen
                step("cleanup of a run")

    return app


async def test_the_order(served: Served) -> None:
    seen: list[str] = []
    app = recording_app(seen)
    async with served(app) as client:
        seen.append("serving")
        assert app.state.model == "a model"
        assert (await client.get("/readiness")).status_code == 200
    assert seen == [
        "before_start",
        "init",
        "lifespan in",
        "before_serving",
        "serving",
        "after_serving",
        "lifespan out",
        "shutdown",
        "after_finish",
        "backend closed",
    ]


async def test_live_runs_end_before_what_they_use_is_closed(served: Served) -> None:
    seen: list[str] = []
    app = recording_app(seen, drain_timeout=0.05)
    async with served(app):
        for _ in range(2):
            async with app.stream_query({"input": "hi", "on_disconnect": "continue"}) as events:
                await first_event(events)
    assert seen.count("cleanup of a run") == 2
    assert seen[-4:] == ["lifespan out", "shutdown", "after_finish", "backend closed"]


@pytest.mark.parametrize(
    ("stage", "closed"),
    [
        ("before_start", ["backend closed"]),
        ("init", ["after_finish", "backend closed"]),
        ("lifespan in", ["shutdown", "after_finish", "backend closed"]),
        ("before_serving", ["lifespan out", "shutdown", "after_finish", "backend closed"]),
    ],
)
async def test_a_start_that_fails_closes_what_was_opened(served: Served, stage: str, closed: list[str]) -> None:
    seen: list[str] = []
    with pytest.raises(RuntimeError, match=rf"startup\.failed: ZeroDivisionError: bug in {stage}") as caught:
        await _serve(served, recording_app(seen, stage))
    assert "Traceback" not in str(caught.value)
    assert seen[seen.index(stage) + 1 :] == closed


async def _serve(served: Served, app: AgentApp) -> None:
    try:
        async with served(app):
            pass
    except* RuntimeError as errors:
        raise errors.exceptions[0] from None


@pytest.mark.parametrize("stage", ["lifespan out", "shutdown", "after_finish", "after_serving"])
async def test_an_end_that_fails_closes_the_rest(served: Served, stage: str) -> None:
    seen: list[str] = []
    with pytest.raises(RuntimeError, match=rf"shutdown\.failed: ZeroDivisionError: bug in {stage}"):
        await _serve(served, recording_app(seen, stage))
    assert seen[-1] == "backend closed"
    assert {"lifespan out", "shutdown", "after_finish"} <= set(seen)


async def test_the_app_can_be_opened_again() -> None:
    seen: list[str] = []
    app = recording_app(seen)
    for _ in range(2):
        async with app.runtime():
            assert app.state.model == "a model"
    assert seen.count("lifespan in") == seen.count("lifespan out") == 2


async def test_a_body_that_fails_closes_all() -> None:
    seen: list[str] = []
    with pytest.raises(BaseException) as caught:  # noqa: PT011  a nursery may have wrapped it
        async with recording_app(seen).runtime():
            raise KeyError("user's")
    assert "KeyError" in repr(caught.value)
    assert seen[-4:] == ["lifespan out", "shutdown", "after_finish", "backend closed"]


async def test_a_cancelled_app_closes_all() -> None:
    seen: list[str] = []
    with trio.move_on_after(0.05):
        async with recording_app(seen).runtime():
            await trio.sleep_forever()
    assert seen[-4:] == ["lifespan out", "shutdown", "after_finish", "backend closed"]


def test_state_tells_what_it_has() -> None:
    app = AgentApp()
    app.state.model = 1
    with pytest.raises(AttributeError, match=r"'modell'.*model.*state_service"):
        _ = app.state.modell
    assert not hasattr(app.state, "nothing")


async def test_shutdown_without_a_function_is_quarts() -> None:
    app = AgentApp()
    async with app.test_app():
        pass  # test_app calls `app.shutdown()` itself


async def test_require_auth_without_a_hook_refuses_to_start() -> None:
    with pytest.raises(AgentAppError, match=r"require_auth.*authenticate"):
        async with AgentApp(require_auth=True).runtime():
            pass


# Whole processes.


PROGRAM = """
import os, sys
from contextlib import asynccontextmanager
from trio_agentapp import AgentApp

def step(name):
    print(name, flush=True)
    if os.environ.get("FAIL") == name:
        raise ZeroDivisionError("bug in " + name)

@asynccontextmanager
async def lifespan(app):
    step("lifespan")
    try:
        yield
    finally:
        step("lifespan out")

app = AgentApp(
    lifespan=lifespan,
    before_start=lambda app: step("before_start"),
    after_finish=lambda app: step("after_finish"),
    require_auth=os.environ.get("FAIL") == "require_auth",
)

@app.init
def init():
    step("init")

@app.before_serving
async def before():
    step("before_serving")
    if not os.environ.get("FAIL"):
        os.kill(os.getpid(), 15)

@app.query()
async def chat(msgs):
    yield "hi"

app.run(port=0)
print("after run", flush=True)
"""


def run_program(folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    (folder / "program.py").write_text(PROGRAM)
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    return subprocess.run(
        [sys.executable, "program.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, **env},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("stage", ["before_start", "init", "lifespan", "before_serving", "require_auth"])
def test_run_exits_1_when_the_start_fails(tmp_path: Path, stage: str) -> None:
    done = run_program(tmp_path, FAIL=stage)
    assert done.returncode == 1, done
    assert "is ready" not in done.stderr
    assert "after run" not in done.stdout
    assert f"bug in {stage}" in done.stderr or (stage == "require_auth" and "require_auth" in done.stderr)
    assert ("after_finish" in done.stdout) == (stage not in ("before_start", "require_auth"))


def test_run_returns_after_a_clean_end(tmp_path: Path) -> None:
    done = run_program(tmp_path)
    assert done.returncode == 0, done
    assert done.stdout.splitlines()[-3:] == ["lifespan out", "after_finish", "after run"]


@pytest.mark.parametrize(("name", "value"), [("PORT", "eighty"), ("AGENTAPP_DRAIN_TIMEOUT", "soon")])
def test_run_names_a_variable_that_cannot_be(tmp_path: Path, name: str, value: str) -> None:
    program = PROGRAM.replace("app.run(port=0)", "app.run()")
    (tmp_path / "program.py").write_text(program)
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, name: value},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert name in done.stderr
    assert repr(value) in done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_open_to_the_world_without_a_hook_is_warned_of(tmp_path: Path, host: str) -> None:
    done = run_program(tmp_path, HOST=host)
    assert done.returncode == 0, done
    assert ("authenticate" in done.stderr) == (host == "0.0.0.0")


def test_run_at_module_level_does_nothing_under_hypercorn(tmp_path: Path) -> None:
    """`app.run()` without a guard, imported by the command: it serves as the command says."""
    import signal
    import socket
    import time

    (tmp_path / "program.py").write_text(PROGRAM)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    command = [sys.executable, "-m", "hypercorn", "-k", "trio", "-b", f"127.0.0.1:{port}", "program:app"]
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path, "FAIL": "nothing"},
        )
    try:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                with socket.create_connection(("127.0.0.1", port), 1) as client:
                    client.sendall(b"GET /readiness HTTP/1.0\r\n\r\n")
                    if b" 200 " in client.recv(100):
                        break
            except OSError:
                time.sleep(0.05)
        else:
            raise AssertionError((tmp_path / "log").read_text())
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    text = (tmp_path / "log").read_text()
    assert "is ready on" not in text
    assert text.count("after run") >= 1, "the import went on after run()"


async def test_what_init_sets_on_self_is_there_in_the_handler_and_at_shutdown(served: Served) -> None:
    app, seen = AgentApp(), []
    with pytest.warns(DeprecationWarning, match="lifespan"):  # noqa: PT031

        @app.init
        async def init(self: Any) -> None:
            self.model = "a model"
            seen.append(self.app)

        @app.init
        def by_another_name(application: AgentApp) -> None:
            seen.append(application)

        @app.shutdown
        def shut_down(self: Any) -> None:
            seen.append(self.model)

    @app.query()
    async def chat(self: Any) -> str:
        return str(self.model)

    async with served(app) as client:
        answer = await client.post("/process", json={"input": "hi", "stream": False})
        assert b"a model" in await answer.get_data()
    assert seen == [app, app, "a model"]


async def test_while_serving_runs_each_time_the_app_is_served(served: Served) -> None:
    app, seen = AgentApp(), []
    blueprint = Blueprint("shop", __name__)

    @app.while_serving
    async def serving() -> AsyncIterator[None]:
        seen.append("in")
        async with trio.open_nursery():
            yield
        seen.append("out")

    @blueprint.while_app_serving
    async def of_blueprint() -> AsyncIterator[None]:
        seen.append("blueprint in")
        yield
        seen.append("blueprint out")

    app.register_blueprint(blueprint)
    for _ in range(2):
        async with served(app):
            assert seen == ["in", "blueprint in"]
        assert seen == ["in", "blueprint in", "blueprint out", "out"]
        seen.clear()
