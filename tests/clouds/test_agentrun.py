"""`AgentRunDeployManager` with the real SDKs, against a recording cloud: see `cloud.py`."""

from __future__ import annotations

import asyncio
import io
import threading
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from trio_agentapp.deploy import AgentRunConfig, AgentRunDeployManager, DeploymentState, OSSConfig
from trio_agentapp.deploy.alibaba.archive_service import OURS
from trio_agentapp.errors import ConfigurationError, DeployError

from .cloud import SECRET, TOKEN, Cloud, Fault

RUNTIMES = "/2025-09-10/agents/runtimes"
VALUE = "a-value-of-the-environment"

Manager = Callable[..., AgentRunDeployManager]


@pytest.fixture
def manager(cloud: Cloud, builds: Path) -> Manager:
    return partial(AgentRunDeployManager, build_root=builds, deploy_timeout=10)


async def deploy(manager: AgentRunDeployManager, wheel: Path, **options: Any) -> Any:
    return await manager.deploy(external_whl_path=wheel, deploy_name="friday", **options)


async def test_the_requests_of_a_deployment(cloud: Cloud, manager: Manager, wheel: Path) -> None:
    steps: list[str] = []
    done = await deploy(manager(report=steps.append), wheel, environment={"MODEL": VALUE}, publish=True)
    # The order; requests for states are as many as the cloud lets wait.
    lines = [line for at, line in enumerate(cloud.lines) if line not in cloud.lines[:at]]
    archive = done.artifact_url.rpartition("/")[2]
    assert lines == [
        f"GET {RUNTIMES}",
        "GET /code-of-tests/",
        "PUT /code-of-tests/",
        f"HEAD /code-of-tests/{archive}",
        f"PUT /code-of-tests/{archive}",
        f"POST {RUNTIMES}",
        f"GET {RUNTIMES}/ar-1",
        f"GET {RUNTIMES}/ar-1/endpoints",
        f"POST {RUNTIMES}/ar-1/endpoints",
        f"GET {RUNTIMES}/ar-1/endpoints/ep-1",
        f"POST {RUNTIMES}/ar-1/versions",
    ]
    [created] = cloud.requests_of(f"POST {RUNTIMES}")
    assert created.json == {
        "agentRuntimeName": "friday",
        "artifactType": "Code",
        "codeConfiguration": {
            "language": "python3.12",
            "command": ["python3", "/code/deploy_starter/main.py"],
            "ossBucketName": "code-of-tests",
            "ossObjectName": archive,
        },
        "cpu": 2.0,
        "memory": 2048,
        "port": 8090,
        "description": "Made by trio-agentapp",
        "environmentVariables": {"MODEL": VALUE},
        "healthCheckConfiguration": {"httpGetUrl": "/liveness", "periodSeconds": 10, "timeoutSeconds": 3},
        "networkConfiguration": {"networkMode": "PUBLIC"},
        "sessionConcurrencyLimitPerInstance": 200,
        "sessionIdleTimeoutSeconds": 3600,
    }
    [endpoint] = cloud.requests_of(f"POST {RUNTIMES}/ar-1/endpoints")
    assert (endpoint.json["agentRuntimeEndpointName"], endpoint.json["targetVersion"]) == (
        "default-endpoint",
        "LATEST",
    )
    # The cloud has checked the signatures of all; temporary keys have a token.
    assert {
        request.headers.get("x-acs-security-token") or request.headers["x-oss-security-token"]
        for request in cloud.requests
    } == {TOKEN}
    assert cloud.requests_of("PUT /code-of-tests/")[0].headers["x-oss-acl"] == "private"
    assert b"agentrun-deploy-access" in cloud.requests_of("PUT /code-of-tests/")[1].body
    assert "deploy_starter/main.py" in zipfile.ZipFile(io.BytesIO(cloud.objects[archive])).namelist()
    assert (done.deploy_id, done.url, done.version) == ("ar-1", "https://ar-1.example.com", "7")
    assert done["agentrun_id"] == "ar-1"
    assert done["agentrun_endpoint_url"] == done.url
    assert "ar-1" in done.console_url
    for secret in (SECRET, TOKEN, VALUE):
        assert secret not in f"{steps} {done} {manager().agentrun_config}"


