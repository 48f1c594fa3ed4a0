"""Puts an app somewhere: in a thread of this process, in a process of its own, or in a Kubernetes cluster."""

from ..protocol.deployment import Deployment, DeploymentMode, DeploymentState, DeploymentStatus
from .cluster import K8sConfig
from .kubernetes import KubernetesDeployManager
from .local import LocalDeployManager

__all__ = [
    "LocalDeployManager",
    "KubernetesDeployManager",
    "K8sConfig",
    "DeploymentMode",
    "Deployment",
    "DeploymentState",
    "DeploymentStatus",
]
