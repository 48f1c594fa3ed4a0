"""The deploy manager of a target: this machine's, or a cluster's for `k8s:NAME` and `k8s:NAMESPACE/NAME`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..abc import DeployManager

__all__ = ["in_cluster", "manager_of"]

PREFIX = "k8s:"


def in_cluster(target: str) -> bool:
    return target.startswith(PREFIX)


def manager_of(target: str) -> tuple[DeployManager, str]:
    """Return the manager and the id of a deployment. The cluster is that of `KUBECONFIG` or `~/.kube/config`."""
    if not in_cluster(target):
        from ..deploy import LocalDeployManager

        return LocalDeployManager(), target
    from ..deploy.cluster import K8sConfig
    from ..deploy.kubernetes import KubernetesDeployManager

    namespace, _, name = target.removeprefix(PREFIX).rpartition("/")
    return KubernetesDeployManager(K8sConfig(k8s_namespace=namespace or "default")), name
