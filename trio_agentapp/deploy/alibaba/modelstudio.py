"""`ModelstudioDeployManager` puts apps into ModelStudio of Alibaba Cloud."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never
from urllib.parse import urlsplit

import attrs
import trio

from ...abc import DeployManager
from ...errors import ConfigurationError, DeployError
from ...protocol.deployment import Deployment, DeploymentStatus
from ..asyncio_bridge import run_trio
from .api import Api
from .bucket import Cancellable
from .bundle import builds_folder, checked_name
from .calls import Unanswered
from .configs import ModelstudioConfig, OSSConfig, address_of
from .source import Source

if TYPE_CHECKING:
    from ...app import AgentApp

__all__ = ["ModelstudioDeployManager", "ModelstudioDeployment"]

MODE = "modelstudio"
PORT = 8080
CONSOLE = "https://bailian.console.aliyun.com/?tab=app#/app-center"


@attrs.frozen(kw_only=True)
class ModelstudioDeployment(Deployment):
    """An app that ModelStudio has taken. `url` is the page of the console, because the API names no other."""

    resource_name: str | None
    wheel_path: str
    """Empty if the wheel was removed after the upload."""
    workspace_id: str
    modelstudio_deploy_id: str


class ModelstudioDeployManager(DeployManager):
    """Puts apps into a workspace of ModelStudio. Needs `trio-agentapp[modelstudio]`.

    Each method can be awaited from Trio and from asyncio. Configurations are read from the environment if they are
    not given. `oss_config` is accepted for old scripts: ModelStudio lends the storage for the upload. `build_root`:
    the folder for packages that are not uploaded. `report` is called with the name of each step.

    ModelStudio's API can publish an app, and no more: `status`, `list`, `logs`, `scale` and `stop` say what to use.
    """

    def __init__(
        self,
        oss_config: OSSConfig | None = None,
        modelstudio_config: ModelstudioConfig | None = None,
        build_root: str | os.PathLike[str] | None = None,
        *,
        report: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.oss_config = oss_config
        self.modelstudio_config = modelstudio_config or ModelstudioConfig.from_env()
        self.build_root = build_root
        self._report = report

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
        agent_id: str | None = None,
        agent_desc: str | None = None,
        telemetry_enabled: bool = True,
        skip_upload: bool = False,
        **others: Never,
    ) -> ModelstudioDeployment:
        """Make the wheel of an app, upload it, and publish it in the workspace.

        The app is `app`, `entrypoint`, `project_dir`, or in the wheel `external_whl_path`. `agent_id`: publish a
        new version of this agent. `skip_upload`: make the wheel and send nothing; needs no access key.
        `environment` becomes part of the wheel, because the API takes none; the wheel is removed after the upload.

        Raises:
            ConfigurationError: an access key is missing, or an option cannot be used, or is set elsewhere.
            TypeError: there is no such option.
            DeployError: the app cannot be packaged; ModelStudio refuses a step or does not answer.
        """
        from ...app.deploy_options import refuse_deploy_options

        refuse_deploy_options(self, others)
        given = Source(app, entrypoint, project_dir, external_whl_path)
        variables = dict(environment or {})
        if external_whl_path is not None and variables:
            raise ConfigurationError("a finished wheel has its environment in it; leave environment out")
        if not skip_upload:
            self.modelstudio_config.ensure_valid()
            key = self.modelstudio_config.dashscope_api_key
            if key is not None and external_whl_path is None:
                variables.setdefault("DASHSCOPE_API_KEY", key)
        name: str | None = checked_name(deploy_name) if deploy_name is not None else given.name
        if agent_id is not None and deploy_name is None:
            name = None  # the agent keeps its name
        options: dict[str, Any] = {
            "name": name or given.name,
            "requirements": requirements,
            "allowed": allowed,
            "environment": variables,
            "telemetry": telemetry_enabled,
        }
        details = {"agent_id": agent_id, "agent_desc": agent_desc, "telemetry_enabled": telemetry_enabled}
        return await run_trio(self._deploy, given, name, options, details, skip_upload)

    async def status(self, deploy_id: str) -> DeploymentStatus:
        raise DeployError(f"ModelStudio's API has no call that tells the state of {deploy_id}; see {CONSOLE}")

    async def list(self) -> Sequence[DeploymentStatus]:
        raise DeployError(f"ModelStudio's API has no call that lists what was deployed; see {CONSOLE}")

    async def logs(self, deploy_id: str, *, lines: int = 100) -> str:
        raise DeployError(f"ModelStudio's API has no call that returns logs of {deploy_id}; see {CONSOLE}")

    async def scale(self, deploy_id: str, replicas: int) -> DeploymentStatus:
        raise DeployError(f"ModelStudio starts and ends instances of {deploy_id} itself, by its requests")

    async def stop(self, deploy_id: str) -> DeploymentStatus:
        raise DeployError(f"ModelStudio's API has no call that deletes {deploy_id}; delete it at {CONSOLE}")

    # The methods below need Trio.

    async def _deploy(
        self, given: Source, name: str | None, options: dict[str, Any], details: dict[str, Any], skip_upload: bool
    ) -> ModelstudioDeployment:
        identifier, hidden = "", list(options["environment"].values())
        if skip_upload:
            wheel = await given.wheel(builds_folder(self.build_root), self._report, port=PORT, **options)
        else:
            with tempfile.TemporaryDirectory(prefix="agentapp-wheel-") as folder:
                wheel = await given.wheel(Path(folder), self._report, port=PORT, **options)
                identifier = await self._publish(wheel, name, details, hidden)
        kept = skip_upload or given.wheel_path is not None
        return ModelstudioDeployment(
            deploy_id=identifier,
            url=CONSOLE if identifier else "",
            mode=MODE,
            resource_name=name,
            wheel_path=str(wheel) if kept else "",
            workspace_id=self.modelstudio_config.workspace_id,
            modelstudio_deploy_id=identifier,
        )

    async def _publish(self, wheel: Path, name: str | None, details: dict[str, Any], hidden: Sequence[str]) -> str:
        config = self.modelstudio_config
        api = _Api(config, config.endpoint, hidden)
        size = (await trio.Path(wheel).stat()).st_size
        self._report("Asking ModelStudio for storage")
        asked = api.models.ApplyTempStorageLeaseRequest(file_name=wheel.name, size_in_bytes=size)
        lease = await api.do("asking for storage", "apply_temp_storage_lease", config.workspace_id, asked)
        if lease.data is None or lease.data.param is None:
            raise DeployError(
                f"asking for storage: ModelStudio lends none ({lease.code} {lease.message}); the account must "
                f"be a member of the workspace {config.workspace_id}: add it at {CONSOLE}, under permissions"
            )
        param = lease.data.param
        self._report(f"Uploading {wheel.name} ({size / 1e6:.1f} MB)")
        await api.call("uploading", lambda: _put(param.url, param.headers or {}, wheel, config.request_timeout))
        self._report(f"Publishing {name or details['agent_id']}")
        request = api.models.HighCodeDeployRequest(
            agent_name=name,
            source_code_name=wheel.name,
            source_code_oss_url=lease.data.temp_storage_lease_id,
            **details,
        )
        done = await api.do("publishing", "high_code_deploy", config.workspace_id, request, repeatable=False)
        if not done.success or not done.data:
            raise DeployError(
                f"publishing: ModelStudio refuses it: {api.call.shown(f'{done.error_code} {done.error_msg}')}"
            )
        return str(done.data)


class _Api(Api):
    service = "ModelStudio"
    policy = "AliyunBailianDataFullAccess"
    package = "alibabacloud_bailian20231229"
    extra = "modelstudio"


def _put(url: str, headers: Mapping[str, str], path: Path, timeout: float) -> None:
    """Send a file to a signed URL. URL and headers must not be shown: they are the right to write there."""
    import http.client
    import urllib.error
    import urllib.request

    parts = urlsplit(url)
    address_of(f"{parts.scheme}://{parts.netloc}")  # http and https only
    with path.open("rb") as file:
        sent = {"Content-Type": "", **headers, "Content-Length": str(path.stat().st_size)}
        request = urllib.request.Request(url, Cancellable(file), sent, method="PUT")  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
                answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise Unanswered(error.code, f"{error.code}", str(error.reason)) from None
        except (OSError, http.client.HTTPException) as error:
            raise Unanswered(None, type(error).__name__, f"upload to {parts.netloc}") from None
