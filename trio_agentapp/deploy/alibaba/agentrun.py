"""`AgentRunDeployManager` puts apps into AgentRun of Alibaba Cloud."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never

import attrs
import trio

from ...errors import DeployError
from ...protocol.deployment import DeploymentState, DeploymentStatus
from ..asyncio_bridge import run_trio
from .api import Api
from .archive import PYTHON
from .bucket import Bucket
from .bundle import STARTER, builds_folder, checked_name
from .calls import Missing, Uncertain, wait_until
from .configs import AgentRunConfig, OSSConfig
from .manager import (
    DEPLOY_TIMEOUT,
    OURS,
    PORT,
    UNDO_TIMEOUT,
    ArchiveDeployManager,
    ArchiveDeployment,
    is_own,
)
from .source import Source

if TYPE_CHECKING:
    from ...app import AgentApp

__all__ = ["AgentRunDeployManager", "AgentRunDeployment"]

MODE = "agentrun"
SDK = "alibabacloud_agentrun20250910"
EXTRA = "agentrun"
ENDPOINT = "default-endpoint"
PAGE, MOST_PAGES = 100, 100

STATES = {
    "CREATING": DeploymentState.STARTING,
    "UPDATING": DeploymentState.STARTING,
    "READY": DeploymentState.READY,
    "ACTIVE": DeploymentState.READY,
    "CREATE_FAILED": DeploymentState.DEAD,
    "UPDATE_FAILED": DeploymentState.DEAD,
    "FAILED": DeploymentState.DEAD,
}
FORMER = ("codeConfiguration", "environmentVariables", "cpu", "memory", "port")
"""What is put back when an update fails."""


@attrs.frozen(kw_only=True)
class AgentRunDeployment(ArchiveDeployment):
    """An app that is ready in AgentRun. `url` is its public endpoint."""

    agentrun_id: str
    agentrun_endpoint_url: str
    """The same as `url`."""


class AgentRunDeployManager(ArchiveDeployManager):
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
        super().__init__(oss_config, build_root, deploy_timeout=deploy_timeout, index_url=index_url, report=report)
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
        name = checked_name(deploy_name or given.name)
        if not skip_upload:
            self.agentrun_config.ensure_valid()
            self.oss_config.ensure_valid()
        return await run_trio(
            self._deploy,
            given,
            name,
            {"requirements": requirements, "allowed": allowed},
            dict(environment or {}),
            agentrun_id,
            publish,
            skip_upload,
        )

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

    # The methods below need Trio.

    async def _deploy(
        self,
        given: Source,
        name: str,
        packaging: dict[str, Any],
        environment: dict[str, str],
        agentrun_id: str | None,
        publish: bool,
        skip_upload: bool,
    ) -> AgentRunDeployment:
        config, folder = self.agentrun_config, builds_folder(self.build_root)
        if skip_upload:
            wheel, archive = await self._package(given, name, folder, packaging)
            return self._done("", name, "", wheel, str(archive), None)
        # What needs no package comes first: a wrong key is found in a second, and packing takes a minute.
        service = _Service(config, list(environment.values()))
        bucket = Bucket(self.oss_config, config.region_id, EXTRA, "agentrun-deploy-access")
        before = await self._before(service, name, agentrun_id)
        wheel, archive = await self._package(given, name, folder, packaging)
        key = await bucket.upload(archive, self._report)
        code = {
            "language": f"python{PYTHON}",
            "command": ["python3", f"/code/{STARTER}"],
            "ossBucketName": bucket.name,
            "ossObjectName": key,
        }
        settings = _settings(config, code, environment)
        runtime_id = None if before is None else str(before.agent_runtime_id)
        ready, undo = False, True
        try:
            if runtime_id is None:
                self._report(f"Making the agent runtime {name}")
                try:
                    runtime_id = await service.create({"agentRuntimeName": name, **settings})
                except DeployError as error:
                    # One that was refused has made nothing. A runtime of the name is another process's then.
                    undo = isinstance(error, Uncertain)
                    raise
            else:
                self._report(f"Updating the agent runtime {name} ({runtime_id})")
                await service.update(runtime_id, settings)
            url = await self._wait(service, runtime_id, name)
            ready = True
        finally:
            if undo and not ready:
                with trio.move_on_after(UNDO_TIMEOUT) as scope:
                    scope.shield = True
                    await self._undo(service, name, runtime_id, before)
        version = await service.publish(runtime_id, None) if publish else None
        return self._done(runtime_id, name, url, wheel, f"oss://{bucket.name}/{key}", version)

    def _done(
        self, runtime_id: str, name: str, url: str, wheel: Path, artifact: str, version: str | None
    ) -> AgentRunDeployment:
        return AgentRunDeployment(
            deploy_id=runtime_id,
            url=url,
            mode=MODE,
            pid=0,
            resource_name=name,
            version=version,
            console_url=self._console(runtime_id) if runtime_id else "",
            wheel_path=str(wheel),
            artifact_url=artifact,
            message="the app is ready" if runtime_id else "the package was made, and not uploaded",
            agentrun_id=runtime_id,
            agentrun_endpoint_url=url,
        )

    def _console(self, runtime_id: str) -> str:
        return (
            f"https://functionai.console.aliyun.com/{self.agentrun_config.region_id}/agent/infra/agent-runtime/"
            f"agent-detail?id={runtime_id}"
        )

    async def _before(self, service: _Service, name: str, agentrun_id: str | None) -> Any:
        """The runtime that is updated, completely; None if it has to be made."""
        found = await service.find(name, agentrun_id)
        if found is not None and found.status == "DELETING":
            self._report(f"Waiting until the former runtime {found.agent_runtime_id} is deleted")
            if not await service.wait_gone(str(found.agent_runtime_id), self.deploy_timeout):
                raise DeployError(
                    f"{found.agent_runtime_id} is still being deleted; choose another name: --name NAME"
                )
            return None
        return found

    async def _wait(self, service: _Service, runtime_id: str, name: str) -> str:
        """Wait for the runtime, and then for its endpoint, which is made if there is none; returns its URL."""
        seen = "nothing"

        async def look(get: Callable[[], Any]) -> Any:
            nonlocal seen
            found = await get()
            state = STATES.get(found.status or "")
            if state is DeploymentState.DEAD:
                raise DeployError(
                    f"{name} failed: {found.status} {service.call.shown(found.status_reason or '')}; see "
                    f"{self._console(runtime_id)}"
                )
            seen = str(found.status)
            return found if state is DeploymentState.READY else None

        ends = trio.current_time() + self.deploy_timeout
        self._report(f"Waiting for {name} to be ready")
        found = await wait_until(lambda: look(lambda: service.get(runtime_id)), self.deploy_timeout)
        if found is not None:
            endpoint = await service.endpoint(runtime_id)
            if endpoint is None:
                self._report("Making its endpoint")
                endpoint = await service.create_endpoint(runtime_id)
            made = str(endpoint.agent_runtime_endpoint_id)
            left = max(0, ends - trio.current_time())
            found = await wait_until(lambda: look(lambda: service.get_endpoint(runtime_id, made)), left)
        if found is None:
            raise DeployError(f"{name} was not ready in {self.deploy_timeout:g} s: it was {seen} at last")
        return str(found.endpoint_public_url or "")

    async def _undo(self, service: _Service, name: str, runtime_id: str | None, before: Any) -> None:
        """Delete the runtime if it is new, else put the former one back. The first error is raised, not these."""
        try:
            if before is None:
                # The call may have made it although its answer was lost.
                found = runtime_id or getattr(await service.find(name, None), "agent_runtime_id", None)
                if found is not None:
                    self._report(f"Deleting the agent runtime {found}, which is not ready")
                    await service.delete(str(found))
                return
            self._report(f"Putting the former version of {name} back")
            former = {"environmentVariables": {}, **before.to_map()}
            await service.update(str(runtime_id), {key: former[key] for key in FORMER if key in former})
        except DeployError as error:
            self._report(f"This did not work: {error}")

    async def _publish(self, deploy_id: str, description: str | None) -> str:
        return await _Service(self.agentrun_config).publish(deploy_id, description)

    async def _status(self, deploy_id: str) -> DeploymentStatus:
        service = _Service(self.agentrun_config)
        found = await service.get(deploy_id)
        endpoint = await service.endpoint(deploy_id)
        return _status_of(found, "" if endpoint is None else str(endpoint.endpoint_public_url or ""))

    async def _list(self) -> Sequence[DeploymentStatus]:
        return [_status_of(each, "") for each in await _Service(self.agentrun_config).own()]

    async def _stop(self, deploy_id: str) -> DeploymentStatus:
        service = _Service(self.agentrun_config)
        found = await service.get(deploy_id)
        if not is_own(found):
            raise DeployError(f"{deploy_id} was not made by trio-agentapp; delete it at {self._console(deploy_id)}")
        self._report(f"Deleting the agent runtime {deploy_id}")
        await service.delete(deploy_id)
        gone = await service.wait_gone(deploy_id, self.deploy_timeout)
        reason = None if gone else f"it is still being deleted after {self.deploy_timeout:g} s"
        return attrs.evolve(_status_of(found, ""), state=DeploymentState.STOPPED, reason=reason)


class _Service(Api):
    """AgentRun's API, through its SDK."""

    def __init__(self, config: AgentRunConfig, hidden: Sequence[str] = ()) -> None:
        endpoint = config.endpoint or f"agentrun.{config.region_id}.aliyuncs.com"
        super().__init__(config, "AgentRun", endpoint, "AliyunAgentRunFullAccess", SDK, EXTRA, hidden)

    async def do(self, what: str, method: str, *args: Any, repeatable: bool = True) -> Any:
        return self.call.check(what, await super().do(what, method, *args, repeatable=repeatable))

    async def create(self, values: Mapping[str, Any]) -> str:
        made = await self.do(
            f"making the agent runtime {values['agentRuntimeName']}",
            "create_agent_runtime",
            self.request("CreateAgentRuntime", values),
            repeatable=False,
        )
        return str(made.agent_runtime_id)

    async def update(self, runtime_id: str, values: Mapping[str, Any]) -> None:
        request = self.request("UpdateAgentRuntime", values)
        await self.do(f"updating the agent runtime {runtime_id}", "update_agent_runtime", runtime_id, request)

    async def get(self, runtime_id: str) -> Any:
        request = self.request("GetAgentRuntime")
        return await self.do(
            f"looking for the agent runtime {runtime_id}", "get_agent_runtime", runtime_id, request
        )

    async def delete(self, runtime_id: str) -> None:
        """Delete a runtime. It is no error if it is gone."""
        with suppress(Missing):
            await self.do(f"deleting the agent runtime {runtime_id}", "delete_agent_runtime", runtime_id)

    async def wait_gone(self, runtime_id: str, timeout: float) -> bool:
        """Wait until a runtime that is being deleted is gone; False if it is there after `timeout` seconds."""

        async def gone() -> bool | None:
            try:
                await self.get(runtime_id)
            except Missing:
                return True
            return None

        return await wait_until(gone, timeout) is not None

    async def create_endpoint(self, runtime_id: str) -> Any:
        values = {"agentRuntimeEndpointName": ENDPOINT, "targetVersion": "LATEST", "description": OURS}
        request = self.request("CreateAgentRuntimeEndpoint", values)
        return await self.do(
            f"making the endpoint of {runtime_id}",
            "create_agent_runtime_endpoint",
            runtime_id,
            request,
            repeatable=False,
        )

    async def get_endpoint(self, runtime_id: str, endpoint_id: str) -> Any:
        what = f"looking for the endpoint of {runtime_id}"
        return await self.do(what, "get_agent_runtime_endpoint", runtime_id, endpoint_id)

    async def endpoint(self, runtime_id: str) -> Any:
        """The endpoint that `create_endpoint` makes; None if there is none."""
        request = self.models.ListAgentRuntimeEndpointsRequest(page_number=1, page_size=PAGE)
        what = f"looking for the endpoints of {runtime_id}"
        found = await self.do(what, "list_agent_runtime_endpoints", runtime_id, request)
        return next((each for each in found.items or () if each.agent_runtime_endpoint_name == ENDPOINT), None)

    async def publish(self, runtime_id: str, description: str | None) -> str:
        request = self.request("PublishRuntimeVersion", {"description": description})
        made = await self.do(
            f"publishing the agent runtime {runtime_id}",
            "publish_runtime_version",
            runtime_id,
            request,
            repeatable=False,
        )
        return str(made.agent_runtime_version)

    async def own(self) -> list[Any]:
        """The runtimes that this manager made."""
        return [each for each in await self._list() if is_own(each)]

    async def _list(self, name: str | None = None) -> list[Any]:
        found: list[Any] = []
        for page in range(1, MOST_PAGES + 1):
            request = self.models.ListAgentRuntimesRequest(
                agent_runtime_name=name, page_number=page, page_size=PAGE
            )
            data = await self.do("listing agent runtimes", "list_agent_runtimes", request)
            found += data.items or []
            if len(found) >= (data.total or 0) or not data.items:
                break
        return found

    async def find(self, name: str, runtime_id: str | None) -> Any:
        """The runtime that a deployment updates, completely; None if it has to be made."""
        if runtime_id is not None:
            return await self.get(runtime_id)
        # The filter of the service may match parts of names.
        named = [each for each in await self._list(name) if each.agent_runtime_name == name]
        if not named:
            return None
        if not is_own(named[0]):
            raise DeployError(
                f"an agent runtime {name} was not made by trio-agentapp; choose another name: --name NAME, or "
                f"update it with --agentrun-id {named[0].agent_runtime_id}"
            )
        return await self.get(str(named[0].agent_runtime_id))


