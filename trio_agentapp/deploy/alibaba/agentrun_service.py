"""The API of AgentRun, through its SDK."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import attrs

from ...errors import DeployError
from ...protocol.deployment import DeploymentState, DeploymentStatus
from .archive import PYTHON
from .archive_service import OURS, PAGE, PAGES, PORT, ArchiveService, is_own
from .bundle import STARTER
from .configs import AgentRunConfig

__all__ = ["AgentRunService"]

ENDPOINT = "default-endpoint"

STATES = {
    "CREATING": DeploymentState.STARTING,
    "UPDATING": DeploymentState.STARTING,
    "READY": DeploymentState.READY,
    "ACTIVE": DeploymentState.READY,
    "CREATE_FAILED": DeploymentState.DEAD,
    "UPDATE_FAILED": DeploymentState.DEAD,
    "FAILED": DeploymentState.DEAD,
}


class AgentRunService(ArchiveService):
    """A region of AgentRun. A runtime has an id, a name, and endpoints."""

    service = "AgentRun"
    policy = "AliyunAgentRunFullAccess"
    package = "alibabacloud_agentrun20250910"
    extra = "agentrun"
    resource = "agent runtime"
    kind = "AgentRuntime"
    config: AgentRunConfig

    def __init__(self, config: AgentRunConfig, hidden: Iterable[str]) -> None:
        self.config = config
        super().__init__(config, config.endpoint or f"agentrun.{config.region_id}.aliyuncs.com", hidden)

    async def do(self, what: str, method: str, *args: Any, repeatable: bool = True) -> Any:
        return self.call.check(what, await super().do(what, method, *args, repeatable=repeatable))

    def settings(self, bucket: str, key: str, environment: Mapping[str, str]) -> dict[str, Any]:
        config, network = self.config, self.config.network_config
        values = {
            "artifactType": "Code",
            "codeConfiguration": {
                "language": f"python{PYTHON}",
                "command": ["python3", f"/code/{STARTER}"],
                "ossBucketName": bucket,
                "ossObjectName": key,
            },
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

    def id_of(self, found: Any) -> str:
        return str(found.agent_runtime_id)

    def state_of(self, found: Any) -> tuple[DeploymentState, str]:
        state = STATES.get(found.status or "", DeploymentState.UNREADY)
        failure = f" {found.status_reason or ''}" if state is DeploymentState.DEAD else ""
        return state, f"{found.status}{failure}"

    def status_of(self, found: Any, url: str) -> DeploymentStatus:
        state, _ = self.state_of(found)
        code = found.code_configuration
        return DeploymentStatus(
            deploy_id=self.id_of(found),
            state=state,
            url=url,
            mode="agentrun",
            app_name=str(found.agent_runtime_name),
            entrypoint="" if code is None else f"oss://{code.oss_bucket_name}/{code.oss_object_name}",
            started_at=datetime.fromisoformat(found.created_at).timestamp() if found.created_at else 0.0,
            reason=found.status_reason or (None if state is DeploymentState.READY else found.status),
        )

    async def create_endpoint(self, deploy_id: str) -> Any:
        values = {"agentRuntimeEndpointName": ENDPOINT, "targetVersion": "LATEST", "description": OURS}
        request = self.request("CreateAgentRuntimeEndpoint", values)
        what = f"making the endpoint of {deploy_id}"
        return await self.do(what, "create_agent_runtime_endpoint", deploy_id, request, repeatable=False)

    async def get_endpoint(self, deploy_id: str, endpoint_id: str) -> Any:
        what = f"looking for the endpoint of {deploy_id}"
        return await self.do(what, "get_agent_runtime_endpoint", deploy_id, endpoint_id)

    async def endpoint(self, deploy_id: str) -> Any:
        """The endpoint that `create_endpoint` makes; None if there is none."""
        request = self.models.ListAgentRuntimeEndpointsRequest(page_number=1, page_size=PAGE)
        what = f"looking for the endpoints of {deploy_id}"
        found = await self.do(what, "list_agent_runtime_endpoints", deploy_id, request)
        return next((each for each in found.items or () if each.agent_runtime_endpoint_name == ENDPOINT), None)

    async def url(self, deploy_id: str) -> str:
        endpoint = await self.endpoint(deploy_id)
        return "" if endpoint is None else str(endpoint.endpoint_public_url or "")

    async def publish(self, deploy_id: str, description: str | None) -> str:
        request = self.request("PublishRuntimeVersion", {"description": description})
        what = f"publishing the agent runtime {deploy_id}"
        made = await self.do(what, "publish_runtime_version", deploy_id, request, repeatable=False)
        return str(made.agent_runtime_version)

    async def own(self) -> list[Any]:
        return [each for each in await self._list() if is_own(each)]

    async def _list(self, name: str | None = None) -> list[Any]:
        found: list[Any] = []
        for page in PAGES:
            request = self.models.ListAgentRuntimesRequest(
                agent_runtime_name=name, page_number=page, page_size=PAGE
            )
            data = await self.do("listing agent runtimes", "list_agent_runtimes", request)
            found += data.items or []
            if len(found) >= (data.total or 0) or not data.items:
                break
        return found

    async def find(self, name: str, deploy_id: str | None) -> Any:
        if deploy_id is not None:
            return await self.get(deploy_id)
        # The filter of the service may match parts of names.
        named = [each for each in await self._list(name) if each.agent_runtime_name == name]
        if not named:
            return None
        if not is_own(named[0]):
            raise DeployError(
                f"an agent runtime {name} was not made by trio-agentapp; choose another name: --name NAME, or "
                f"update it with --agentrun-id {named[0].agent_runtime_id}"
            )
        return await self.get(self.id_of(named[0]))
