"""Puts an app somewhere: a thread of this process, a process of its own, a Kubernetes cluster, or a cloud."""

from ..protocol.deployment import Deployment, DeploymentMode, DeploymentState, DeploymentStatus
from .alibaba import (
    AgentRunConfig,
    AgentRunDeployManager,
    FCConfig,
    FCDeployManager,
    LogConfig,
    ModelstudioConfig,
    ModelstudioDeployManager,
    NetworkConfig,
    OSSConfig,
    VPCConfig,
)
from .cluster import K8sConfig
from .kubernetes import KubernetesDeployManager
from .local import LocalDeployManager

__all__ = [
    "LocalDeployManager",
    "KubernetesDeployManager",
    "K8sConfig",
    "ModelstudioDeployManager",
    "ModelstudioConfig",
    "AgentRunDeployManager",
    "AgentRunConfig",
    "FCDeployManager",
    "FCConfig",
    "OSSConfig",
    "LogConfig",
    "NetworkConfig",
    "VPCConfig",
    "DeploymentMode",
    "Deployment",
    "DeploymentState",
    "DeploymentStatus",
]
