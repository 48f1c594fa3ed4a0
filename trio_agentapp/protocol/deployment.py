"""Deployments: what a deployer reports of the services that it has started."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import attrs

__all__ = ["Deployment", "DeploymentMode", "DeploymentState", "DeploymentStatus"]


class DeploymentMode(StrEnum):
    """Where a local deployment runs."""

    DAEMON_THREAD = "daemon_thread"
    """In a thread of this process; ends with it."""
    DETACHED_PROCESS = "detached_process"
    """In a process of its own, which outlives this one."""


class DeploymentState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    UNREADY = "unready"
    """It is running, and accepts no new runs at present."""
    DEAD = "dead"
    """It ended without a stop; its record and its log still exist."""
    STOPPED = "stopped"


@attrs.frozen(kw_only=True)
class Deployment:
    """A service that is ready. `deployment["url"]` and `deployment.url` are the same."""

    deploy_id: str
    url: str
    """A URL for this machine, also if the service listens on all addresses."""
    mode: str
    pid: int = 0
    """Of its process; 0 if it is elsewhere."""

    def __getitem__(self, name: str) -> Any:
        if name not in attrs.fields_dict(type(self)):
            raise KeyError(name)
        return getattr(self, name)


@attrs.frozen(kw_only=True)
class DeploymentStatus:
    """The state of a deployment."""

    deploy_id: str
    state: DeploymentState
    url: str
    mode: str
    pid: int | None = None
    app_name: str
    entrypoint: str = ""
    """What the service was started from; empty if it runs in this process."""
    log: str = ""
    """The path of its log; empty if it writes to the log of this process."""
    started_at: float
    """Seconds since the epoch."""
    reason: str | None = None
    """Why it is not ready, or how it was ended."""
