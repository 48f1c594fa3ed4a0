"""The deploy manager of a target.

An id is of this machine; `k8s:NAME`, `knative:NAME`, `kruise:NAME`, also as `k8s:NAMESPACE/NAME`, are of a cluster;
`agentrun:ID`, `fc:NAME` and `modelstudio:ID` are of a cloud, the first two also as `fc:REGION/NAME`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from ..abc import DeployManager
    from ..deploy import KubernetesDeployManager

__all__ = ["CLUSTERS", "cluster_manager", "is_remote", "manager_at", "manager_of"]

CLUSTERS = ("k8s", "knative", "kruise")
REMOTE = (*CLUSTERS, "agentrun", "fc", "modelstudio")

PART = re.compile(r"\w[\w.-]*")


def is_remote(target: str) -> bool:
    """Whether it names a deployment of a cluster or a cloud."""
    return target.partition(":")[0] in REMOTE and ":" in target


def cluster_manager(platform: str) -> type[KubernetesDeployManager]:
    """The class that deploys to `k8s`, `knative` or `kruise`."""
    from ..deploy import KnativeDeployManager, KruiseDeployManager, KubernetesDeployManager

    return {"k8s": KubernetesDeployManager, "knative": KnativeDeployManager, "kruise": KruiseDeployManager}[
        platform
    ]


def manager_of(target: str) -> tuple[DeployManager, str]:
    """Return the manager and the id of a deployment. Raises ConfigurationError if `target` names none.

    The cluster is that of `KUBECONFIG` or `~/.kube/config`; a cloud is configured by the environment.
    """
    if not is_remote(target):
        return manager_at("local"), target
    platform, _, rest = target.partition(":")
    where, slash, name = rest.rpartition("/")
    # An empty name would mean all objects of a namespace to the server.
    if not PART.fullmatch(name) or (slash and not PART.fullmatch(where)):
        raise ConfigurationError(f"{target} names no deployment; use {platform}:NAME or {platform}:PLACE/NAME")
    return manager_at(platform, where), name


def manager_at(platform: str, where: str = "") -> DeployManager:
    """Return the manager of `local`, or of a namespace of a cluster, or of a region of a cloud."""
    if platform == "local":
        from ..deploy import LocalDeployManager

        return LocalDeployManager()
    if platform not in CLUSTERS:
        return _cloud(platform, where)
    from ..deploy.cluster import K8sConfig

    return cluster_manager(platform)(K8sConfig(k8s_namespace=where or "default"))


def _cloud(platform: str, region: str) -> DeployManager:
    import attrs

    from ..deploy import alibaba

    changes: dict[str, Any] = {"region_id": region} if region else {}
    match platform:
        case "agentrun":
            config = attrs.evolve(alibaba.AgentRunConfig.from_env(), **changes)
            return alibaba.AgentRunDeployManager(agentrun_config=config)
        case "fc":
            return alibaba.FCDeployManager(fc_config=attrs.evolve(alibaba.FCConfig.from_env(), **changes))
    return alibaba.ModelstudioDeployManager()
