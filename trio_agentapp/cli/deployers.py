"""The deploy manager of a target.

An id is of this machine, `k8s:NAME` and `k8s:NAMESPACE/NAME` of a cluster, and `agentrun:ID`, `fc:NAME` and
`modelstudio:ID` of a cloud; the first two can have a region: `fc:REGION/NAME`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..abc import DeployManager

__all__ = ["is_remote", "manager_of"]

REMOTE = ("k8s", "agentrun", "fc", "modelstudio")


def is_remote(target: str) -> bool:
    """Whether it names a deployment of a cluster or a cloud."""
    return target.partition(":")[0] in REMOTE and ":" in target


def manager_of(target: str) -> tuple[DeployManager, str]:
    """Return the manager and the id of a deployment.

    The cluster is that of `KUBECONFIG` or `~/.kube/config`; a cloud is configured by the environment.
    """
    if not is_remote(target):
        from ..deploy import LocalDeployManager

        return LocalDeployManager(), target
    platform, _, rest = target.partition(":")
    where, _, name = rest.rpartition("/")
    if platform != "k8s":
        return _cloud(platform, where), name
    from ..deploy.cluster import K8sConfig
    from ..deploy.kubernetes import KubernetesDeployManager

    return KubernetesDeployManager(K8sConfig(k8s_namespace=where or "default")), name


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
