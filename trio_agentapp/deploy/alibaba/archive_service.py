"""What the services that run code archives have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar

from ...protocol.deployment import DeploymentState, DeploymentStatus
from .api import Api
from .calls import Missing, wait_until
from .configs import InstanceConfig

__all__ = ["OURS", "PAGE", "PAGES", "PORT", "ArchiveService", "is_own"]

PORT = 8090

PAGE = 100
PAGES = range(1, 101)
"""Entries of a page of a list, and the numbers of the pages that are read at most."""

OURS = "Made by trio-agentapp"
"""The description of what deploy managers make. They delete nothing else."""


class ArchiveService(Api, ABC):
    """A service that runs an app from a code archive. What it keeps of an app is a resource.

    Every method raises as `Calls` does.
    """

    resource: ClassVar[str]
    """The service's word for it, such as `agent runtime`."""
    kind: ClassVar[str]
    """The same as the SDK spells it in its classes, such as `AgentRuntime`."""
    config: InstanceConfig

    @abstractmethod
    def settings(self, bucket: str, key: str, environment: Mapping[str, str]) -> dict[str, Any]:
        """What is set when a resource is made or updated, spelt as in JSON. `key`: of the archive in the bucket."""

    @abstractmethod
    def id_of(self, found: Any) -> str: ...

    @abstractmethod
    def state_of(self, found: Any) -> tuple[DeploymentState, str]:
        """The state of a resource, and the service's text for it."""

    @abstractmethod
    def status_of(self, found: Any, url: str) -> DeploymentStatus: ...

    @abstractmethod
    async def find(self, name: str, deploy_id: str | None) -> Any:
        """The resource that a deployment updates; None if it has to be made.

        It is the one of this id, which must exist, else that of this name, which must be one of this package.
        """

    @abstractmethod
    async def url(self, deploy_id: str) -> str:
        """The URL of an app; empty if there is none."""

    @abstractmethod
    async def own(self) -> Sequence[Any]:
        """The resources that this package made."""

    @abstractmethod
    async def publish(self, deploy_id: str, description: str | None) -> str:
        """Make the code an unchangeable version; returns its number."""

    async def create(self, name: str, settings: Mapping[str, Any]) -> str:
        """Make a resource; returns its id."""
        named = {f"{self.kind[0].lower()}{self.kind[1:]}Name": name, **settings}
        made = await self._do("making", "create", name, self.request(f"Create{self.kind}", named), repeatable=False)
        return self.id_of(made)

    async def get(self, deploy_id: str) -> Any:
        return await self._do("looking for", "get", deploy_id, deploy_id, self.request(f"Get{self.kind}"))

    async def update(self, deploy_id: str, settings: Mapping[str, Any]) -> None:
        request = self.request(f"Update{self.kind}", settings)
        await self._do("updating", "update", deploy_id, deploy_id, request)

    async def delete(self, deploy_id: str) -> None:
        """Delete a resource with its endpoint. It is no error if they are gone."""
        with suppress(Missing):
            await self._do("deleting", "delete", deploy_id, deploy_id)

    async def wait_gone(self, deploy_id: str, timeout: float) -> bool:
        """Wait until a resource that is being deleted is gone; False if it is there after `timeout` seconds."""

        async def gone() -> bool | None:
            try:
                await self.get(deploy_id)
            except Missing:
                return True
            return None

        return await wait_until(gone, timeout) is not None

    async def _do(self, doing: str, verb: str, name: str, *args: Any, repeatable: bool = True) -> Any:
        method = f"{verb}_{self.resource.replace(' ', '_')}"
        return await self.do(f"{doing} the {self.resource} {name}", method, *args, repeatable=repeatable)


def is_own(found: Any) -> bool:
    return str(found.description or "").startswith(OURS)
