"""The deploy manager of a target.

An id is of this machine; `k8s:NAME`, `knative:NAME`, `kruise:NAME`, also as `k8s:NAMESPACE/NAME`, are of a cluster;
`agentrun:ID`, `fc:NAME` and `modelstudio:ID` are of a cloud, the first two also as `fc:REGION/NAME`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from ..abc import DeployManager
    from ..deploy import KubernetesDeployManager

__all__ = ["CLUSTERS", "Platform", "cloud_manager", "cluster_manager", "is_remote", "manager_at", "manager_of"]

Cluster = Literal["k8s", "knative", "kruise"]
Cloud = Literal["agentrun", "fc", "modelstudio"]
Platform = Literal["local", Cluster, Cloud]

CLUSTERS, CLOUDS = get_args(Cluster), get_args(Cloud)

PART = re.compile(r"\w[\w.-]*")


def is_remote(target: str) -> bool:
    """Whether it names a deployment of a cluster or a cloud."""
    return target.partition(":")[0] in CLUSTERS + CLOUDS and ":" in target


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
    if platform in CLOUDS:
        return cloud_manager(platform, region=where or None)[0]
    from ..deploy.cluster import K8sConfig

    return cluster_manager(platform)(K8sConfig(k8s_namespace=where or "default"))


def cloud_manager(
    platform: str,
    *,
    region: str | None = None,
    cpu: float | None = None,
    memory: int | None = None,
    **options: Any,
) -> tuple[DeployManager, str]:
    """Return the manager of a cloud, and the begin of its targets. `options` are those of the manager.

    What is None is configured by the environment.
    """
    import attrs

    from .. import deploy

    given = {"region_id": region, "cpu": cpu, "memory": memory}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    match platform:
        case "agentrun":
            runtime = attrs.evolve(deploy.AgentRunConfig.from_env(), **changes)
            return deploy.AgentRunDeployManager(
                agentrun_config=runtime, **options
            ), f"agentrun:{runtime.region_id}/"
        case "fc":
            function = attrs.evolve(deploy.FCConfig.from_env(), **changes)
            return deploy.FCDeployManager(fc_config=function, **options), f"fc:{function.region_id}/"
    return deploy.ModelstudioDeployManager(**options), "modelstudio:"
