"""`FCDeployManager` with the real SDKs, against a recording cloud: see `cloud.py`."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_agentapp.deploy import DeploymentState, FCDeployManager
from trio_agentapp.errors import ConfigurationError, DeployError

from .cloud import SECRET, TOKEN, Cloud, Fault

FUNCTIONS = "/2023-03-30/functions"
TRIGGER = "agentapp-http-trigger"

Manager = Callable[..., FCDeployManager]


@pytest.fixture
def manager(cloud: Cloud, builds: Path) -> Manager:
    return partial(FCDeployManager, build_root=builds, deploy_timeout=10)


async def deploy(manager: FCDeployManager, wheel: Path, **options: Any) -> Any:
    return await manager.deploy(external_whl_path=wheel, deploy_name="friday", **options)


async def test_the_requests_of_a_deployment(cloud: Cloud, manager: Manager, wheel: Path) -> None:
    done = await deploy(manager(), wheel, environment={"MODEL": "small"}, publish=True)
    lines = [line for at, line in enumerate(cloud.lines) if line not in cloud.lines[:at]]
    archive = done.artifact_url.rpartition("/")[2]
    assert lines == [
        f"GET {FUNCTIONS}/friday",
        "GET /code-of-tests/",
        "PUT /code-of-tests/",
        f"HEAD /code-of-tests/{archive}",
        f"PUT /code-of-tests/{archive}",
        f"POST {FUNCTIONS}",
        f"POST {FUNCTIONS}/friday/triggers",
        f"POST {FUNCTIONS}/friday/versions",
    ]
    [created] = cloud.requests_of(f"POST {FUNCTIONS}")
    path = created.json["environmentVariables"].pop("PATH")
    assert path.startswith("/var/fc/lang/python3.12/bin:")
    assert json.loads(created.json["sessionAffinityConfig"]) == {
        "affinityHeaderFieldName": "x-agentscope-runtime-session-id",
        "sessionTTLInSeconds": 21600,
        "sessionConcurrencyPerInstance": 200,
        "sessionIdleTimeoutInSeconds": 3600,
    }
    expected = {
        "functionName": "friday",
        "runtime": "custom.debian11",
        "code": {"ossBucketName": "code-of-tests", "ossObjectName": archive},
        "customRuntimeConfig": {
            "port": 8090,
            "command": ["python3", "/code/deploy_starter/main.py"],
            "healthCheckConfig": {"httpGetUrl": "/liveness", "periodSeconds": 10, "timeoutSeconds": 3},
        },
        "description": "Made by trio-agentapp",
        "timeout": 3600,
        "cpu": 2.0,
        "memorySize": 2048,
        "diskSize": 512,
        "instanceConcurrency": 200,
        "instanceIsolationMode": "SHARE",
        "internetAccess": True,
        "sessionAffinity": "HEADER_FIELD",
    }
    assert created.json.items() >= expected.items()
    assert created.json["environmentVariables"].items() >= {"PYTHONPATH": "/code", "MODEL": "small"}.items()
    [trigger] = cloud.requests_of(r"POST .*/triggers")
    assert (trigger.json["triggerName"], trigger.json["triggerType"]) == (TRIGGER, "http")
    # Not open to everybody, unless that is asked for.
    assert json.loads(trigger.json["triggerConfig"])["authType"] == "function"
    assert (done.deploy_id, done["function_name"], done.version) == ("friday", "friday", "3")
    assert done.url == done["endpoint_url"] == "https://friday.fcapp.run"
    assert SECRET not in f"{done}{manager().fc_config}"
    assert TOKEN not in f"{done}{manager().fc_config}"


async def test_the_same_name_is_updated(cloud: Cloud, manager: Manager, wheel: Path) -> None:
    await deploy(manager(), wheel)
    done = await deploy(manager(), wheel, anonymous=True)
    assert done.url == "https://friday.fcapp.run"
    [update] = cloud.requests_of(f"PUT {FUNCTIONS}/friday")
    assert "functionName" not in update.json
    [trigger] = cloud.requests_of(f"PUT {FUNCTIONS}/friday/triggers/{TRIGGER}")
    assert json.loads(trigger.json["triggerConfig"])["authType"] == "anonymous"
    assert len(cloud.requests_of(f"POST {FUNCTIONS}")) == 1
    with pytest.raises(DeployError, match="looking for the function other: it does not exist"):
        await deploy(manager(), wheel, function_name="other")


async def test_the_configuration_is_sent(cloud: Cloud, manager: Manager, wheel: Path, monkeypatch: Any) -> None:
    for name, value in {
        "CPU": "1",
        "MEMORY": "4096",
        "DISK": "10240",
        "TIMEOUT": "600",
        "LOG_PROJECT": "p",
        "LOG_STORE": "s",
        "VPC_ID": "vpc",
        "SECURITY_GROUP_ID": "sg",
        "VSWITCH_IDS": '["vsw"]',
        "EXECUTION_ROLE_ARN": "arn",
    }.items():
        monkeypatch.setenv(f"FC_{name}", value)
    await deploy(manager(), wheel)
    [created] = cloud.requests_of(f"POST {FUNCTIONS}")
    sizes = {"cpu": 1.0, "memorySize": 4096, "diskSize": 10240, "timeout": 600, "role": "arn"}
    assert created.json.items() >= sizes.items()
    assert created.json["vpcConfig"] == {"vpcId": "vpc", "securityGroupId": "sg", "vSwitchIds": ["vsw"]}
    assert created.json["logConfig"]["logBeginRule"] == "DefaultRegex"
    for name, value, says in (
        ("FC_DISK", "100", "disk must be 512 or 10240 MiB, not 100"),
        ("FC_VPC_ID", "", "a VPC needs all of FC_VPC_ID"),
        ("FC_ENDPOINT", "", "FC_ACCOUNT_ID is not set"),
    ):
        with monkeypatch.context() as changed:
            changed.setenv(name, value)
            with pytest.raises(ConfigurationError, match=says):
                await deploy(manager(), wheel)


async def test_status_list_publish_and_stop(cloud: Cloud, manager: Manager, wheel: Path) -> None:
    await deploy(manager(), wheel)
    cloud.functions["by-hand"] = {"functionName": "by-hand", "description": "x", "looks": 0}
    seen = await manager().status("friday")
    assert (seen.state, seen.url) == (DeploymentState.READY, "https://friday.fcapp.run")
    assert [each.deploy_id for each in await manager().list()] == ["friday"]
    assert await manager().publish("friday") == "3"
    for call in (manager().logs("friday"), manager().scale("friday", 2)):
        with pytest.raises(DeployError, match="FC_"):
            await call
    with pytest.raises(DeployError, match="was not made by trio-agentapp; delete it at"):
        await manager().stop("by-hand")
    with pytest.raises(DeployError, match="was not made by trio-agentapp; choose another name"):
        await manager().deploy(external_whl_path=wheel, deploy_name="by-hand")
    assert (await manager().stop("friday")).state is DeploymentState.STOPPED
    assert list(cloud.functions) == ["by-hand"]
    assert cloud.triggers == {}
    with pytest.raises(DeployError, match="friday: it does not exist"):
        await manager().stop("friday")


async def test_deleting_what_is_gone_meanwhile_is_no_error(cloud: Cloud, manager: Manager, wheel: Path) -> None:
    await deploy(manager(), wheel)
    cloud.faults += [Fault("DELETE .*/triggers/", 404), Fault("DELETE", 404, after=True)]
    assert (await manager().stop("friday")).state is DeploymentState.STOPPED
    assert cloud.functions == {}


async def test_a_function_that_fails_is_deleted(cloud: Cloud, manager: Manager, wheel: Path) -> None:
    cloud.ends_as, cloud.reason = "CREATE_FAILED", "no such object"
    with pytest.raises(DeployError, match="friday failed: no such object; see https://fcnext"):
        await deploy(manager(), wheel)
    assert cloud.functions == cloud.triggers == {}


async def test_a_function_that_is_not_ready_in_time_is_deleted(cloud: Cloud, manager: Manager, wheel: Path) -> None:
    cloud.looks = 10_000
    with pytest.raises(DeployError, match=r"friday was not ready in 0\.2 s: it was Pending at last"):
        await deploy(manager(deploy_timeout=0.2), wheel)
    assert cloud.functions == {}


async def test_a_cancelled_deployment_leaves_nothing(cloud: Cloud, manager: Manager, wheel: Path) -> None:
    hold = threading.Event()
    cloud.faults.append(Fault("POST .*/triggers$", 0, hold=hold))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(deploy, manager(), wheel))
        await trio.to_thread.run_sync(cloud.wait_for, "POST .*/triggers$")
        nursery.cancel_scope.cancel()
        hold.set()
    assert cloud.functions == cloud.triggers == {}


async def test_a_failed_update_keeps_the_function(cloud: Cloud, manager: Manager, wheel: Path) -> None:
    await deploy(manager(), wheel)
    cloud.faults.append(Fault(f"PUT {FUNCTIONS}/friday$", 400, "InvalidArgument", "memory"))
    with pytest.raises(
        DeployError, match="updating the function friday: Function Compute answered 400: InvalidArg"
    ):
        await deploy(manager(), wheel)
    assert list(cloud.functions) == ["friday"]


async def test_a_refused_function_of_another_process_is_kept(cloud: Cloud, manager: Manager, wheel: Path) -> None:
    """Two deployments of one name: the slower one is refused, and does not delete what the faster one has made."""
    hold = threading.Event()
    cloud.faults.append(Fault("HEAD", 0, hold=hold))
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def slower() -> None:
            with pytest.raises(DeployError, match="making the function friday: it exists, or is being changed"):
                await deploy(manager(), wheel)

        await trio.to_thread.run_sync(cloud.wait_for, "HEAD")
        await deploy(manager(), wheel)
        hold.set()
    assert cloud.functions["friday"]["state"] == "Active"
