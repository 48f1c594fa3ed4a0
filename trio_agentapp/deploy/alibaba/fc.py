"""`FCDeployManager` puts apps into Function Compute of Alibaba Cloud."""

from __future__ import annotations

import json
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
from .calls import Conflict, Missing, Uncertain, wait_until
from .configs import FCConfig, OSSConfig
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

__all__ = ["FCDeployManager", "FCDeployment"]

MODE = "fc"
SDK = "alibabacloud_fc20230330"
EXTRA = "fc"
TRIGGER = "agentapp-http-trigger"
SESSION_HEADER = "x-agentscope-runtime-session-id"
"""Requests with the same value of this header go to the same instance. The name is that of the replaced product."""

SESSION_LIFETIME = 21600
"""Seconds: the longest that the service takes."""

PAGE, MOST_PAGES = 100, 100

# Where the runtime custom.debian11 keeps its interpreters.
PATH = f"/var/fc/lang/python{PYTHON}/bin:/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin:/code/bin"


@attrs.frozen(kw_only=True)
class FCDeployment(ArchiveDeployment):
    """An app that is ready in Function Compute. `url` is that of its HTTP trigger."""

    function_name: str
    endpoint_url: str
    """The same as `url`."""


class FCDeployManager(ArchiveDeployManager):
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
        super().__init__(oss_config, build_root, deploy_timeout=deploy_timeout, index_url=index_url, report=report)
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
        name = checked_name(function_name or deploy_name or given.name)
        if not skip_upload:
            self.fc_config.ensure_valid()
            self.oss_config.ensure_valid()
        return await run_trio(
            self._deploy,
            given,
            name,
            {"requirements": requirements, "allowed": allowed},
            dict(environment or {}),
            function_name is not None,
            "anonymous" if anonymous else "function",
            publish,
            skip_upload,
        )

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

    # The methods below need Trio.

    async def _deploy(
        self,
        given: Source,
        name: str,
        packaging: dict[str, Any],
        environment: dict[str, str],
        must_exist: bool,
        auth_type: str,
        publish: bool,
        skip_upload: bool,
    ) -> FCDeployment:
        config, folder = self.fc_config, builds_folder(self.build_root)
        if skip_upload:
            wheel, archive = await self._package(given, name, folder, packaging)
            return self._done("", name, "", wheel, str(archive), None)
        # What needs no package comes first: a wrong key is found in a second, and packing takes a minute.
        service = _Service(config, list(environment.values()))
        bucket = Bucket(self.oss_config, config.region_id, EXTRA, "fc-deploy-access")
        exists = await self._exists(service, name, must_exist)
        wheel, archive = await self._package(given, name, folder, packaging)
        key = await bucket.upload(archive, self._report)
        settings = _settings(config, {"ossBucketName": bucket.name, "ossObjectName": key}, environment)
        ready, undo = False, True
        try:
            if exists:
                self._report(f"Updating the function {name}")
                await service.update(name, settings)
            else:
                self._report(f"Making the function {name}")
                try:
                    await service.create({"functionName": name, **settings})
                except DeployError as error:
                    # One that was refused has made nothing. A function of the name is another process's then.
                    undo = isinstance(error, Uncertain)
                    raise
            self._report("Making its HTTP trigger")
            url = await service.trigger(name, auth_type)
            await self._wait(service, name)
            ready = True
        finally:
            if undo and not (ready or exists):
                with trio.move_on_after(UNDO_TIMEOUT) as scope:
                    scope.shield = True
                    await self._undo(service, name)
        version = await service.publish(name, None) if publish else None
        return self._done(name, name, url, wheel, f"oss://{bucket.name}/{key}", version)

    async def _exists(self, service: _Service, name: str, must_exist: bool) -> bool:
        """Whether the function is updated. It has to be ours, unless it was named as the one to update."""
        try:
            found = await service.get(name)
        except Missing:
            if must_exist:
                raise
            return False
        if not must_exist and not is_own(found):
            raise DeployError(
                f"a function {name} was not made by trio-agentapp; choose another name: --name NAME, or update it "
                f"with --function-name {name}"
            )
        return True

    def _done(
        self, deploy_id: str, name: str, url: str, wheel: Path, artifact: str, version: str | None
    ) -> FCDeployment:
        return FCDeployment(
            deploy_id=deploy_id,
            url=url,
            mode=MODE,
            pid=0,
            resource_name=name,
            version=version,
            console_url=self._console(name) if deploy_id else "",
            wheel_path=str(wheel),
            artifact_url=artifact,
            message="the app is ready" if deploy_id else "the package was made, and not uploaded",
            function_name=name,
            endpoint_url=url,
        )

    def _console(self, name: str) -> str:
        return f"https://fcnext.console.aliyun.com/{self.fc_config.region_id}/functions/{name}"

    async def _wait(self, service: _Service, name: str) -> None:
        self._report(f"Waiting for {name} to be ready")
        state, reason = DeploymentState.STARTING, ""

        async def look() -> bool | None:
            nonlocal state, reason
            state, reason = _state_of(await service.get(name))
            if state is DeploymentState.DEAD:
                raise DeployError(f"{name} failed: {service.call.shown(reason)}; see {self._console(name)}")
            return True if state is DeploymentState.READY else None

        if await wait_until(look, self.deploy_timeout) is None:
            raise DeployError(
                f"{name} was not ready in {self.deploy_timeout:g} s: it was {reason or state.value} at last"
            )

    async def _undo(self, service: _Service, name: str) -> None:
        """Delete a new function. The first error is raised, not these."""
        try:
            # The call may have made it although its answer was lost; or another program may have made it meanwhile.
            if is_own(await service.get(name)):
                self._report(f"Deleting the function {name}, which is not ready")
                await service.delete(name)
        except Missing:
            return
        except DeployError as error:
            self._report(f"This did not work: {error}")

    async def _publish(self, deploy_id: str, description: str | None) -> str:
        return await _Service(self.fc_config).publish(deploy_id, description)

    async def _status(self, name: str) -> DeploymentStatus:
        service = _Service(self.fc_config)
        return _status_of(await service.get(name), await service.url(name) or "")

    async def _list(self) -> Sequence[DeploymentStatus]:
        return [_status_of(each, "") for each in await _Service(self.fc_config).own()]

    async def _stop(self, name: str) -> DeploymentStatus:
        service = _Service(self.fc_config)
        found = await service.get(name)
        if not is_own(found):
            raise DeployError(f"{name} was not made by trio-agentapp; delete it at {self._console(name)}")
        self._report(f"Deleting the function {name}")
        await service.delete(name)
        return attrs.evolve(_status_of(found, ""), state=DeploymentState.STOPPED, reason=None)


