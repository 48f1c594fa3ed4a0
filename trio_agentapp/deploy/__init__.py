"""Deploys an app: as a thread of this process, as a process of its own, into a cluster, or into a cloud."""

from ..protocol.deployment import Deployment, DeploymentMode, DeploymentState, DeploymentStatus
from .alibaba.agentrun import AgentRunDeployManager
from .alibaba.configs import (
    AgentRunConfig,
    FCConfig,
    LogConfig,
    ModelstudioConfig,
    NetworkConfig,
    OSSConfig,
    VPCConfig,
)
from .alibaba.fc import FCDeployManager
from .alibaba.modelstudio import ModelstudioDeployManager
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
