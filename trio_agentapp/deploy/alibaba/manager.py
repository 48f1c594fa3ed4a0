"""What deploy managers have in common whose services run a code archive."""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import attrs
import trio

from ...abc import DeployManager
from ...errors import DeployError
from ...protocol.deployment import Deployment, DeploymentState, DeploymentStatus
from ..asyncio_bridge import run_trio
from .archive import archive_of
from .archive_service import PORT, ArchiveService, is_own
from .bucket import Bucket
from .bundle import builds_folder, checked_name
from .calls import Uncertain, wait_until
from .configs import OSSConfig
from .source import Source

__all__ = ["DEPLOY_TIMEOUT", "ArchiveDeployManager", "ArchiveDeployment"]

DEPLOY_TIMEOUT = 300.0
UNDO_TIMEOUT = 60.0
"""Seconds for deleting what a failed deployment has made."""

ID = re.compile(r"[\w-]{1,128}", re.ASCII)


@attrs.frozen(kw_only=True)
class ArchiveDeployment(Deployment):
    """An app that is ready. `url` is its endpoint; `deploy_id` and `url` are empty if nothing was sent."""

    resource_name: str
    version: str | None
    """The version that was published, if that was asked for."""
    console_url: str
    wheel_path: str
    artifact_url: str
    """The archive: `oss://BUCKET/KEY`, or its path if nothing was sent."""
    message: str


S = TypeVar("S", bound=ArchiveService)
D = TypeVar("D", bound=ArchiveDeployment)


