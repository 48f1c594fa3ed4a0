"""What a deployer tells about what it has deployed."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import attrs

__all__ = ["Deployment", "DeploymentMode", "DeploymentState", "DeploymentStatus"]


class DeploymentMode(StrEnum):
    """Where a local deployment runs."""

    DAEMON_THREAD = "daemon_thread"
    """In this process, beside what it does; ends with it."""
    DETACHED_PROCESS = "detached_process"
    """In a process of its own, which outlives this one."""


class DeploymentState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    UNREADY = "unready"
    """It runs and takes no new runs at present."""
    DEAD = "dead"
    """It ended without having been told to; its record and its log are still there."""
    STOPPED = "stopped"


@attrs.frozen(kw_only=True)
class Deployment:
    """A service that is ready. `deployment["url"]` and `deployment.url` are the same."""

    deploy_id: str
    url: str
    """Reaches it from this machine, also when it listens on every address."""
    mode: str
    pid: int

    def __getitem__(self, name: str) -> Any:
        if name not in attrs.fields_dict(type(self)):
            raise KeyError(name)
        return getattr(self, name)


@attrs.frozen(kw_only=True)
class DeploymentStatus:
    """How a deployment is doing."""

    deploy_id: str
    state: DeploymentState
    url: str
    mode: str
    pid: int | None
    app_name: str
    entrypoint: str
    """What the service was started from; empty for one that runs in this process."""
    log: str
    """The path of its log; empty for one that writes to this process's."""
    started_at: float
    """Seconds since the epoch."""
    reason: str | None = None
    """Why it is not ready, or what had to be done to end it."""
