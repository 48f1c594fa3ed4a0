"""What keeps the pods of an app in a cluster. Here Deployments; `knative.py` and `kruise.py` have the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ConfigurationError
from .manifests import manifests
from .pods import pods_pending
from .workload import Workload

__all__ = ["DEPLOYMENTS", "Platform", "condition_of"]


class Platform:
    """The objects of an app whose pods belong to a Deployment."""

    mode = "kubernetes"
    kind = "Deployment"
    """Of the object that has the pods; as `Cluster` names it."""
    kinds: Sequence[str] = (
        "HorizontalPodAutoscaler",
        "Ingress",
        "Deployment",
        "Service",
        "PodDisruptionBudget",
        "NetworkPolicy",
        "ServiceAccount",
    )
    """All kinds of objects, in the order in which they are deleted."""
    replaced_as_whole = False
    """Whether an update is another object, because its pods do not follow its template."""
    fixed_number: str | None = None
    """Why the number of pods cannot be changed; None if it can."""

    def manifests(self, work: Workload) -> list[dict[str, Any]]:
        """Return the objects in the order in which they are applied: that of `kind` comes last.

        Raises:
            ConfigurationError: the platform cannot do what `work` asks for.
        """
        if work.scale_to_zero:
            raise ConfigurationError("--scale-to-zero is for Knative; a Deployment has one pod at least")
        return manifests(work)

    def grace_period(self, found: Mapping[str, Any]) -> int:
        """Seconds that a pod has to end."""
        return int(found["spec"]["template"]["spec"].get("terminationGracePeriodSeconds", 30))

    def url(self, found: Mapping[str, Any]) -> str:
        """The URL inside the cluster."""
        return f"http://{found['metadata']['name']}.{found['metadata']['namespace']}.svc"

    def complete(self, found: Mapping[str, Any]) -> bool:
        """Whether all pods are of the newest version and available, as `kubectl rollout status` decides it."""
        status = found.get("status") or {}
        wanted = found["spec"].get("replicas", 1)
        if status.get("observedGeneration", 0) < found["metadata"].get("generation", 0):
            return False
        counts = [status.get(name) or 0 for name in ("updatedReplicas", "replicas", "availableReplicas")]
        return counts == [wanted] * 3 and ("availableReplicas" in status or wanted == 0)

    def failure(self, found: Mapping[str, Any]) -> str | None:  # noqa: ARG002  for those whose objects say it
        """Why the object itself says that it will not be ready; None if it does not."""
        return None

    def pending(self, found: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> str:
        """What it waits for."""
        if (unplaced := pods_pending(pods)) is not None:
            return unplaced
        for condition in (found.get("status") or {}).get("conditions") or ():
            if condition.get("type") == "ReplicaFailure":
                return f"its pods are refused ({condition.get('message')})"
        status = found.get("status") or {}
        return f"{status.get('availableReplicas') or 0} of {found['spec'].get('replicas', 1)} pods are ready"


DEPLOYMENTS = Platform()


def condition_of(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A condition of its newest generation; empty if there is none."""
    status = found.get("status") or {}
    if status.get("observedGeneration", 0) < found["metadata"].get("generation", 0):
        return {}
    return next((each for each in status.get("conditions") or () if each.get("type") == name), {})
