"""What puts an app somewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from ..protocol.deployment import Deployment, DeploymentStatus

__all__ = ["DeployManager"]


class DeployManager(ABC):
    """Puts an app somewhere, and looks after what it has put there.

    Every method can be awaited from Trio and from asyncio. Options of `deploy` beyond the app are the
    implementation's; an unknown one is a `TypeError`.
    """

    @abstractmethod
    async def deploy(self, app: Any, **options: Any) -> Deployment:
        """Start a service of `app`; return when it answers that it is ready.

        Raises:
            DeployError: it could not start, ended, or was not ready in time. Nothing of it is left then.
        """

    @abstractmethod
    async def stop(self, deploy_id: str) -> DeploymentStatus:
        """End a deployment: no new runs, live ones finish or are stopped, and what does not end is ended by force.

        Returns when it is over; stopping one that has died forgets it.

        Raises:
            DeployError: there is no such deployment, or it could not be ended.
        """

    @abstractmethod
    async def status(self, deploy_id: str) -> DeploymentStatus:
        """How a deployment is doing; it is asked whether it is ready.

        Raises:
            DeployError: there is no such deployment.
        """

    @abstractmethod
    async def list(self) -> Sequence[DeploymentStatus]:
        """All deployments that are known, the oldest first."""
