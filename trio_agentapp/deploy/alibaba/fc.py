"""`FCDeployManager` puts apps into Function Compute of Alibaba Cloud."""

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
from .configs import FCConfig, OSSConfig
from .fc_service import FCService
from .manager import DEPLOY_TIMEOUT, ArchiveDeployManager, ArchiveDeployment
from .source import Source

if TYPE_CHECKING:
    from ...app import AgentApp

__all__ = ["FCDeployManager", "FCDeployment"]


@attrs.frozen(kw_only=True)
class FCDeployment(ArchiveDeployment):
    """An app that is ready in Function Compute. `url` is that of its HTTP trigger."""

    function_name: str
    endpoint_url: str
    """The same as `url`."""


class FCDeployManager(ArchiveDeployManager[FCService, FCDeployment]):
    """Puts apps into a region of Function Compute. Needs `trio-agentapp[fc]`.

    Function Compute has the records: the id of a deployment is the name of its function. Each method can be
    awaited from Trio and from asyncio. Configurations are read from the environment if they are not given.
    `build_root`: the folder for packages. `deploy_timeout`: the seconds in which the function must be ready.
    `index_url`: the package index. `report` is called with the name of each step.
    """

    def __init__(
        self,
        oss_config: OSSConfig | None = None,
        fc_config: FCConfig | None = None,
        build_root: str | os.PathLike[str] | None = None,
        *,
        deploy_timeout: float = DEPLOY_TIMEOUT,
        index_url: str | None = None,
        report: Callable[[str], object] = lambda _: None,
    ) -> None:
        super().__init__(oss_config, build_root, deploy_timeout, index_url, report)
        self.fc_config = fc_config or FCConfig.from_env()

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
        function_name: str | None = None,
        anonymous: bool = False,
        publish: bool = False,
        skip_upload: bool = False,
        **others: Never,
    ) -> FCDeployment:
        """Make an archive of the app, upload it, make or update its function and HTTP trigger, and wait.

        The app is `app`, `entrypoint`, `project_dir`, or in the wheel `external_whl_path`. A function of the name
        that this manager made, or `function_name`, which must exist, is updated. `anonymous`: everybody may call
        the URL; without it requests have to be signed with an access key of the account. `publish`: make the code
        an unchangeable version. `skip_upload`: make the package and send nothing; needs no access key.

        If a new function does not become ready, or the deployment is cancelled, it is deleted. The former code of
        an update cannot be put back: the service returns no place of it.

        Raises:
            ConfigurationError: an access key is missing, or an option cannot be used, or is set elsewhere.
            TypeError: there is no such option.
            DeployError: the app cannot be packaged; the service refuses a step or does not answer; the function
                failed, with its reason, or was not ready in time; a function of the name belongs to another
                program.
        """
        from ...app.deploy_options import refuse_deploy_options

        refuse_deploy_options(self, others)
        given = Source(app, entrypoint, project_dir, external_whl_path)
        making = partial(
            self._deploy,
            given,
            function_name or deploy_name or given.name,
            function_name,
            dict(environment or {}),
            publish,
            skip_upload,
            {"requirements": requirements, "allowed": allowed},
            anonymous=anonymous,
        )
        return await run_trio(making)

    async def logs(self, deploy_id: str, *, lines: int = 100) -> str:
        raise DeployError(
            f"Function Compute writes the logs of {deploy_id} to Simple Log Service: set FC_LOG_PROJECT and "
            f"FC_LOG_STORE, deploy again, and read them at {self._console(deploy_id)}"
        )

    async def scale(self, deploy_id: str, replicas: int) -> DeploymentStatus:
        raise DeployError(
            f"Function Compute starts and ends instances of {deploy_id} itself, by its requests; "
            "FC_SESSION_CONCURRENCY_LIMIT sets how many sessions share one"
        )

    def _service(self, hidden: Iterable[str] = (), *, anonymous: bool = False) -> FCService:
        return FCService(self.fc_config, hidden, anonymous=anonymous)

    def _console(self, deploy_id: str) -> str:
        return f"https://fcnext.console.aliyun.com/{self.fc_config.region_id}/functions/{deploy_id}"

    def _deployment(self, **values: Any) -> FCDeployment:
        return FCDeployment(mode="fc", function_name=values["resource_name"], endpoint_url=values["url"], **values)

    # This method needs Trio.

    async def _expose(self, service: FCService, deploy_id: str, name: str) -> str:
        self._report("Making its HTTP trigger")
        url = await service.trigger(deploy_id)
        self._report(f"Waiting for {name} to be ready")
        until = trio.current_time() + self.deploy_timeout
        await self._wait_ready(service, deploy_id, name, partial(service.get, deploy_id), until)
        return url