async def test_the_same_name_is_updated_and_keeps_its_endpoint(cloud: Cloud, manager: Manager, wheel: Path) -> None:
    # The filter of the service finds parts of names.
    cloud.runtimes["ar-0"] = {"agentRuntimeId": "ar-0", "agentRuntimeName": "friday-2", "description": OURS}
    first = await deploy(manager(), wheel)
    again = await deploy(manager(), wheel, environment={"MODEL": "other"})
    assert (again.deploy_id, again.url) == (first.deploy_id, first.url)
    [update] = cloud.requests_of(f"PUT {RUNTIMES}/ar-1")
    assert update.json["environmentVariables"] == {"MODEL": "other"}
    assert "agentRuntimeName" not in update.json
    assert len(cloud.requests_of(f"POST {RUNTIMES}")) == len(cloud.requests_of(r"POST .*/endpoints")) == 1
    # The archive is in the bucket already.
    assert len(cloud.requests_of(r"PUT /code-of-tests/.+\.zip")) == 1
    with pytest.raises(DeployError, match="ar-9: it does not exist"):
        await deploy(manager(), wheel, agentrun_id="ar-9")


async def test_the_configuration_is_sent(cloud: Cloud, manager: Manager, wheel: Path, monkeypatch: Any) -> None:
    for name, value in {
        "REGION_ID": "cn-beijing",
        "CPU": "0.5",
        "MEMORY": "1024",
        "LOG_PROJECT": "p",
        "LOG_STORE": "s",
        "NETWORK_MODE": "PRIVATE",
        "VPC_ID": "vpc",
        "SECURITY_GROUP_ID": "sg",
        "VSWITCH_IDS": '["vsw"]',
        "EXECUTION_ROLE_ARN": "arn",
        "SESSION_CONCURRENCY_LIMIT": "3",
        "SESSION_IDLE_TIMEOUT_SECONDS": "60",
        "CREDENTIAL_NAME": "callers",
    }.items():
        monkeypatch.setenv(f"AGENT_RUN_{name}", value)
    await deploy(manager(), wheel)
    [created] = cloud.requests_of(f"POST {RUNTIMES}")
    assert (
        created.json.items()
        >= {
            "cpu": 0.5,
            "memory": 1024,
            "executionRoleArn": "arn",
            "credentialName": "callers",
            "sessionConcurrencyLimitPerInstance": 3,
            "sessionIdleTimeoutSeconds": 60,
        }.items()
    )
    assert created.json["logConfiguration"] == {"project": "p", "logstore": "s"}
    assert created.json["networkConfiguration"] == {
        "networkMode": "PRIVATE",
        "vpcId": "vpc",
        "securityGroupId": "sg",
        "vswitchIds": ["vsw"],
    }
    assert "/cn-beijing/oss/" in cloud.requests_of(r"HEAD .*")[0].headers["authorization"]


async def test_status_list_and_publish(cloud: Cloud, manager: Manager, wheel: Path) -> None:
    await deploy(manager(), wheel)
    cloud.runtimes["ar-x"] = {
        "agentRuntimeId": "ar-x",
        "agentRuntimeName": "x",
        "description": "by hand",
        "status": "READY",
        "looks": 0,
    }
    seen = await manager().status("ar-1")
    assert (seen.state, seen.url, seen.app_name) == (DeploymentState.READY, "https://ar-1.example.com", "friday")
    assert [each.deploy_id for each in await manager().list()] == ["ar-1"]
    assert await manager().publish("ar-1", "the first") == "7"
    assert cloud.requests[-1].json == {"description": "the first"}
    for wrong in ("", "ar-1/endpoints", "ar-1?x"):
        with pytest.raises(DeployError, match="there is no deployment"):
            await manager().stop(wrong)
    for call in (manager().logs("ar-1"), manager().scale("ar-1", 2)):
        with pytest.raises(DeployError, match="AGENT_RUN_"):
            await call


def test_it_can_be_awaited_from_asyncio(cloud: Cloud, manager: Manager, wheel: Path) -> None:
    assert asyncio.run(deploy(manager(), wheel)).deploy_id == "ar-1"


async def test_stop_waits_until_the_runtime_is_gone(cloud: Cloud, manager: Manager, wheel: Path) -> None:
    await deploy(manager(), wheel)
    seen = await manager().stop("ar-1")
    assert seen.state is DeploymentState.STOPPED
    assert cloud.runtimes == {}
    with pytest.raises(DeployError, match="ar-1: it does not exist"):
        await manager().delete("ar-1")


async def test_deleting_what_is_gone_meanwhile_is_no_error(cloud: Cloud, manager: Manager, wheel: Path) -> None:
    await deploy(manager(), wheel)
    cloud.faults.append(Fault("DELETE", 404, "ERR_NOT_FOUND", after=True))
    cloud.looks = 0
    assert (await manager().stop("ar-1")).state is DeploymentState.STOPPED


