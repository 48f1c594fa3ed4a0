"""The API of Function Compute 3.0, through its SDK."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from ...errors import DeployError
from ...protocol.deployment import DeploymentState, DeploymentStatus
from .archive import PYTHON
from .archive_service import OURS, PAGE, PAGES, PORT, ArchiveService, is_own
from .bundle import STARTER
from .calls import Conflict, Missing
from .configs import FCConfig

__all__ = ["FCService"]

TRIGGER = "agentapp-http-trigger"
SESSION_HEADER = "x-agentscope-runtime-session-id"
"""Requests with the same value of this header go to the same instance. The name is that of the replaced product."""

SESSION_LIFETIME = 21600
"""Seconds: the longest that the service takes."""

# Where the runtime custom.debian11 keeps its interpreters.
PATH = f"/var/fc/lang/python{PYTHON}/bin:/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin:/code/bin"


class FCService(ArchiveService):
    """A region of Function Compute. The id of a function is its name.

    `anonymous`: everybody may call the URL of a trigger that is made.
    """

    service = "Function Compute"
    policy = "AliyunFCFullAccess"
    package = "alibabacloud_fc20230330"
    extra = "fc"
    resource = "function"
    kind = "Function"
    config: FCConfig

    def __init__(self, config: FCConfig, hidden: Iterable[str], *, anonymous: bool) -> None:
        self.config = config
        self._auth_type = "anonymous" if anonymous else "function"
        endpoint = config.endpoint or f"{config.account_id}.{config.region_id}.fc.aliyuncs.com"
        super().__init__(config, endpoint, hidden)

    def settings(self, bucket: str, key: str, environment: Mapping[str, str]) -> dict[str, Any]:
        config, log, vpc = self.config, self.config.log_config, self.config.vpc_config
        affinity = {
            "affinityHeaderFieldName": SESSION_HEADER,
            "sessionTTLInSeconds": SESSION_LIFETIME,
            "sessionConcurrencyPerInstance": config.session_concurrency_limit,
            "sessionIdleTimeoutInSeconds": config.session_idle_timeout_seconds,
        }
        values = {
            "runtime": "custom.debian11",
            "code": {"ossBucketName": bucket, "ossObjectName": key},
            "customRuntimeConfig": {
                "port": PORT,
                "command": ["python3", f"/code/{STARTER}"],
                "healthCheckConfig": {"httpGetUrl": "/liveness", "periodSeconds": 10, "timeoutSeconds": 3},
            },
            "description": OURS,
            "timeout": config.timeout,
            "cpu": config.cpu,
            "memorySize": config.memory,
            "diskSize": config.disk,
            "role": config.execution_role_arn,
            "instanceConcurrency": 200,
            "instanceIsolationMode": "SHARE",
            "internetAccess": True,
            "environmentVariables": {"PATH": PATH, "PYTHONPATH": "/code", **environment},
            "sessionAffinity": "HEADER_FIELD",
            "sessionAffinityConfig": json.dumps(affinity),
            "logConfig": None
            if log is None
            else {
                "project": log.project,
                "logstore": log.logstore,
                "enableRequestMetrics": True,
                "enableInstanceMetrics": True,
                "logBeginRule": "DefaultRegex",
            },
            "vpcConfig": None
            if vpc is None
            else {"vpcId": vpc.vpc_id, "vSwitchIds": vpc.vswitch_ids, "securityGroupId": vpc.security_group_id},
        }
        return {key: value for key, value in values.items() if value is not None}

    def id_of(self, found: Any) -> str:
        return str(found.function_name)

    def state_of(self, found: Any) -> tuple[DeploymentState, str]:
        # The service leaves both states out of some answers when nothing is wrong.
        reason = found.state_reason or found.last_update_status_reason
        if found.state == "Failed" or found.last_update_status == "Failed":
            return DeploymentState.DEAD, str(reason or "Failed")
        if found.state == "Pending" or found.last_update_status == "InProgress":
            return DeploymentState.STARTING, str(reason or "Pending")
        return DeploymentState.READY, ""

    def status_of(self, found: Any, url: str) -> DeploymentStatus:
        state, reason = self.state_of(found)
        return DeploymentStatus(
            deploy_id=self.id_of(found),
            state=state,
            url=url,
            mode="fc",
            app_name=self.id_of(found),
            started_at=datetime.fromisoformat(found.created_time).timestamp() if found.created_time else 0.0,
            reason=reason or None,
        )

    async def find(self, name: str, deploy_id: str | None) -> Any:
        try:
            found = await self.get(deploy_id or name)
        except Missing:
            if deploy_id is not None:
                raise
            return None
        if deploy_id is None and not is_own(found):
            raise DeployError(
                f"a function {name} was not made by trio-agentapp; choose another name: --name NAME, or update it "
                f"with --function-name {name}"
            )
        return found

    async def delete(self, deploy_id: str) -> None:
        with suppress(Missing):
            await self.do(f"deleting the trigger of {deploy_id}", "delete_trigger", deploy_id, TRIGGER)
        await super().delete(deploy_id)

    async def trigger(self, deploy_id: str) -> str:
        """Make the HTTP trigger, or change the one that is there; returns its URL."""
        config = json.dumps(
            {"authType": self._auth_type, "methods": ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]}
        )
        values = {"triggerName": TRIGGER, "triggerType": "http", "triggerConfig": config, "description": OURS}
        what = f"making the trigger of {deploy_id}"
        try:
            request = self.request("CreateTrigger", values)
            made = await self.do(what, "create_trigger", deploy_id, request, repeatable=False)
        except Conflict:
            request = self.request("UpdateTrigger", {"triggerConfig": config, "description": OURS})
            what = f"changing the trigger of {deploy_id}"
            made = await self.do(what, "update_trigger", deploy_id, TRIGGER, request)
        return _url_of(made) or await self.url(deploy_id)

    async def url(self, deploy_id: str) -> str:
        what = f"looking for the trigger of {deploy_id}"
        try:
            return _url_of(await self.do(what, "get_trigger", deploy_id, TRIGGER))
        except Missing:
            return ""

    async def publish(self, deploy_id: str, description: str | None) -> str:
        request = self.request("PublishFunctionVersion", {"description": description}, "PublishVersionInput")
        what = f"publishing the function {deploy_id}"
        made = await self.do(what, "publish_function_version", deploy_id, request, repeatable=False)
        return str(made.version_id)

    async def own(self) -> list[Any]:
        found: list[Any] = []
        token = None
        for _ in PAGES:
            request = self.models.ListFunctionsRequest(limit=PAGE, next_token=token, fc_version="v3")
            page = await self.do("listing functions", "list_functions", request)
            found += [each for each in page.functions or () if is_own(each)]
            token = page.next_token
            if not token:
                break
        return found


def _url_of(trigger: Any) -> str:
    return "" if trigger.http_trigger is None else str(trigger.http_trigger.url_internet or "")
