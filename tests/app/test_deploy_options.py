"""Options of `app.deploy`: taken by the manager, or refused with the place where they belong."""

from __future__ import annotations

import os
from typing import Any

import pytest

from trio_agentapp import AgentApp, AgentAppError, LocalDeployManager
from trio_agentapp.abc import DeployManager
from trio_agentapp.protocol.deployment import Deployment


class Recorder(DeployManager):
    """Takes two options, and starts nothing."""

    def __init__(self, region: str = "here") -> None:
        self.region = region
        self.taken: dict[str, Any] = {}

    async def deploy(self, app: Any, *, replicas: int = 1, runner: Any = None) -> Deployment:  # type: ignore[override]
        self.taken = {"app": app, "replicas": replicas, "runner": runner}
        return Deployment(deploy_id="1", url="", mode="", pid=os.getpid())

    async def stop(self, deploy_id: str) -> Any:
        raise NotImplementedError

    async def status(self, deploy_id: str) -> Any:
        raise NotImplementedError

    async def list(self) -> Any:
        raise NotImplementedError


class TakesAll(Recorder):
    async def deploy(self, app: Any, **options: Any) -> Deployment:  # type: ignore[override]
        self.taken = options
        return Deployment(deploy_id="1", url="", mode="", pid=os.getpid())


MANAGERS = [LocalDeployManager(port=0), Recorder()]


@pytest.mark.parametrize("manager", MANAGERS, ids=lambda manager: type(manager).__name__)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("endpoint_path", "/x"),
        ("stream", True),
        ("response_type", "sse"),
        ("broker_url", "redis://localhost"),
        ("backend_url", "redis://localhost"),
        ("before_start", print),
        ("enable_embedded_worker", False),
    ],
)
async def test_an_option_of_the_app_says_so(manager: DeployManager, name: str, value: Any) -> None:
    with pytest.raises(AgentAppError) as caught:
        await AgentApp().deploy(manager, **{name: value})
    assert str(caught.value) == f"{name} is set on the app, not on its deployment: AgentApp({name}=...)"


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("custom_endpoints", "@app.endpoint(path)"),
        ("runner", "@app.query()"),
        ("request_model", "AgentRequest"),
        ("requirements", "pip"),
        ("extra_packages", "beside the app"),
        ("project_dir", "entrypoint='folder/agent.py'"),
    ],
)
async def test_an_option_without_an_effect_says_what_to_do(name: str, instead: str) -> None:
    with pytest.raises(AgentAppError, match=f"^LocalDeployManager has no option {name}: ") as caught:
        await AgentApp().deploy(LocalDeployManager(port=0), **{name: None})
    assert instead in str(caught.value)


async def test_an_option_of_the_manager_says_so() -> None:
    with pytest.raises(AgentAppError, match=r"^port is set on the manager: LocalDeployManager\(port=...\)$"):
        await AgentApp().deploy(LocalDeployManager(), port=8091)
    with pytest.raises(AgentAppError, match=r"^region is set on the manager: Recorder\(region=...\)$"):
        await AgentApp().deploy(Recorder(), region="there")


@pytest.mark.parametrize(
    ("manager", "name", "near"),
    [
        (LocalDeployManager(), "enviroment", "'environment'"),
        (LocalDeployManager(), "ready_timout", "'ready_timeout'"),
        (Recorder(), "replica", "'replicas'"),
    ],
)
async def test_an_unknown_option_names_the_nearest(manager: DeployManager, name: str, near: str) -> None:
    kind = type(manager).__name__
    with pytest.raises(TypeError, match=f"^{kind}.deploy has no option {name!r}; did you mean {near}[?]$"):
        await AgentApp().deploy(manager, **{name: 1})


async def test_an_option_that_is_like_none_lists_all() -> None:
    with pytest.raises(TypeError, match=r"^Recorder.deploy has no option 'zzz'; it has app, replicas, runner$"):
        await AgentApp().deploy(Recorder(), zzz=1)


async def test_a_manager_called_directly_says_the_same() -> None:
    with pytest.raises(AgentAppError, match=r"AgentApp\(endpoint_path=...\)"):
        await LocalDeployManager(port=0).deploy(AgentApp(), endpoint_path="/x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="did you mean 'workers'"):
        await LocalDeployManager(port=0).deploy(AgentApp(), worker=2)  # type: ignore[arg-type]


async def test_a_process_option_in_a_thread_is_refused() -> None:
    with pytest.raises(AgentAppError, match="mode='detached_process'"):
        await AgentApp().deploy(LocalDeployManager(port=0), environment={"A": "1"})


async def test_what_the_manager_takes_reaches_it() -> None:
    app, manager, takes_all = AgentApp(), Recorder(), TakesAll()
    await app.deploy(manager, replicas=3, runner="r")
    assert manager.taken == {"app": app, "replicas": 3, "runner": "r"}
    await app.deploy(takes_all, endpoint_path="/x", anything=1)
    assert takes_all.taken == {"endpoint_path": "/x", "anything": 1}


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_timeouts_of_a_manager_are_checked(seconds: float) -> None:
    with pytest.raises(ValueError, match="startup_timeout must be 0 or more seconds"):
        LocalDeployManager(startup_timeout=seconds)
