"""Puts apps into the serverless services of Alibaba Cloud: ModelStudio, AgentRun and Function Compute.

They are tested against the requests that the official SDKs send, not in the cloud.
"""

from .agentrun import AgentRunDeployManager
from .configs import (
    AgentRunConfig,
    FCConfig,
    LogConfig,
    ModelstudioConfig,
    NetworkConfig,
    OSSConfig,
    VPCConfig,
)
from .fc import FCDeployManager
from .modelstudio import ModelstudioDeployManager

__all__ = [
    "ModelstudioDeployManager",
    "AgentRunDeployManager",
    "FCDeployManager",
    "ModelstudioConfig",
    "AgentRunConfig",
    "FCConfig",
    "OSSConfig",
    "LogConfig",
    "NetworkConfig",
    "VPCConfig",
]
