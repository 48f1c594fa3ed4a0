"""The deploy manager of a target: this machine's, or a cluster's for `k8s:NAME` and `knative:NAMESPACE/NAME`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..abc import DeployManager
    from ..deploy import KubernetesDeployManager

__all__ = ["cluster_manager", "in_cluster", "manager_of"]

CLUSTERS = ("k8s", "knative", "kruise")


def in_cluster(target: str) -> bool:
    return target.partition(":")[0] in CLUSTERS


def cluster_manager(platform: str) -> type[KubernetesDeployManager]:
    """The class that deploys to `k8s`, `knative` or `kruise`."""
    from ..deploy import KnativeDeployManager, KruiseDeployManager, KubernetesDeployManager

    return {"k8s": KubernetesDeployManager, "knative": KnativeDeployManager, "kruise": KruiseDeployManager}[
        platform
    ]


def manager_of(target: str) -> tuple[DeployManager, str]:
    """Return the manager and the id of a deployment. The cluster is that of `KUBECONFIG` or `~/.kube/config`."""
    if not in_cluster(target):
        from ..deploy import LocalDeployManager

        return LocalDeployManager(), target
    from ..deploy.cluster import K8sConfig

    platform, _, place = target.partition(":")
    namespace, _, name = place.rpartition("/")
    return cluster_manager(platform)(K8sConfig(k8s_namespace=namespace or "default")), name
