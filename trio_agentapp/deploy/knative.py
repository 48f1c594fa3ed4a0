"""`KnativeDeployManager` runs apps as services of Knative, which counts requests and makes pods for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ConfigurationError
from .kubernetes import KubernetesDeployManager
from .manifests import USER, container_of, object_of, placement_of, service_account, template_of
from .platforms import Platform, condition_of
from .pods import pods_pending
from .workload import Workload

__all__ = ["KNATIVE", "KnativeDeployManager"]

LONGEST_REQUEST = 600
"""Seconds: the default of `max-revision-timeout-seconds`, beyond which Knative refuses a service. It is also the
grace period of its pods, so an app that may take longer to end asks for more, and the cluster has to allow it."""

RESERVED_PORTS = (8008, 8012, 8013, 8022, 9090, 9091)
"""Ports of the proxy that Knative puts beside the app."""

SCRATCH = "/scratch"
"""The writable folder: Knative lets nobody mount `/tmp`."""

START_FAILURES = 18
"""Three minutes of a start, as failures of a probe every ten seconds: some versions have no startup probe."""


class _Knative(Platform):
    mode = "knative"
    kind = "KnativeService"
    kinds: Sequence[str] = ("KnativeService", "ServiceAccount")
    fixed_number = "Knative decides it by requests; deploy again with other --replicas and --max-replicas"

    def manifests(self, work: Workload) -> list[dict[str, Any]]:
        _check(work)
        least = 0 if work.scale_to_zero else work.replicas
        scale = {"min-scale": str(least), "max-scale": str(work.max_replicas or work.replicas)}
        annotations = {f"autoscaling.knative.dev/{name}": value for name, value in scale.items()}
        template = template_of(work, _pod(work), annotations)
        knative = object_of(work, "serving.knative.dev/v1", "Service", spec={"template": template})
        return [service_account(work), knative]

    def grace_period(self, found: Mapping[str, Any]) -> int:
        return int(found["spec"]["template"]["spec"]["timeoutSeconds"])

    def url(self, found: Mapping[str, Any]) -> str:
        return (found.get("status") or {}).get("url") or super().url(found)

    def complete(self, found: Mapping[str, Any]) -> bool:
        return bool(condition_of(found, "Ready").get("status") == "True")

    def failure(self, found: Mapping[str, Any]) -> str | None:
        ready = condition_of(found, "Ready")
        if ready.get("status") != "False":
            return None
        return f"Knative cannot start it ({ready.get('reason')}): {ready.get('message')}"

    def pending(self, found: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> str:
        ready = condition_of(found, "Ready")
        return pods_pending(pods) or ready.get("message") or ready.get("reason") or "Knative has not begun"


def _check(work: Workload) -> None:
    if work.ingress_host is not None:
        raise ConfigurationError("Knative has its own ingress; make a DomainMapping, and leave --ingress-host out")
    if work.port in RESERVED_PORTS:
        raise ConfigurationError(f"port {work.port} belongs to Knative's proxy; choose another one: --port 8090")
    if work.scale_to_zero and not work.several:
        raise ConfigurationError(
            "the sessions of the app are in its memory and end with its last pod, so it cannot be scaled to zero; "
            "name the Secret with the URL of Redis: --redis-secret NAME"
        )


def _pod(work: Workload) -> dict[str, Any]:
    """The pod without what Knative refuses: it sets `PORT`, the end of pods, and where they run, by itself."""
    container = container_of(work)
    for field in ("lifecycle", "startupProbe"):
        del container[field]
    variables = [each for each in container["env"] if each["name"] != "PORT"]
    path = {"path": "/readiness"}
    container |= {
        "ports": [{"containerPort": work.port}],
        "env": [*variables, {"name": "TMPDIR", "value": SCRATCH}],
        # Without a port: Knative asks through its proxy.
        "readinessProbe": {**container["readinessProbe"], "httpGet": path},
        "livenessProbe": {
            **container["livenessProbe"],
            "httpGet": {"path": "/liveness"},
            "failureThreshold": START_FAILURES,
        },
        "securityContext": {
            **container["securityContext"],
            # Those of the pod are a feature that is off in most clusters.
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": SCRATCH}],
    }
    return {
        "serviceAccountName": work.name,
        "enableServiceLinks": False,
        "timeoutSeconds": max(LONGEST_REQUEST, work.grace_period),
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}],
        **placement_of(work),
    }


KNATIVE = _Knative()


class KnativeDeployManager(KubernetesDeployManager):
    """As `KubernetesDeployManager`, with a service of Knative. Needs `trio-agentapp[kubernetes]`.

    `replicas` is the least number of pods, `max_replicas` the most. With `scale_to_zero` no pod runs while nobody
    asks. A request, and so a stream, ends after ten minutes; the client comes back to it.
    """

    _platform = KNATIVE