class ArchiveDeployManager(DeployManager, Generic[S, D]):
    """The service has the records. Each method can be awaited from Trio and from asyncio.

    `build_root`: the folder for packages. `deploy_timeout`: the seconds in which the app must be ready.
    `index_url`: the package index. `report` is called with the name of each step.
    """

    def __init__(
        self,
        oss_config: OSSConfig | None,
        build_root: str | os.PathLike[str] | None,
        deploy_timeout: float,
        index_url: str | None,
        report: Callable[[str], object],
    ) -> None:
        self.oss_config = oss_config or OSSConfig.from_env()
        self.build_root = build_root
        self.deploy_timeout = deploy_timeout
        self.index_url = index_url
        self._report = report

    async def publish(self, deploy_id: str, description: str | None = None) -> str:
        """Make the code of a deployment an unchangeable version; returns its number.

        Raises:
            DeployError: there is no such deployment, or the service refuses.
        """
        return await run_trio(self._publish, _checked(deploy_id), description)

    async def status(self, deploy_id: str) -> DeploymentStatus:
        return await run_trio(self._status, _checked(deploy_id))

    async def list(self) -> Sequence[DeploymentStatus]:
        """The deployments of the region that this manager made, without their URLs."""
        return await run_trio(self._list)

    async def stop(self, deploy_id: str) -> DeploymentStatus:
        """Delete the deployment with its endpoint, and wait until it is gone. The archive in the bucket is kept.

        The service ends the instances: runs that are alive then are cut.
        """
        return await run_trio(self._stop, _checked(deploy_id))

    async def delete(self, deploy_id: str) -> DeploymentStatus:
        """The same as `stop`."""
        return await self.stop(deploy_id)

    @abstractmethod
    def _service(self, hidden: Iterable[str] = ()) -> S:
        """The service of this region. `hidden`: values that no error message shows."""

    @abstractmethod
    def _console(self, deploy_id: str) -> str:
        """The page of a deployment."""

    @abstractmethod
    def _deployment(self, **values: Any) -> D:
        """The result of `deploy`, of the fields of an `ArchiveDeployment`."""

    # The methods below need Trio.

    async def _deploy(
        self,
        given: Source,
        name: str,
        former_id: str | None,
        environment: Mapping[str, str],
        publish: bool,
        skip_upload: bool,
        packaging: Mapping[str, Any],
        **options: Any,
    ) -> D:
        """Make or update the resource, and wait for it. `options` are those of `_service`."""
        name, folder = checked_name(name), builds_folder(self.build_root)
        if skip_upload:
            wheel, archive = await self._package(given, name, folder, packaging)
            return self._done("", name, "", wheel, str(archive), None)
        # What needs no package comes first: a wrong key is found in a second, and packing takes a minute.
        service = self._service(environment.values(), **options)
        bucket = Bucket(self.oss_config, service.config.region_id, service.extra)
        before = await self._before(service, name, former_id)
        wheel, archive = await self._package(given, name, folder, packaging)
        key = await bucket.upload(archive, self._report)
        settings = service.settings(bucket.name, key, environment)
        deploy_id = None if before is None else service.id_of(before)
        ready, undo = False, True
        try:
            if deploy_id is None:
                self._report(f"Making the {service.resource} {name}")
                try:
                    deploy_id = await service.create(name, settings)
                except DeployError as error:
                    # One that was refused has made nothing. A resource of the name is another process's then.
                    undo = isinstance(error, Uncertain)
                    raise
            else:
                shown = name if deploy_id == name else f"{name} ({deploy_id})"
                self._report(f"Updating the {service.resource} {shown}")
                await service.update(deploy_id, settings)
            url = await self._expose(service, deploy_id, name)
            ready = True
        finally:
            if undo and not ready:
                with trio.move_on_after(UNDO_TIMEOUT) as scope:
                    scope.shield = True
                    await self._undo(service, name, deploy_id, before)
        version = await service.publish(deploy_id, None) if publish else None
        return self._done(deploy_id, name, url, wheel, f"oss://{bucket.name}/{key}", version)

    async def _before(self, service: S, name: str, former_id: str | None) -> Any:
        """The resource that is updated, completely; None if it has to be made."""
        return await service.find(name, former_id)

    async def _package(
        self, given: Source, name: str, folder: Path, options: Mapping[str, Any]
    ) -> tuple[Path, Path]:
        """Make wheel and archive of the app."""
        wheel = await given.wheel(folder, self._report, name=name, port=PORT, **options)
        return wheel, await archive_of(wheel, folder, index_url=self.index_url, report=self._report)

    @abstractmethod
    async def _expose(self, service: S, deploy_id: str, name: str) -> str:
        """Make the endpoint of a resource, if it has none, and wait until both are ready; returns the URL."""

    async def _wait_ready(
        self, service: S, deploy_id: str, name: str, get: Callable[[], Awaitable[Any]], until: float
    ) -> Any:
        """Wait until what `get` returns is ready, to the time `until`; returns it.

        Raises:
            DeployError: it has failed, or was not ready in time.
        """
        seen = DeploymentState.STARTING.value

        async def look() -> Any:
            nonlocal seen
            found = await get()
            state, seen = service.state_of(found)
            if state is DeploymentState.DEAD:
                raise DeployError(f"{name} failed: {service.call.shown(seen)}; see {self._console(deploy_id)}")
            return found if state is DeploymentState.READY else None

        found = await wait_until(look, max(0, until - trio.current_time()))
        if found is None:
            raise DeployError(f"{name} was not ready in {self.deploy_timeout:g} s: it was {seen} at last")
        return found

    async def _undo(self, service: S, name: str, deploy_id: str | None, before: Any) -> None:
        """Delete the resource if it is new, else put the former one back. The first error is raised, not these."""
        try:
            if before is not None:
                await self._put_back(service, name, before)
                return
            # The call may have made it although its answer was lost.
            if deploy_id is None and (found := await service.find(name, None)) is not None:
                deploy_id = service.id_of(found)
            if deploy_id is not None:
                self._report(f"Deleting the {service.resource} {deploy_id}, which is not ready")
                await service.delete(deploy_id)
        except DeployError as error:
            self._report(f"This did not work: {error}")

    async def _put_back(self, service: S, name: str, before: Any) -> None:
        """Put the former code and environment back, if the service tells where they are."""

    def _done(self, deploy_id: str, name: str, url: str, wheel: Path, artifact: str, version: str | None) -> D:
        return self._deployment(
            deploy_id=deploy_id,
            url=url,
            resource_name=name,
            version=version,
            console_url=self._console(deploy_id) if deploy_id else "",
            wheel_path=str(wheel),
            artifact_url=artifact,
            message="the app is ready" if deploy_id else "the package was made, and not uploaded",
        )

    async def _publish(self, deploy_id: str, description: str | None) -> str:
        return await self._service().publish(deploy_id, description)

    async def _list(self) -> Sequence[DeploymentStatus]:
        service = self._service()
        found = [service.status_of(each, "") for each in await service.own()]
        return sorted(found, key=lambda status: status.started_at)

    async def _status(self, deploy_id: str) -> DeploymentStatus:
        service = self._service()
        return service.status_of(await service.get(deploy_id), await service.url(deploy_id))

    async def _stop(self, deploy_id: str) -> DeploymentStatus:
        service = self._service()
        found = await service.get(deploy_id)
        if not is_own(found):
            raise DeployError(f"{deploy_id} was not made by trio-agentapp; delete it at {self._console(deploy_id)}")
        self._report(f"Deleting the {service.resource} {deploy_id}")
        await service.delete(deploy_id)
        gone = await service.wait_gone(deploy_id, self.deploy_timeout)
        reason = None if gone else f"it is still being deleted after {self.deploy_timeout:g} s"
        return attrs.evolve(service.status_of(found, ""), state=DeploymentState.STOPPED, reason=reason)


def _checked(deploy_id: str) -> str:
    """Only what can be an id becomes a part of a URL."""
    if not ID.fullmatch(deploy_id):
        raise DeployError(f"there is no deployment {deploy_id!r}")
    return deploy_id