async def test_what_others_made_is_not_touched(cloud: Cloud, manager: Manager, wheel: Path) -> None:
    cloud.runtimes["ar-x"] = {
        "agentRuntimeId": "ar-x",
        "agentRuntimeName": "friday",
        "description": "by hand",
        "status": "READY",
        "looks": 0,
    }
    with pytest.raises(DeployError, match="was not made by trio-agentapp; choose another name"):
        await deploy(manager(), wheel)
    with pytest.raises(DeployError, match="was not made by trio-agentapp; delete it at https://"):
        await manager().stop("ar-x")
    assert {request.method for request in cloud.requests} == {"GET"}


async def test_a_runtime_that_fails_is_deleted(cloud: Cloud, manager: Manager, wheel: Path) -> None:
    cloud.ends_as, cloud.reason = "CREATE_FAILED", f"the app ended; {VALUE}"
    with pytest.raises(DeployError, match=r"friday failed: CREATE_FAILED the app ended; \*\*\*; see https://"):
        await deploy(manager(), wheel, environment={"MODEL": VALUE})
    assert cloud.runtimes["ar-1"]["status"] == "DELETING"


async def test_a_runtime_that_is_not_ready_in_time_is_deleted(cloud: Cloud, manager: Manager, wheel: Path) -> None:
    cloud.looks = 10_000
    with pytest.raises(DeployError, match=r"not ready in 0\.3 s: it was CREATING at last"):
        await deploy(manager(deploy_timeout=0.3), wheel)
    assert cloud.runtimes["ar-1"]["status"] == "DELETING"


@pytest.mark.parametrize("former", [{"MODEL": "former"}, {}])
async def test_a_failed_update_puts_the_former_version_back(
    cloud: Cloud, manager: Manager, wheel: Path, former: dict[str, str]
) -> None:
    await deploy(manager(), wheel, environment=former)
    if not former:
        del cloud.runtimes["ar-1"]["environmentVariables"]  # as a service may answer
    cloud.runtimes["ar-1"]["codeConfiguration"]["ossObjectName"] = "former.zip"
    cloud.ends_as = "UPDATE_FAILED"
    with pytest.raises(DeployError, match="friday failed: UPDATE_FAILED"):
        await deploy(manager(), wheel, environment={"MODEL": "new"})
    new, back = cloud.requests_of(f"PUT {RUNTIMES}/ar-1")
    assert new.json["environmentVariables"] == {"MODEL": "new"}
    assert back.json["environmentVariables"] == former
    assert back.json["codeConfiguration"]["ossObjectName"] == "former.zip"


async def test_a_cancelled_deployment_leaves_nothing(cloud: Cloud, manager: Manager, wheel: Path) -> None:
    """It is cancelled while the request that makes the runtime is under way: its answer is waited for."""
    hold = threading.Event()
    cloud.faults.append(Fault(f"POST {RUNTIMES}$", 0, hold=hold))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(deploy, manager(), wheel))
        await trio.to_thread.run_sync(cloud.wait_for, f"POST {RUNTIMES}$")
        threading.Timer(0.3, hold.set).start()
        nursery.cancel_scope.cancel()
    assert hold.is_set()  # so the thread was joined
    assert cloud.runtimes["ar-1"]["status"] == "DELETING"


async def test_a_cancelled_upload_ends_at_once(
    cloud: Cloud, manager: Manager, wheel: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """The thread that sends sees it at its next read."""
    from trio_agentapp.deploy.alibaba import bucket

    large = tmp_path / "large.zip"
    with large.open("wb") as file:
        file.truncate(2**30)

    async def archive_of(*_: Any, **__: Any) -> Path:
        return large

    reading = threading.Event()
    read = bucket.Cancellable.readinto

    def readinto(self: Any, buffer: Any) -> int:
        reading.set()
        return read(self, buffer)

    monkeypatch.setattr(bucket.Cancellable, "readinto", readinto)
    monkeypatch.setattr("trio_agentapp.deploy.alibaba.manager.archive_of", archive_of)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(deploy, manager(), wheel))
        await trio.to_thread.run_sync(reading.wait)
        nursery.cancel_scope.cancel()
    assert not cloud.requests_of(f"POST {RUNTIMES}")
    assert not cloud.objects


async def test_an_answer_that_was_lost(cloud: Cloud, manager: Manager, wheel: Path) -> None:
    """The runtime was made, and nobody knows its id: it is found by its name, and deleted."""
    cloud.faults.append(Fault(f"POST {RUNTIMES}$", 502, after=True))
    with pytest.raises(DeployError, match="making the agent runtime friday: AgentRun answered 502"):
        await deploy(manager(), wheel)
    assert len(cloud.requests_of(f"POST {RUNTIMES}")) == 1
    assert cloud.runtimes["ar-1"]["status"] == "DELETING"


