"""What deploy managers have in common whose services run a code archive."""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from ...abc import DeployManager
from ...errors import DeployError
from ...protocol.deployment import Deployment, DeploymentStatus
from ..asyncio_bridge import run_trio
from .archive import archive_of
from .configs import OSSConfig
from .source import Source

__all__ = ["DEPLOY_TIMEOUT", "OURS", "UNDO_TIMEOUT", "ArchiveDeployManager", "ArchiveDeployment", "is_own"]

DEPLOY_TIMEOUT = 300.0
UNDO_TIMEOUT = 60.0
"""Seconds for deleting what a failed deployment has made."""

PORT = 8090

ID = re.compile(r"[\w-]{1,128}", re.ASCII)

OURS = "Made by trio-agentapp"
"""The description of what these managers make. They delete nothing else."""


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


class ArchiveDeployManager(DeployManager):
    """The service has the records. Each method can be awaited from Trio and from asyncio.

    `build_root`: the folder for packages. `deploy_timeout`: the seconds in which the app must be ready.
    `index_url`: the package index. `report` is called with the name of each step.
    """

    def __init__(
        self,
        oss_config: OSSConfig | None = None,
        build_root: str | os.PathLike[str] | None = None,
        *,
        deploy_timeout: float = DEPLOY_TIMEOUT,
        index_url: str | None = None,
        report: Callable[[str], object] = lambda _: None,
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
        found = await run_trio(self._list)
        return sorted(found, key=lambda status: status.started_at)

    async def stop(self, deploy_id: str) -> DeploymentStatus:
        """Delete the deployment with its endpoint, and wait until it is gone. The archive in the bucket is kept.

        The service ends the instances: runs that are alive then are cut.
        """
        return await run_trio(self._stop, _checked(deploy_id))

    async def delete(self, deploy_id: str) -> DeploymentStatus:
        """The same as `stop`."""
        return await self.stop(deploy_id)

    # The methods below need Trio.

    @abstractmethod
    async def _publish(self, deploy_id: str, description: str | None) -> str: ...

    @abstractmethod
    async def _status(self, deploy_id: str) -> DeploymentStatus: ...

    @abstractmethod
    async def _list(self) -> Sequence[DeploymentStatus]: ...

    @abstractmethod
    async def _stop(self, deploy_id: str) -> DeploymentStatus: ...

    async def _package(
        self, given: Source, name: str, folder: Path, options: Mapping[str, Any]
    ) -> tuple[Path, Path]:
        """Make wheel and archive of the app."""
        wheel = await given.wheel(folder, self._report, name=name, port=PORT, **options)
        return wheel, await archive_of(wheel, folder, index_url=self.index_url, report=self._report)


def _checked(deploy_id: str) -> str:
    """Only what can be an id becomes a part of a URL."""
    if not ID.fullmatch(deploy_id):
        raise DeployError(f"there is no deployment {deploy_id!r}")
    return deploy_id


def is_own(found: Any) -> bool:
    return str(found.description or "").startswith(OURS)
