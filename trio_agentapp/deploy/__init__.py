"""Puts an app somewhere: in a thread of this process, or in a process of its own."""

from ..protocol.deployment import Deployment, DeploymentMode, DeploymentState, DeploymentStatus
from .local import LocalDeployManager

__all__ = ["LocalDeployManager", "DeploymentMode", "Deployment", "DeploymentState", "DeploymentStatus"]
