"""Calls that fail: what is repeated, how often, and what the user reads."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from trio_agentapp.deploy import AgentRunConfig, AgentRunDeployManager, FCDeployManager
from trio_agentapp.deploy.alibaba import calls
from trio_agentapp.errors import DeployError

from .cloud import KEY, SECRET, Cloud, Fault

RUNTIMES = "/2025-09-10/agents/runtimes"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch, cloud: Cloud) -> list[float]:
    """The pauses of retries, which are not made."""
    made: list[float] = []
    real = trio.sleep

    async def sleep(seconds: float) -> None:
        if seconds:  # others call it with 0
            made.append(seconds)
        await real(0)

    monkeypatch.setattr(trio, "sleep", sleep)
    monkeypatch.setattr(calls, "FIRST_PAUSE", 0.5)
    return made


async def status() -> Any:
    return await AgentRunDeployManager().status("ar-1")


def some_runtime(cloud: Cloud) -> None:
    cloud.runtimes["ar-1"] = {"agentRuntimeId": "ar-1", "agentRuntimeName": "x", "status": "READY", "looks": 0}


async def test_a_throttled_call_is_repeated_with_growing_pauses(cloud: Cloud, pauses: list[float]) -> None:
    some_runtime(cloud)
    cloud.faults.append(Fault(f"{RUNTIMES}/ar-1$", 429, "Throttling.User", times=4))
    assert (await status()).app_name == "x"
    for pause, longest in zip(pauses, (0.5, 1, 2, 4), strict=True):
        assert longest / 2 <= pause <= longest
    pauses.clear()
    cloud.faults.append(Fault(f"{RUNTIMES}/ar-1$", 429, "Throttling.User", times=5))
    with pytest.raises(DeployError, match=r"AgentRun refused 5 attempts \(Throttling\.User .*try again later"):
        await status()
    assert len(pauses) == 4


async def test_the_service_can_name_the_pause(cloud: Cloud, pauses: list[float]) -> None:
    some_runtime(cloud)
    cloud.faults.append(Fault(f"{RUNTIMES}/ar-1$", 429, "Throttling", headers={"x-acs-retry-after": "7000"}))
    await status()
    assert pauses == [7]
    cloud.faults.append(Fault(f"{RUNTIMES}/ar-1$", 429, "Throttling", headers={"x-acs-retry-after": "9000000"}))
    await status()
    assert pauses == [7, calls.LONGEST_PAUSE]


async def test_making_something_is_repeated_only_if_it_was_throttled(
    cloud: Cloud, pauses: list[float], wheel: Path, builds: Path
) -> None:
    cloud.faults.append(Fault(f"POST {RUNTIMES}$", 503, "ServiceUnavailable", times=2))
    cloud.faults.append(Fault("PUT /code-of-tests/", 503, "SlowDown", times=2))
    manager = AgentRunDeployManager(build_root=builds)
    await manager.deploy(external_whl_path=wheel)
    assert len(cloud.requests_of(f"POST {RUNTIMES}")) == 3
    cloud.clear()
    cloud.faults.append(Fault(f"POST {RUNTIMES}$", 500, "InternalError"))
    with pytest.raises(DeployError, match="answered 500: InternalError"):
        await manager.deploy(external_whl_path=wheel)
    assert len(cloud.requests_of(f"POST {RUNTIMES}")) == 1


async def test_a_service_error_is_repeated(cloud: Cloud, pauses: list[float]) -> None:
    some_runtime(cloud)
    cloud.faults.append(Fault(f"{RUNTIMES}/ar-1$", 500, "InternalError", times=2))
    await status()
    assert len(pauses) == 2


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault("runtimes", 403, "Forbidden.RAM", "no"), "no right to do this .*policy AliyunAgentRunFullAccess"),
        (Fault("runtimes", 400, "InvalidSecurityToken.Expired", "old"), "refuses the access key .*SECURITY_TOKEN"),
        (Fault("runtimes", 400, "Bad", f"{SECRET} is bad"), r"answered 400: Bad code: 400, \*\*\* is bad"),
        (Fault("runtimes", 409, "Busy", "x"), "it exists, or is being changed"),
    ],
)
async def test_what_the_user_reads(cloud: Cloud, pauses: list[float], fault: Fault, says: str) -> None:
    cloud.faults.append(attrs.evolve(fault))
    with pytest.raises(DeployError, match=f"looking for the agent runtime ar-1: .*{says}") as error:
        await status()
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__
    assert pauses == []


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("ALIBABA_CLOUD_ACCESS_KEY_ID", "LTAI-of-nobody", "InvalidAccessKeyId.NotFound"),
        ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "another-secret", "SignatureDoesNotMatch"),
    ],
)
async def test_wrong_access_keys(
    cloud: Cloud, wheel: Path, builds: Path, monkeypatch: Any, name: str, value: str, code: str
) -> None:
    monkeypatch.setenv(name, value)
    for manager in (AgentRunDeployManager(build_root=builds), FCDeployManager(build_root=builds)):
        with pytest.raises(
            DeployError, match=rf"refuses the access key \({code}.*check ALIBABA_CLOUD_ACC"
        ) as error:
            await manager.deploy(external_whl_path=wheel)
        assert "another-secret" not in str(error.value)
    # The bucket can have keys of its own; nothing was packed or sent before the service had accepted its key.
    assert len(cloud.requests) == 2
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", SECRET)
    monkeypatch.setenv("OSS_ACCESS_KEY_ID", "LTAI-of-nobody")
    monkeypatch.setenv("OSS_ACCESS_KEY_SECRET", "another-secret")
    with pytest.raises(DeployError, match="OSS refuses the access key"):
        await FCDeployManager(build_root=builds).deploy(external_whl_path=wheel)


async def test_a_service_that_does_not_answer(cloud: Cloud, pauses: list[float]) -> None:
    cloud.faults.append(Fault("runtimes", 0, hold=threading.Event(), times=10))
    config = attrs.evolve(AgentRunConfig.from_env(), request_timeout=0.1)
    with pytest.raises(
        DeployError, match=r"AgentRun at http://127.* does not answer \(RetryError .*Read timed out"
    ):
        await AgentRunDeployManager(agentrun_config=config).status("ar-1")
    assert len(pauses) == 4


async def test_a_service_that_does_not_exist(cloud: Cloud, pauses: list[float], monkeypatch: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("AGENT_RUN_ENDPOINT", f"http://127.0.0.1:{port}")
    with pytest.raises(DeployError, match=r"does not answer .*check the network, the region and the endpoint"):
        await status()


async def test_an_answer_that_is_no_json(cloud: Cloud, pauses: list[float], monkeypatch: Any) -> None:
    monkeypatch.setattr(Cloud, "_answer", lambda *_: (200, {}, b"<html>a proxy</html>"))
    with pytest.raises(DeployError, match=r"does not answer .*json"):
        await status()


async def test_a_bucket_of_another_account(cloud: Cloud, wheel: Path, builds: Path, monkeypatch: Any) -> None:
    cloud.faults.append(Fault("PUT /code-of-tests/$", 409, "BucketAlreadyExists"))
    manager = FCDeployManager(build_root=builds)
    with pytest.raises(DeployError, match="belongs to another account; choose another OSS_BUCKET_NAME"):
        await manager.deploy(external_whl_path=wheel)
    monkeypatch.setenv("OSS_BUCKET_NAME", "No_Bucket")
    with pytest.raises(DeployError, match=r"OSS answered 400: .*Bucket name is invalid"):
        await FCDeployManager(build_root=builds).deploy(external_whl_path=wheel)