async def test_a_half_made_deployment_is_completed(cloud: Cloud, manager: Manager, wheel: Path) -> None:
    """A process that was killed left a runtime without an endpoint."""
    await deploy(manager(), wheel)
    cloud.endpoints.clear()
    assert (await deploy(manager(), wheel)).url == "https://ar-1.example.com"
    assert len(cloud.requests_of(f"POST {RUNTIMES}")) == 1


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"ALIBABA_CLOUD_ACCESS_KEY_ID": ""}, "ALIBABA_CLOUD_ACCESS_KEY_ID is not set"),
        ({"OSS_BUCKET_NAME": ""}, "OSS_BUCKET_NAME is not set"),
        ({"AGENT_RUN_CPU": "many"}, "AGENT_RUN_CPU=many is not a number"),
        ({"AGENT_RUN_MEMORY": "-1"}, "memory must be more than 0"),
        ({"AGENT_RUN_VSWITCH_IDS": "vsw-1"}, "AGENT_RUN_VSWITCH_IDS must be a JSON list"),
        ({"AGENT_RUN_LOG_PROJECT": "p"}, "set both AGENT_RUN_LOG_PROJECT and AGENT_RUN_LOG_STORE"),
        ({"AGENT_RUN_ENDPOINT": "http://10.0.0.1"}, "in the clear; use https://"),
        ({"AGENT_RUN_ENDPOINT": "https://a/b"}, "an endpoint must be a host"),
        ({"AGENT_RUN_REGION_ID": "a.b/#"}, "region_id 'a.b/#' is not a region such as cn-hangzhou"),
        ({"OSS_REGION": "cn-shanghai"}, "the bucket is in cn-shanghai and the service in cn-hangzhou"),
        ({"AGENT_RUN_NETWORK_MODE": "PRIVATE"}, "needs AGENT_RUN_VPC_ID"),
    ],
)
async def test_settings_that_cannot_be_used(
    cloud: Cloud, manager: Manager, wheel: Path, monkeypatch: Any, variables: dict[str, str], says: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=says):
        await deploy(manager(), wheel)
    assert not [request for request in cloud.requests if request.method != "GET"]


async def test_options_of_other_products(manager: Manager, wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="name the app's file"):
        await deploy(manager(), wheel, cmd="python app.py")
    with pytest.raises(ConfigurationError, match="endpoint_path is set on the app"):
        await deploy(manager(), wheel, endpoint_path="/x")
    with pytest.raises(TypeError, match=r"has no option 'agentrunid'.*agentrun_id"):
        await deploy(manager(), wheel, agentrunid="ar-1")
    with pytest.raises(ConfigurationError, match="nothing to deploy"):
        await manager().deploy()
    with pytest.raises(ConfigurationError, match="there is no wheel"):
        await manager().deploy(external_whl_path=tmp_path / "no.whl")
    with pytest.raises(ConfigurationError, match="the name 'not a name' cannot be used"):
        await manager().deploy(external_whl_path=wheel, deploy_name="not a name")


def test_secrets_are_in_no_repr() -> None:
    config = AgentRunConfig(access_key_id="x", access_key_secret=SECRET, security_token=TOKEN)
    bucket = OSSConfig(access_key_secret=SECRET, security_token=TOKEN)
    assert SECRET not in f"{config!r}{config}{bucket!r}{attrs.evolve(config, cpu=1)}"
    assert TOKEN not in f"{config!r}{bucket!r}"


async def test_a_refused_runtime_of_another_process_is_kept(cloud: Cloud, manager: Manager, wheel: Path) -> None:
    some = {"agentRuntimeId": "ar-x", "agentRuntimeName": "friday", "description": OURS}
    cloud.faults.append(Fault(f"POST {RUNTIMES}$", 409, "ERR_CONFLICT"))
    right = cloud.answer

    def answer(request: Any) -> Any:
        if request.line == f"POST {RUNTIMES}":  # another process was faster
            cloud.runtimes["ar-x"] = {**some, "status": "READY", "looks": 0}
        return right(request)

    cloud.answer = answer  # type: ignore[method-assign]
    try:
        with pytest.raises(DeployError, match="making the agent runtime friday: it exists"):
            await deploy(manager(), wheel)
    finally:
        del cloud.answer
    assert cloud.runtimes["ar-x"]["status"] == "READY"


async def test_a_runtime_that_is_being_deleted_is_waited_for(cloud: Cloud, manager: Manager, wheel: Path) -> None:
    await deploy(manager(), wheel)
    cloud.runtimes["ar-1"].update(status="DELETING", looks=0)
    assert (await deploy(manager(), wheel)).deploy_id == "ar-2"
    assert list(cloud.runtimes) == ["ar-2"]
