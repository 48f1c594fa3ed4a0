"""The contract of deploy managers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from ..errors import DeployError
from ..protocol.deployment import Deployment, DeploymentStatus

__all__ = ["DeployManager"]


class DeployManager(ABC):
    """Starts services of an app, and manages them.

    Every method can be awaited from Trio and from asyncio. An implementation defines its own options of `deploy`;
    an unknown option is a `TypeError`.
    """

    @abstractmethod
    async def deploy(self, app: Any, **options: Any) -> Deployment:
        """Start a service of `app`. Return when it is ready.

        Raises:
            DeployError: it could not start, ended, or was not ready in time. Everything that was started is
                removed then.
        """

    @abstractmethod
    async def stop(self, deploy_id: str) -> DeploymentStatus:
        """End a deployment: it refuses new runs, live runs finish or are stopped, and at last it is killed.

        Return when it has ended. The record of a deployment that has died is removed.

        Raises:
            DeployError: there is no such deployment, or it could not be ended.
        """

    @abstractmethod
    async def status(self, deploy_id: str) -> DeploymentStatus:
        """Return the state of a deployment, after asking whether it is ready.

        Raises:
            DeployError: there is no such deployment.
        """

    @abstractmethod
    async def list(self) -> Sequence[DeploymentStatus]:
        """Return all known deployments, the oldest first."""

    async def logs(self, deploy_id: str, *, lines: int = 100) -> str:
        """Return the last lines of the log of a deployment.

        Raises:
            DeployError: there is no such deployment, or this manager keeps no logs.
        """
        raise DeployError(f"{type(self).__name__} keeps no logs of {deploy_id}")

    async def scale(self, deploy_id: str, replicas: int) -> DeploymentStatus:
        """Change the number of processes or pods. Those that are removed drain first.

        Raises:
            DeployError: there is no such deployment, or this manager cannot change the number.
        """
        raise DeployError(f"{type(self).__name__} cannot change the number of processes of {deploy_id}")
