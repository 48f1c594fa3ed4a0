"""`AgentRunDeployManager` puts apps into AgentRun of Alibaba Cloud."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Never

import attrs
import trio

from ...errors import DeployError
from ...protocol.deployment import DeploymentStatus
from ..asyncio_bridge import run_trio
from .agentrun_service import AgentRunService
from .configs import AgentRunConfig, OSSConfig
from .manager import DEPLOY_TIMEOUT, ArchiveDeployManager, ArchiveDeployment
from .source import Source

if TYPE_CHECKING:
    from ...app import AgentApp

__all__ = ["AgentRunDeployManager", "AgentRunDeployment"]

FORMER = ("codeConfiguration", "environmentVariables", "cpu", "memory", "port")
"""What is put back when an update fails."""


@attrs.frozen(kw_only=True)
class AgentRunDeployment(ArchiveDeployment):
    """An app that is ready in AgentRun. `url` is its public endpoint."""

    agentrun_id: str
    agentrun_endpoint_url: str
    """The same as `url`."""


class AgentRunDeployManager(ArchiveDeployManager[AgentRunService, AgentRunDeployment]):
    """Puts apps into a region of AgentRun. Needs `trio-agentapp[agentrun]`.

    AgentRun has the records: the id of a deployment is that of its agent runtime. Each method can be awaited from
    Trio and from asyncio. Configurations are read from the environment if they are not given. `build_root`: the
    folder for packages. `deploy_timeout`: the seconds in which runtime and endpoint must be ready. `index_url`: the
    package index. `report` is called with the name of each step.
    """

    def __init__(
        self,
        oss_config: OSSConfig | None = None,
        agentrun_config: AgentRunConfig | None = None,
        build_root: str | os.PathLike[str] | None = None,
        *,
        deploy_timeout: float = DEPLOY_TIMEOUT,
        index_url: str | None = None,
        report: Callable[[str], object] = lambda _: None,
    ) -> None:
        super().__init__(oss_config, build_root, deploy_timeout, index_url, report)
        self.agentrun_config = agentrun_config or AgentRunConfig.from_env()

    async def deploy(
        self,
        app: AgentApp | None = None,
        *,
        entrypoint: str | None = None,
        project_dir: str | os.PathLike[str] | None = None,
        environment: Mapping[str, str] | None = None,
        requirements: Sequence[str] | None = None,
        allowed: Sequence[str] = (),
        deploy_name: str | None = None,
        external_whl_path: str | os.PathLike[str] | None = None,
        agentrun_id: str | None = None,
        publish: bool = False,
        skip_upload: bool = False,
        **others: Never,
    ) -> AgentRunDeployment:
        """Make an archive of the app, upload it, make or update its agent runtime and endpoint, and wait for both.

        The app is `app`, `entrypoint`, `project_dir`, or in the wheel `external_whl_path`. A runtime of the name
        that this manager made, or `agentrun_id`, is updated. `publish`: make the code an unchangeable version.
        `skip_upload`: make the package and send nothing; needs no access key.

        If a new runtime does not become ready, or the deployment is cancelled, it is deleted. If it is an update,
        the former code and environment are put back.

        Raises:
            ConfigurationError: an access key is missing, or an option cannot be used, or is set elsewhere.
            TypeError: there is no such option.
            DeployError: the app cannot be packaged; AgentRun refuses a step or does not answer; the runtime failed,
                with its reason, or was not ready in time; a runtime of the name belongs to another program.
        """
        from ...app.deploy_options import refuse_deploy_options

        refuse_deploy_options(self, others)
        given = Source(app, entrypoint, project_dir, external_whl_path)
        making = partial(
            self._deploy,
            given,
            deploy_name or given.name,
            agentrun_id,
            dict(environment or {}),
            publish,
            skip_upload,
            {"requirements": requirements, "allowed": allowed},
        )
        return await run_trio(making)

    async def logs(self, deploy_id: str, *, lines: int = 100) -> str:
        raise DeployError(
            f"AgentRun writes the logs of {deploy_id} to Simple Log Service: set AGENT_RUN_LOG_PROJECT and "
            f"AGENT_RUN_LOG_STORE, deploy again, and read them at {self._console(deploy_id)}"
        )

    async def scale(self, deploy_id: str, replicas: int) -> DeploymentStatus:
        raise DeployError(
            f"AgentRun starts and ends instances of {deploy_id} itself, by its sessions; "
            "AGENT_RUN_SESSION_CONCURRENCY_LIMIT sets how many sessions share one"
        )

    def _service(self, hidden: Iterable[str] = ()) -> AgentRunService:
        return AgentRunService(self.agentrun_config, hidden)

    def _console(self, deploy_id: str) -> str:
        return (
            f"https://functionai.console.aliyun.com/{self.agentrun_config.region_id}/agent/infra/agent-runtime/"
            f"agent-detail?id={deploy_id}"
        )

    def _deployment(self, **values: Any) -> AgentRunDeployment:
        return AgentRunDeployment(
            mode="agentrun", agentrun_id=values["deploy_id"], agentrun_endpoint_url=values["url"], **values
        )

    # The methods below need Trio.

    async def _before(self, service: AgentRunService, name: str, former_id: str | None) -> Any:
        found = await service.find(name, former_id)
        if found is not None and found.status == "DELETING":
            self._report(f"Waiting until the former runtime {found.agent_runtime_id} is deleted")
            if not await service.wait_gone(str(found.agent_runtime_id), self.deploy_timeout):
                raise DeployError(
                    f"{found.agent_runtime_id} is still being deleted; choose another name: --name NAME"
                )
            return None
        return found

    async def _expose(self, service: AgentRunService, deploy_id: str, name: str) -> str:
        until = trio.current_time() + self.deploy_timeout
        self._report(f"Waiting for {name} to be ready")
        await self._wait_ready(service, deploy_id, name, partial(service.get, deploy_id), until)
        endpoint = await service.endpoint(deploy_id)
        if endpoint is None:
            self._report("Making its endpoint")
            endpoint = await service.create_endpoint(deploy_id)
        made = str(endpoint.agent_runtime_endpoint_id)
        get = partial(service.get_endpoint, deploy_id, made)
        found = await self._wait_ready(service, deploy_id, name, get, until)
        return str(found.endpoint_public_url or "")

    async def _put_back(self, service: AgentRunService, name: str, before: Any) -> None:
        self._report(f"Putting the former version of {name} back")
        former = {"environmentVariables": {}, **before.to_map()}
        await service.update(service.id_of(before), {key: former[key] for key in FORMER if key in former})
