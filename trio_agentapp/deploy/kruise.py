"""`KruiseDeployManager` runs apps as sandboxes of OpenKruise Agents: one pod each, which can be paused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ConfigurationError
from .kubernetes import KubernetesDeployManager
from .manifests import ingress, network_policy, object_of, pod_of, service, service_account, template_of
from .platforms import Platform, condition_of
from .pods import pods_pending
from .workload import Workload

__all__ = ["KRUISE", "KruiseDeployManager"]


class _Kruise(Platform):
    mode = "kruise"
    kind = "Sandbox"
    kinds: Sequence[str] = ("Ingress", "Sandbox", "Service", "NetworkPolicy", "ServiceAccount")
    replaced_as_whole = True
    fixed_number = "a sandbox is one pod; use deploy k8s for several"

    def manifests(self, work: Workload) -> list[dict[str, Any]]:
        if work.replicas != 1 or work.max_replicas is not None or work.scale_to_zero:
            raise ConfigurationError("a sandbox is one pod; leave replicas, max_replicas and scale_to_zero out")
        found = [service_account(work), network_policy(work), service(work)]
        if work.ingress_host is not None:
            found.append(ingress(work))
        template = template_of(work, pod_of(work))
        return [*found, object_of(work, "agents.kruise.io/v1alpha1", "Sandbox", spec={"template": template})]

    def complete(self, found: Mapping[str, Any]) -> bool:
        return bool(condition_of(found, "Ready").get("status") == "True")

    def failure(self, found: Mapping[str, Any]) -> str | None:
        status = found.get("status") or {}
        if status.get("phase") not in ("Failed", "Succeeded"):
            return None
        return f"its pod has ended ({status['phase']}): {status.get('message') or 'without a message'}"

    def pending(self, found: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> str:
        status = found.get("status") or {}
        if found["spec"].get("paused"):
            return "the sandbox is paused; resume it: spec.paused must be false"
        return pods_pending(pods) or status.get("message") or f"the sandbox is {status.get('phase') or 'new'}"


KRUISE = _Kruise()


class KruiseDeployManager(KubernetesDeployManager):
    """As `KubernetesDeployManager`, with a Sandbox of OpenKruise Agents. Needs `trio-agentapp[kubernetes]`.

    A Sandbox is one pod. An update is another Sandbox: the former one drains first.
    """

    _platform = KRUISE
