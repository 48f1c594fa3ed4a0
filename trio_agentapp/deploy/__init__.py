"""Puts an app somewhere: in a thread of this process, in a process of its own, or in a cluster."""

from ..protocol.deployment import Deployment, DeploymentMode, DeploymentState, DeploymentStatus
from .cluster import K8sConfig
from .images import RegistryConfig
from .knative import KnativeDeployManager
from .kruise import KruiseDeployManager
from .kubernetes import KubernetesDeployManager
from .local import LocalDeployManager

__all__ = [
    "LocalDeployManager",
    "KubernetesDeployManager",
    "KnativeDeployManager",
    "KruiseDeployManager",
    "K8sConfig",
    "RegistryConfig",
    "DeploymentMode",
    "Deployment",
    "DeploymentState",
    "DeploymentStatus",
]
