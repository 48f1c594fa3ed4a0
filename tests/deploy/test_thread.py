"""Services beside the program that deployed them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
import trio

from trio_agentapp import AgentApp
from trio_agentapp.deploy import DeploymentState, LocalDeployManager
from trio_agentapp.errors import DeployError

from .conftest import PATIENCE, Chat, run, told, wait_until


def services() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("deployment ")]


def counter(**options) -> tuple[AgentApp, list[str]]:
    app, ends = AgentApp(drain_timeout=0.2, cleanup_budget=5, **options), []

    @app.query()
    async def count(run):
        try:
            for number in range(10_000):
                yield f"{number} "
                await trio.sleep(0.02)
        finally:
            async with run.cleanup():
                await trio.sleep(0.05)
                ends.append("cleaned")

    return app, ends


async def deploy_use_stop() -> None:
    """The same under Trio and under asyncio."""
    app, ends = counter()
    manager = LocalDeployManager(port=0)
    deployment = await app.deploy(manager)
    assert (deployment.mode, deployment.pid, deployment["url"]) == ("daemon_thread", os.getpid(), deployment.url)
    assert services() == [f"deployment {deployment.deploy_id}"]
    async with httpx.AsyncClient() as client:
        # It listens on a loopback address.
        answer = await client.get(f"{deployment.url}/health", headers={"Host": "evil.example"})
        assert answer.json()["code"] == "misdirected_request"
    chat = Chat(deployment.url).begin()
    assert chat.headers["x-process-mode"] == "daemon_thread"
    [status] = await LocalDeployManager().list()
    assert (status.state, status.app_name, status.log) == (DeploymentState.READY, "Agent", "")
    with pytest.raises(DeployError, match="deployed in this process already"):
        await app.deploy(manager)
    stopped = await manager.stop(deployment.deploy_id)
    assert chat.end()["status"] == "canceled"
    assert (stopped.state, stopped.reason) == (DeploymentState.STOPPED, None)
    assert ends == ["cleaned"]
    assert not services()
    with pytest.raises(DeployError, match="there is no deployment"):
        await manager.status(deployment.deploy_id)
    # Once more, on the same app.
    again = await app.deploy(manager)
    assert (await manager.status(again.deploy_id)).state is DeploymentState.READY
    await manager.stop(again.deploy_id)
    assert not services()


async def test_from_trio() -> None:
    with trio.fail_after(PATIENCE):
        await deploy_use_stop()


def test_from_asyncio() -> None:
    asyncio.run(asyncio.wait_for(deploy_use_stop(), PATIENCE))


@pytest.mark.parametrize("library", ["trio", "asyncio"])
@pytest.mark.parametrize("way", ["end", "SIGTERM", "SIGHUP", "SIGINT"])
async def test_the_end_of_the_program_drains(library: str, way: str, program: Path, marks) -> None:
    leave = ["leave"] if way == "end" else []
    if way == "end":
        assert told(run(program, "daemon_thread", library, *leave))["mode"] == "daemon_thread"
        return
    process = subprocess.Popen(
        [sys.executable, str(program), "daemon_thread", library],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with process:
        try:
            assert process.stdout is not None
            deployment = told((await trio.to_thread.run_sync(process.stdout.readline)).decode())
            chat = Chat(deployment["url"]).begin()
            if way == "SIGHUP":
                process.send_signal(signal.SIGUSR1)
                process.send_signal(signal.SIGUSR2)
            process.send_signal(getattr(signal, way))
            await wait_until(lambda: process.poll() is not None)
            assert chat.end()["status"] == "canceled"
        finally:
            process.kill()
    assert marks() == ["cleaned"]
    by_signal = {"SIGTERM": (-signal.SIGTERM,), "SIGHUP": (-signal.SIGHUP,), "SIGINT": (-signal.SIGINT, 1, 130)}
    assert process.returncode in by_signal[way]


async def test_a_start_that_fails_leaves_no_thread(
    manager: LocalDeployManager, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(app: AgentApp) -> None:
        raise OSError("no disk")

    with pytest.raises(DeployError, match=r"^the service could not start: OSError: no disk$"):
        await AgentApp(before_start=fail).deploy(manager)
    (record,) = caplog.records
    assert (record.getMessage(), record.exc_info) == ("The start-up failed: OSError: no disk", None)
    assert not services()

    async def wait(app: AgentApp) -> None:
        await trio.sleep_forever()

    with pytest.raises(DeployError, match=r"not ready in 0.2 s: it does not answer"):
        await AgentApp(before_start=wait).deploy(manager, ready_timeout=0.2)
    assert not services()
    hasty = LocalDeployManager(port=0, startup_timeout=0.3)
    with pytest.raises(DeployError, match=r"not ready in 0.3 s: it does not answer"):
        await AgentApp(before_start=wait).deploy(hasty)
    with pytest.raises(DeployError, match=r"not ready in 0.2 s: it does not answer"):
        await AgentApp(before_start=wait).deploy(hasty, ready_timeout=0.2)
    assert not services()


@pytest.mark.parametrize(("of_manager", "of_stop"), [(None, 0.3), (0.3, None), (60, 0.3)])
async def test_a_service_that_does_not_end_is_cancelled(of_manager: float | None, of_stop: float | None) -> None:
    manager = LocalDeployManager(port=0, shutdown_timeout=of_manager)
    seen = []

    async def stay(app: AgentApp) -> None:
        try:
            await trio.sleep_forever()
        finally:
            seen.append("cancelled")

    app = AgentApp()

    @app.while_serving
    async def serving():
        yield
        await stay(app)

    deployment = await app.deploy(manager)
    status = await manager.stop(deployment.deploy_id, timeout=of_stop)
    assert status.reason == "cancelled: it had not ended in 0.3 s"
    assert seen == ["cancelled"]
    assert not services()


async def test_a_deployment_that_cannot_begin_leaves_the_program_its_signals() -> None:
    app, _ = counter()
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(DeployError, match="in use"):
            await app.deploy(LocalDeployManager(port=taken.getsockname()[1]))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)] == before
