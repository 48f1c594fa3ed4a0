"""Detached services that are started again when they crash."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import trio

from trio_agentapp.deploy import DeploymentState, LocalDeployManager
from trio_agentapp.deploy import supervisor as module
from trio_agentapp.errors import DeployError

from .conftest import TIMEOUT, Chat, services_in, wait_until

SUPERVISOR = "trio_agentapp.deploy.supervisor"


@pytest.fixture
def detached() -> LocalDeployManager:
    return LocalDeployManager(port=0, mode="detached_process")


def ask(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False, timeout=TIMEOUT)


def read(path: str) -> str:
    return Path(path).read_text()


async def test_a_killed_service_is_back(program: Path, home: Path, marks, detached) -> None:
    here = await detached.deploy(entrypoint=str(program), restart=True)
    assert services_in(home) == [here.pid]
    for _ in range(2):
        [before] = services_in(home)
        os.kill(before, signal.SIGKILL)
        # The socket stays open, so a client waits and is not refused.
        answer = await trio.to_thread.run_sync(
            lambda: httpx.get(f"{here.url}/readiness", trust_env=False, timeout=20)
        )
        assert answer.status_code == 200
        assert services_in(home) != [before]
        status = await detached.status(here.deploy_id)
        assert (status.state, [status.pid]) == (DeploymentState.READY, services_in(home))
    assert read(status.log).count("The service ended with code 137; it is started again in") == 2

    # A stop drains the service, and ends both.
    chat = Chat(here.url).begin()
    stopped = await detached.stop(here.deploy_id)
    assert (stopped.state, stopped.reason) == (DeploymentState.STOPPED, None)
    assert chat.end()["status"] == "canceled"
    assert marks() == ["cleaned"]
    assert not services_in(home)
    assert not services_in(home, SUPERVISOR)
    assert await detached.list() == []


async def test_a_service_that_fails_to_start_is_not_started_again(tmp_path: Path, home: Path, detached) -> None:
    (tmp_path / "wrong.py").write_text("from trio_agentapp import AgentApp\n\napp = AgentApp(nme='x')\n")
    with pytest.raises(DeployError, match=r"ended before it was ready \(exit code 1\).*") as caught:
        await detached.deploy(entrypoint=str(tmp_path / "wrong.py"), restart=True)
    assert "AgentApp has no parameter 'nme'" in str(caught.value)
    assert str(caught.value).count("no parameter") == 1
    assert not services_in(home, SUPERVISOR)
    assert await detached.list() == []


async def test_a_service_whose_command_was_killed_is_started_again(tmp_path: Path, home: Path, detached) -> None:
    """The command is killed while it waits; the service is ready later, and crashes."""
    (tmp_path / "slow.py").write_text(
        "from pathlib import Path\nimport trio\nfrom trio_agentapp import AgentApp\n"
        "async def wait(app):\n"
        "    while not Path('go').exists():\n        await trio.sleep(0.05)\n"
        "app = AgentApp(before_start=wait)\n"
    )
    words = ["deploy", "local", "slow.py", "--port", "0"]
    command = subprocess.Popen([sys.executable, "-m", "trio_agentapp", *words], cwd=tmp_path)
    await wait_until(lambda: services_in(home))
    command.kill()
    command.wait()
    (tmp_path / "go").touch()

    async def wait_ready() -> None:
        with trio.fail_after(TIMEOUT):
            while [each.state for each in await detached.list()] != ["ready"]:
                await trio.sleep(0.05)

    await wait_ready()
    [before] = services_in(home)
    os.kill(before, signal.SIGKILL)
    await wait_until(lambda: before not in services_in(home))
    await wait_ready()
    [seen] = await detached.list()
    assert seen.pid != before
    assert (await detached.stop(seen.deploy_id)).reason is None
    assert not services_in(home, SUPERVISOR)


async def test_a_service_that_is_asked_to_end_is_not_started_again(program: Path, home: Path, detached) -> None:
    here = await detached.deploy(entrypoint=str(program), restart=True)
    os.kill(here.pid, signal.SIGTERM)
    await wait_until(lambda: not services_in(home, SUPERVISOR))
    assert not services_in(home)
    assert await detached.list() == []


async def test_a_service_outlives_its_supervisor_and_can_be_stopped(program: Path, home: Path, detached) -> None:
    here = await detached.deploy(entrypoint=str(program), restart=True)
    [supervisor] = services_in(home, SUPERVISOR)
    os.kill(supervisor, signal.SIGKILL)
    await wait_until(lambda: not services_in(home, SUPERVISOR))
    assert (await detached.status(here.deploy_id)).state is DeploymentState.READY
    assert (await detached.stop(here.deploy_id)).reason is None
    assert not services_in(home)


async def test_one_that_does_not_end_is_killed_with_its_supervisor(tmp_path: Path, home: Path, detached) -> None:
    (tmp_path / "stubborn.py").write_text(
        "import trio\nfrom trio_agentapp import AgentApp\n"
        "async def stay(app):\n    await trio.sleep_forever()\n"
        "app = AgentApp(after_finish=stay)\n"
    )
    here = await detached.deploy(entrypoint=str(tmp_path / "stubborn.py"), restart=True)
    status = await detached.stop(here.deploy_id, timeout=0.5)
    assert status.reason == "killed: it had not ended in 0.5 s"
    await wait_until(lambda: not services_in(home))
    assert not services_in(home, SUPERVISOR)


def test_a_long_log_is_cut(tmp_path: Path) -> None:
    log = tmp_path / "0a1b2c3d.log"
    log.write_text("old\n")
    with log.open("a") as service:
        module._rotate(log)
        service.write("new\n")
    assert (tmp_path / "0a1b2c3d.log.1").read_text() == "old\n"
    assert log.read_text() == "new\n"