class _Service(Api):
    """The API of Function Compute 3.0, through its SDK."""

    def __init__(self, config: FCConfig, hidden: Sequence[str] = ()) -> None:
        endpoint = config.endpoint or f"{config.account_id}.{config.region_id}.fc.aliyuncs.com"
        super().__init__(config, "Function Compute", endpoint, "AliyunFCFullAccess", SDK, EXTRA, hidden)

    async def create(self, values: Mapping[str, Any]) -> None:
        request = self.request("CreateFunction", values)
        what = f"making the function {values['functionName']}"
        await self.do(what, "create_function", request, repeatable=False)

    async def update(self, name: str, values: Mapping[str, Any]) -> None:
        request = self.request("UpdateFunction", values)
        await self.do(f"updating the function {name}", "update_function", name, request)

    async def get(self, name: str) -> Any:
        return await self.do(f"looking for the function {name}", "get_function", name, self.request("GetFunction"))

    async def delete(self, name: str) -> None:
        """Delete a function and its trigger. It is no error if they are gone."""
        with suppress(Missing):
            await self.do(f"deleting the trigger of {name}", "delete_trigger", name, TRIGGER)
        with suppress(Missing):
            await self.do(f"deleting the function {name}", "delete_function", name)

    async def trigger(self, name: str, auth_type: str) -> str:
        """Make the HTTP trigger, or change the one that is there; returns its URL."""
        config = json.dumps(
            {"authType": auth_type, "methods": ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]}
        )
        values = {"triggerName": TRIGGER, "triggerType": "http", "triggerConfig": config, "description": OURS}
        what = f"making the trigger of {name}"
        try:
            request = self.request("CreateTrigger", values)
            made = await self.do(what, "create_trigger", name, request, repeatable=False)
        except Conflict:
            request = self.request("UpdateTrigger", {"triggerConfig": config, "description": OURS})
            made = await self.do(f"changing the trigger of {name}", "update_trigger", name, TRIGGER, request)
        return _url_of(made) or await self.url(name) or ""

    async def url(self, name: str) -> str | None:
        try:
            return _url_of(await self.do(f"looking for the trigger of {name}", "get_trigger", name, TRIGGER))
        except Missing:
            return None

    async def publish(self, name: str, description: str | None) -> str:
        request = self.request("PublishFunctionVersion", {"description": description}, "PublishVersionInput")
        made = await self.do(
            f"publishing the function {name}", "publish_function_version", name, request, repeatable=False
        )
        return str(made.version_id)

    async def own(self) -> list[Any]:
        """The functions that this manager made."""
        found: list[Any] = []
        token = None
        for _ in range(MOST_PAGES):
            request = self.models.ListFunctionsRequest(limit=PAGE, next_token=token, fc_version="v3")
            page = await self.do("listing functions", "list_functions", request)
            found += [each for each in page.functions or () if is_own(each)]
            token = page.next_token
            if not token:
                break
        return found


def _settings(config: FCConfig, code: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    log, vpc = config.log_config, config.vpc_config
    affinity = {
        "affinityHeaderFieldName": SESSION_HEADER,
        "sessionTTLInSeconds": SESSION_LIFETIME,
        "sessionConcurrencyPerInstance": config.session_concurrency_limit,
        "sessionIdleTimeoutInSeconds": config.session_idle_timeout_seconds,
    }
    values = {
        "runtime": "custom.debian11",
        "code": dict(code),
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


def _url_of(trigger: Any) -> str | None:
    return None if trigger.http_trigger is None else trigger.http_trigger.url_internet


def _state_of(found: Any) -> tuple[DeploymentState, str]:
    """State, and reason. The service leaves both states out of some answers when nothing is wrong."""
    if found.state == "Failed" or found.last_update_status == "Failed":
        return DeploymentState.DEAD, str(found.state_reason or found.last_update_status_reason or "Failed")
    if found.state == "Pending" or found.last_update_status == "InProgress":
        return DeploymentState.STARTING, str(found.state_reason or found.last_update_status_reason or "Pending")
    return DeploymentState.READY, ""


def _status_of(found: Any, url: str) -> DeploymentStatus:
    state, reason = _state_of(found)
    return DeploymentStatus(
        deploy_id=str(found.function_name),
        state=state,
        url=url,
        mode=MODE,
        pid=None,
        app_name=str(found.function_name),
        entrypoint="",
        log="",
        started_at=datetime.fromisoformat(found.created_time).timestamp() if found.created_time else 0.0,
        reason=reason or None,
    )
