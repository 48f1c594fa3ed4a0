"""Services that outlive the program which deployed them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import trio

from tests.certificates import Authority
from trio_agentapp import AgentApp
from trio_agentapp.auth import ClientCertificates
from trio_agentapp.deploy import DeploymentState, LocalDeployManager
from trio_agentapp.deploy.processes import Identity
from trio_agentapp.errors import ConfigurationError, DeployError

from .conftest import TIMEOUT, Chat, run, services_in, told, wait_until

MODE = "detached_process"


@pytest.fixture
def detached() -> LocalDeployManager:
    return LocalDeployManager(port=0, mode=MODE)


def read(path: str) -> str:
    return Path(path).read_text()


def get(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False, timeout=TIMEOUT)


@pytest.mark.parametrize("library", ["trio", "asyncio"])
async def test_the_service_stays_when_its_program_ends(
    library: str, program: Path, home: Path, marks, detached: LocalDeployManager
) -> None:
    deployment = told(run(program, MODE, library))
    deploy_id, url = deployment["deploy_id"], deployment["url"]
    assert deployment["mode"] == MODE
    assert services_in(home) == [deployment["pid"]]
    answer = await trio.to_thread.run_sync(get, f"{url}/told")
    assert answer.headers["X-Process-Mode"] == MODE
    port = url.rpartition(":")[2]
    assert answer.json() == {
        "argv": ["--shape", "round"],
        "environment": {"HOST": "127.0.0.1", "PORT": port, "COLOUR": "blue"},
    }
    # No terminal reaches it, and what it writes can be read.
    assert os.getsid(deployment["pid"]) == deployment["pid"]
    [status] = await detached.list()
    assert status == await detached.status(deploy_id[:5])
    assert (status.state, status.app_name, status.pid) == (DeploymentState.READY, "Counter", deployment["pid"])
    assert status.entrypoint == f"{program}:app"
    assert "Counter is ready on" in read(status.log)

    # Told to stop, it drains: a live run ends with its cleanup, and its stream in order.
    chat = Chat(url).begin()
    stopped = await detached.stop(deploy_id)
    assert chat.end()["status"] == "canceled"
    assert marks() == ["cleaned"]
    assert (stopped.state, stopped.reason) == (DeploymentState.STOPPED, None)
    assert not services_in(home)
    assert await detached.list() == []
    with pytest.raises(DeployError, match=f"there is no deployment '{deploy_id}'"):
        await detached.status(deploy_id)


async def test_two_deployments_and_one_that_is_killed(program: Path, home: Path, detached) -> None:
    here, there = [await detached.deploy(entrypoint=str(program)) for _ in range(2)]
    assert here.url != there.url
    assert [status.deploy_id for status in await detached.list()] == [here.deploy_id, there.deploy_id]
    os.kill(here.pid, signal.SIGKILL)
    await wait_until(lambda: here.pid not in services_in(home))
    dead, alive = await detached.list()
    assert (dead.state, alive.state) == (DeploymentState.DEAD, DeploymentState.READY)
    assert dead.log in str(dead.reason)
    stopped = await detached.stop(here.deploy_id)
    assert (stopped.state, "had died before" in str(stopped.reason)) == (DeploymentState.STOPPED, True)
    await detached.stop(there.deploy_id)
    assert await detached.list() == []
    assert not services_in(home)


async def test_another_process_with_the_same_id_is_left_alone(program: Path, home: Path, detached) -> None:
    deployment = await detached.deploy(entrypoint=str(program))
    [path] = (home / "deployments").glob("*.json")
    record = json.loads(path.read_text())
    assert record["process"]["pid"] == deployment.pid
    true = dict(record["process"])
    record["process"]["birth"] += "0"
    path.write_text(json.dumps(record))
    assert (await detached.status(deployment.deploy_id)).state is DeploymentState.DEAD
    assert "had died before" in str((await detached.stop(deployment.deploy_id)).reason)
    assert services_in(home) == [deployment.pid]
    record["process"] = true
    path.write_text(json.dumps(record))
    assert (await detached.stop(deployment.deploy_id)).reason is None


async def test_a_process_that_only_waits_to_be_reaped_is_dead() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        identity = Identity.of(process.pid)
        assert identity is not None
        assert identity.alive
        process.kill()
        await identity.wait_end()
        assert not identity.alive
        # Nor is anything signalled that has its number.
        identity.terminate()
        identity.kill()


async def test_a_record_that_is_none_does_not_hide_the_others(program: Path, home: Path, detached, caplog) -> None:
    (home / "deployments").mkdir(parents=True)
    (home / "deployments/00000000.json").write_text("{}")
    deployment = await detached.deploy(entrypoint=str(program))
    assert [status.deploy_id for status in await detached.list()] == [deployment.deploy_id]
    assert "00000000.json is not the record of a deployment" in caplog.text
    await detached.stop(deployment.deploy_id)


async def test_a_busy_port_is_told_before_anything_is_started(program: Path, home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for mode in ("daemon_thread", MODE):
            manager = LocalDeployManager(port=port, mode=mode)
            with pytest.raises(DeployError, match=f"Cannot listen on 127.0.0.1:{port}: the port is in use"):
                await manager.deploy(entrypoint=str(program))
    assert not list(home.parent.glob("home"))


async def test_a_service_that_dies_says_why(tmp_path: Path, home: Path, detached) -> None:
    (tmp_path / "broken.py").write_text(
        "import logging, sys\nfrom trio_agentapp import AgentApp\n"
        "def fail(app):\n    print('about to fail')\n    raise OSError('no disk')\n"
        "app = AgentApp(before_start=fail)\n"
    )
    with pytest.raises(DeployError) as caught:
        await detached.deploy(entrypoint=str(tmp_path / "broken.py"))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("the service ended before it was ready (exit code 1). Its log, ")
    _, printed, logged = lines
    assert printed == "  about to fail"
    line = r"  \S+Z CRITICAL trio_agentapp\.server: The start-up failed: OSError: no disk \[node=\w+\]"
    assert re.fullmatch(line, logged)
    assert await detached.list() == []

    (tmp_path / "wrong.py").write_text("from trio_agentapp import AgentApp\n\napp = AgentApp(nme='x')\n")
    with pytest.raises(DeployError, match=r"wrong.py, line 3: TypeError: .*AgentApp has no parameter 'nme'"):
        await detached.deploy(entrypoint=str(tmp_path / "wrong.py"))


async def test_a_service_that_is_never_ready_is_ended(tmp_path: Path, home: Path, detached) -> None:
    (tmp_path / "slow.py").write_text(
        "import trio\nfrom trio_agentapp import AgentApp\n"
        "async def wait(app):\n    print('waiting')\n    await trio.sleep_forever()\n"
        "app = AgentApp(before_start=wait)\n"
    )
    with pytest.raises(DeployError, match=r"not ready in 1 s: it does not answer. Its log, .*, ends with:\n"):
        await detached.deploy(entrypoint=str(tmp_path / "slow.py"), ready_timeout=1)
    assert not services_in(home)
    assert await detached.list() == []

    # Nor does one stay that nobody waits for any more.
    async def impatient() -> None:
        await asyncio.wait_for(detached.deploy(entrypoint=str(tmp_path / "slow.py")), 0.5)

    with pytest.raises(TimeoutError):
        await trio.to_thread.run_sync(asyncio.run, impatient())
    assert not services_in(home)
    assert await detached.list() == []


async def test_a_service_that_does_not_end_is_killed(tmp_path: Path, home: Path, detached) -> None:
    (tmp_path / "stubborn.py").write_text(
        "import trio\nfrom trio_agentapp import AgentApp\n"
        "async def stay(app):\n    await trio.sleep_forever()\n"
        "app = AgentApp(after_finish=stay)\n"
    )
    deployment = await detached.deploy(entrypoint=str(tmp_path / "stubborn.py"))
    status = await detached.stop(deployment.deploy_id, timeout=0.5)
    assert (status.state, status.reason) == (DeploymentState.STOPPED, "killed: it had not ended in 0.5 s")
    assert not services_in(home)
    assert await detached.list() == []


async def test_a_program_without_a_guard_deploys_once(tmp_path: Path, home: Path, detached) -> None:
    (tmp_path / "bare.py").write_text(
        "import asyncio\nfrom trio_agentapp import AgentApp\nfrom trio_agentapp.deploy import LocalDeployManager\n"
        "app = AgentApp()\nmanager = LocalDeployManager(port=0, mode='detached_process')\n"
        "print('id', asyncio.run(app.deploy(manager)).deploy_id)\n"
        "app.run(port=0)\n" + "print('end')\n"
    )
    # It runs its own server as well, and that is all that its program waits for.
    program = await trio.lowlevel.open_process([sys.executable, "bare.py"], cwd=tmp_path, stdout=-1, stderr=-2)
    try:
        await wait_until(lambda: services_in(home))
        with trio.fail_after(TIMEOUT):
            while not await detached.list() or (await detached.list())[0].state is not DeploymentState.READY:
                await trio.sleep(0.05)
        [status] = await detached.list()
        assert len(services_in(home)) == 1
        assert read(status.log).startswith("id \nend\n")
        await detached.stop(status.deploy_id)
    finally:
        program.terminate()
        await program.wait()
        await program.stdout.aclose()


async def test_a_module_of_a_package(tmp_path: Path, detached) -> None:
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "names.py").write_text("NAME = 'Shop'\n")
    (package / "serve.py").write_text(
        "import trio\nfrom trio_agentapp import AgentApp\nfrom trio_agentapp.deploy import LocalDeployManager\n"
        "from .names import NAME\nshop = AgentApp(app_name=NAME)\n"
        "if __name__ == '__main__':\n"
        "    trio.run(shop.deploy, LocalDeployManager(port=0, mode='detached_process'))\n"
    )
    run("-m", "shop.serve", cwd=tmp_path)
    [status] = await detached.list()
    assert (status.app_name, status.entrypoint, status.state) == ("Shop", "shop.serve:shop", DeploymentState.READY)
    await detached.stop(status.deploy_id)


async def test_tls(program: Path, tmp_path: Path, detached) -> None:
    authority = Authority(tmp_path)
    stranger = Authority(tmp_path, "other").issue("stranger")
    server = authority.server()
    files = {"certfile": server.cert, "keyfile": server.key, "ca_certs": authority.cert}
    for mode in ("daemon_thread", MODE):
        deployment = await detached.deploy(entrypoint=str(program), mode=mode, **files, cert_reqs="optional")
        assert deployment.url.startswith("https://127.0.0.1:")
        assert (await detached.status(deployment.deploy_id)).state is DeploymentState.READY
        async with httpx.AsyncClient(verify=authority.context(stranger)) as http:
            with pytest.raises(httpx.ReadError):
                await http.get(deployment.url.replace("127.0.0.1", "localhost"))
        await detached.stop(deployment.deploy_id)
        with pytest.raises(ConfigurationError, match="certfile: 'nowhere' cannot be read: No such file"):
            await detached.deploy(entrypoint=str(program), mode=mode, certfile="nowhere", keyfile=server.key)
        with pytest.raises(ConfigurationError, match="set cert_reqs='optional', and authenticate=ClientCertif"):
            await detached.deploy(entrypoint=str(program), mode=mode, **files)


async def test_an_app_that_needs_certificates(detached) -> None:
    with pytest.raises(ConfigurationError, match="does not ask clients for certificates"):
        await detached.deploy(AgentApp(authenticate=ClientCertificates()), mode="daemon_thread")


async def test_several_workers_need_a_shared_backend(program: Path, detached) -> None:
    with pytest.raises(DeployError, match="2 workers would not know of each other's runs"):
        await detached.deploy(entrypoint=str(program), workers=2)


async def test_what_cannot_be_deployed(home: Path, monkeypatch: pytest.MonkeyPatch, detached) -> None:
    app = AgentApp()
    with pytest.raises(ConfigurationError, match="not a global name of any module"):
        await app.deploy(detached)
    with pytest.raises(ConfigurationError, match="nothing to deploy"):
        await detached.deploy()
    with pytest.raises(ConfigurationError, match="a process of its own"):
        await detached.deploy(app, mode="daemon_thread", environment={"A": "b"})
    with pytest.raises(ValueError, match="mode 'k8s' is not known; known are 'daemon_thread', 'detached_process'"):
        LocalDeployManager(mode="k8s")
    with pytest.raises(ValueError, match="shutdown_timeout must be 0 or more seconds, not -1"):
        LocalDeployManager(shutdown_timeout=-1)
    monkeypatch.setenv("AGENTAPP_HOME", "/proc/nowhere")
    with pytest.raises(DeployError, match=r"cannot write to /proc/nowhere/deployments: .*AGENTAPP_HOME"):
        await LocalDeployManager(port=0, mode=MODE).deploy(entrypoint=__file__)


def test_neither_library_runs() -> None:
    coroutine = LocalDeployManager().list()
    with pytest.raises(RuntimeError, match=r"awaited in trio.run or asyncio.run"):
        coroutine.send(None)