def _settings(config: AgentRunConfig, code: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    network = config.network_config
    values = {
        "artifactType": "Code",
        "codeConfiguration": dict(code),
        "cpu": config.cpu,
        "memory": config.memory,
        "port": PORT,
        "description": OURS,
        "environmentVariables": dict(environment),
        "executionRoleArn": config.execution_role_arn,
        "credentialName": config.credential_name,
        "healthCheckConfiguration": {"httpGetUrl": "/liveness", "periodSeconds": 10, "timeoutSeconds": 3},
        "logConfiguration": None if config.log_config is None else attrs.asdict(config.log_config),
        "networkConfiguration": {
            "networkMode": network.network_mode,
            "vpcId": network.vpc_id,
            "securityGroupId": network.security_group_id,
            "vswitchIds": network.vswitch_ids,
        },
        "sessionConcurrencyLimitPerInstance": config.session_concurrency_limit,
        "sessionIdleTimeoutSeconds": config.session_idle_timeout_seconds,
    }
    return {key: value for key, value in values.items() if value is not None}


def _status_of(found: Any, url: str) -> DeploymentStatus:
    state = STATES.get(found.status or "", DeploymentState.UNREADY)
    code = found.code_configuration
    return DeploymentStatus(
        deploy_id=str(found.agent_runtime_id),
        state=state,
        url=url,
        mode=MODE,
        pid=None,
        app_name=str(found.agent_runtime_name),
        entrypoint="" if code is None else f"oss://{code.oss_bucket_name}/{code.oss_object_name}",
        log="",
        started_at=datetime.fromisoformat(found.created_at).timestamp() if found.created_at else 0.0,
        reason=found.status_reason or (None if state is DeploymentState.READY else found.status),
    )
