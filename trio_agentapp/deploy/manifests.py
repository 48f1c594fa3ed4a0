"""The Kubernetes objects of one app, as plain data. Nothing here needs a cluster or its client."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from ..errors import ConfigurationError
from .extras import needed

__all__ = [
    "MANAGED_BY",
    "PLATFORM",
    "USER",
    "Workload",
    "as_yaml",
    "container_of",
    "ingress",
    "manifests",
    "network_policy",
    "object_of",
    "placement_of",
    "pod_of",
    "service",
    "service_account",
    "template_of",
]

MANAGED_BY = "trio-agentapp"
PLATFORM = f"{MANAGED_BY}/platform"
"""Label with the mode of the deploy manager that made an object."""

REDIS_VARIABLE = "AGENTAPP_INTERRUPT_REDIS_URL"

PRE_STOP = 5
"""Seconds between the begin of a pod's end and SIGTERM, in which balancers see that it ends."""

WATCHDOG = 11
"""Seconds beyond drain and two cleanups after which the launcher ends a process that hangs."""

MARGIN = 5
START_PERIOD, START_FAILURES = 2, 90
"""Three minutes. Loading a model may take long, and after a restart of Redis the app waits for leases to expire."""

USER = 10001
NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LONGEST_NAME = 50
"""A Service allows 63 characters, and names of pods and of the Secret of the environment are longer than this."""

QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|k|Ki|M|Mi|G|Gi|T|Ti)?")
UNITS = {"m": 1e-3, "k": 1e3, "Ki": 2**10, "M": 1e6, "Mi": 2**20, "G": 1e9, "Gi": 2**30, "T": 1e12, "Ti": 2**40}

IMAGE = re.compile(r"[^\s@]+(@sha256:[0-9a-f]{64})?")
"""Only what is surely wrong is refused: a blank, and the name or password of a user."""

DNS = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
"""Names of hosts and of Secrets: "DNS subdomain" in the documentation of Kubernetes."""

# Names of annotations of ingress-nginx. Without them it collects events, and closes a quiet stream after 60 s.
STREAMING = {
    "nginx.ingress.kubernetes.io/proxy-buffering": "off",
    "nginx.ingress.kubernetes.io/proxy-request-buffering": "off",
    "nginx.ingress.kubernetes.io/proxy-http-version": "1.1",
    "nginx.ingress.kubernetes.io/proxy-read-timeout": "3600",
    "nginx.ingress.kubernetes.io/proxy-send-timeout": "3600",
    "nginx.ingress.kubernetes.io/proxy-body-size": "2m",
}


@attrs.frozen(kw_only=True)
class Workload:
    """One app in a cluster. Checked when it is made.

    Raises:
        ConfigurationError: a value cannot be used.
    """

    name: str
    image: str
    namespace: str = "default"
    port: int = 8090
    replicas: int = 1
    max_replicas: int | None = None
    """With it, a HorizontalPodAutoscaler keeps the number between `replicas` and this, by CPU."""
    shared: bool = False
    """Whether nodes share their sessions, so that there may be several."""
    drain_timeout: float = 30.0
    cleanup_budget: float = 30.0
    redis_secret: str | None = None
    """Name and key of the Secret with the URL of Redis, as `name` or `name:key`; the key is `url` by default."""
    secrets: Sequence[str] = ()
    """Names of Secrets whose keys become environment variables."""
    environment_digest: str | None = None
    """Changes when the environment changes, so that pods are replaced."""
    cpu_request: str = "200m"
    cpu_limit: str | None = None
    memory_request: str = "512Mi"
    memory_limit: str = "2Gi"
    image_pull_policy: str = "IfNotPresent"
    image_pull_secret: str | None = None
    node_selector: Mapping[str, str] | None = None
    """Labels of the machines on which pods may run."""
    scale_to_zero: bool = False
    """Knative alone: end the last pod while nobody asks."""
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    """More labels and annotations of all objects."""
    tolerations: Sequence[Mapping[str, Any]] = ()
    """Taints of machines that pods tolerate, spelt as in a pod."""
    ingress_host: str | None = None
    ingress_class: str = "nginx"
    tls_secret: str | None = None

    def __attrs_post_init__(self) -> None:
        for what, name in (("name", self.name), ("namespace", self.namespace)):
            if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
                raise ConfigurationError(
                    f"{what} {name!r} cannot be used in Kubernetes: use at most {LONGEST_NAME} small letters, "
                    "digits and -, beginning with a letter and not ending with -"
                )
        for what in ("cpu_request", "cpu_limit", "memory_request", "memory_limit"):
            value = getattr(self, what)
            if value is not None and not QUANTITY.fullmatch(value):
                raise ConfigurationError(f"{what} {value!r} is not a quantity such as 500m or 2Gi")
        for what in ("cpu", "memory"):
            request, limit = getattr(self, f"{what}_request"), getattr(self, f"{what}_limit")
            if limit is not None and _amount(request) > _amount(limit):
                raise ConfigurationError(
                    f"{what}_request {request} is more than {what}_limit {limit}; raise the limit, too"
                )
        if not IMAGE.fullmatch(self.image):
            raise ConfigurationError("image is not the name of an image, such as registry.example.com/team/name:1")
        for what, name in self._dns_names():
            if not DNS.fullmatch(name):
                raise ConfigurationError(
                    f"{what} {name!r} cannot be used in Kubernetes: use small letters, digits, - and ., beginning "
                    "and ending with a letter or digit"
                )
        if not 1024 <= self.port <= 65535:
            raise ConfigurationError(
                f"port must be a number from 1024 to 65535, not {self.port}: the app is not root"
            )
        if self.replicas < 1 or (self.max_replicas or self.replicas) < self.replicas:
            raise ConfigurationError(
                f"replicas must be 1 or more, and max_replicas not less; not {self.replicas} and "
                f"{self.max_replicas}"
            )
        if (self.max_replicas or self.replicas) > 1 and not self.shared and self.redis_secret is None:
            raise ConfigurationError(
                "several pods would not know of each other's runs, and a stop could reach the wrong one; name the "
                "Secret with the URL of Redis: --redis-secret NAME"
            )
        if self.image_pull_policy not in ("Always", "IfNotPresent", "Never"):
            raise ConfigurationError(
                f"image_pull_policy {self.image_pull_policy!r} is not one of Always, IfNotPresent and Never"
            )

    def _dns_names(self) -> list[tuple[str, str]]:
        names = [
            ("ingress_host", self.ingress_host and self.ingress_host.removeprefix("*.")),
            ("redis_secret", self.redis_secret and self.redis_secret.partition(":")[0]),
            ("tls_secret", self.tls_secret),
            ("image_pull_secret", self.image_pull_secret),
            *(("secret", name) for name in self.secrets),
        ]
        return [(what, name) for what, name in names if name is not None]

    @property
    def several(self) -> bool:
        return self.shared or self.redis_secret is not None

    @property
    def grace_period(self) -> int:
        """Seconds from the begin of a pod's end to SIGKILL: longer than the watchdog of the launcher waits."""
        return PRE_STOP + math.ceil(self.drain_timeout + 2 * self.cleanup_budget) + WATCHDOG + MARGIN

    @property
    def selector(self) -> dict[str, str]:
        return {"app.kubernetes.io/name": self.name, "app.kubernetes.io/instance": self.name}


def _amount(quantity: str) -> float:
    found = QUANTITY.fullmatch(quantity)
    return float(found[1]) * UNITS.get(found[2], 1) if found else 0.0


def manifests(work: Workload) -> list[dict[str, Any]]:
    """Return the objects in the order in which they are applied: the Deployment comes last."""
    found = [service_account(work), network_policy(work), service(work), _budget(work)]
    if work.ingress_host is not None:
        found.append(ingress(work))
    if work.max_replicas is not None:
        found.append(_autoscaler(work))
    return [*found, _deployment(work)]


def as_yaml(objects: Sequence[dict[str, Any]]) -> str:
    """Write YAML documents, for kubectl and Kustomize."""
    text: str = needed("yaml", "build").safe_dump_all(objects, sort_keys=False, width=120, explicit_start=True)
    return text


def _labels(work: Workload) -> dict[str, str]:
    return {**work.labels, **work.selector, "app.kubernetes.io/managed-by": MANAGED_BY}


def object_of(work: Workload, version: str, kind: str, **parts: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": work.name, "namespace": work.namespace, "labels": _labels(work)}
    if annotations := {**work.annotations, **parts.pop("annotations", {})}:
        metadata["annotations"] = annotations
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **parts}


def service_account(work: Workload) -> dict[str, Any]:
    # The app calls no API of the cluster, so a handler that is tricked finds no token.
    return object_of(work, "v1", "ServiceAccount", automountServiceAccountToken=False)


def service(work: Workload) -> dict[str, Any]:
    port = {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}
    return object_of(work, "v1", "Service", spec={"type": "ClusterIP", "selector": work.selector, "ports": [port]})


def _budget(work: Workload) -> dict[str, Any]:
    # Not minAvailable: with one pod that would block the drain of its machine for ever.
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": work.selector}}
    return object_of(work, "policy/v1", "PodDisruptionBudget", spec=spec)


def network_policy(work: Workload) -> dict[str, Any]:
    sources: list[dict[str, Any]] = [{"podSelector": {}}]
    if work.ingress_host is not None:
        # Controllers live in a namespace of their own, whose name differs between installations.
        sources = [{"namespaceSelector": {}}]
    # All but the metadata service of clouds, which gives credentials of the machine to each client.
    everywhere = [
        {"namespaceSelector": {}},
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]}},
        {"ipBlock": {"cidr": "::/0", "except": ["fd00:ec2::254/128"]}},
    ]
    spec = {
        "podSelector": {"matchLabels": work.selector},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": sources, "ports": [{"port": work.port, "protocol": "TCP"}]}],
        "egress": [{"to": everywhere}],
    }
    return object_of(work, "networking.k8s.io/v1", "NetworkPolicy", spec=spec)


def ingress(work: Workload) -> dict[str, Any]:
    backend = {"service": {"name": work.name, "port": {"name": "http"}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    spec: dict[str, Any] = {
        "ingressClassName": work.ingress_class,
        "rules": [{"host": work.ingress_host, "http": {"paths": [path]}}],
    }
    if work.tls_secret is not None:
        spec["tls"] = [{"hosts": [work.ingress_host], "secretName": work.tls_secret}]
    return object_of(work, "networking.k8s.io/v1", "Ingress", spec=spec, annotations=STREAMING)


def _autoscaler(work: Workload) -> dict[str, Any]:
    metric = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}},
    }
    slow = {"stabilizationWindowSeconds": 300, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": work.name},
        "minReplicas": work.replicas,
        "maxReplicas": work.max_replicas,
        "metrics": [metric],
        # Each pod that goes drains live runs first.
        "behavior": {"scaleDown": slow},
    }
    return object_of(work, "autoscaling/v2", "HorizontalPodAutoscaler", spec=spec)


def _deployment(work: Workload) -> dict[str, Any]:
    # Without a shared Redis two versions at once would each know only their own sessions.
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    spec: dict[str, Any] = {
        "revisionHistoryLimit": 5,
        "progressDeadlineSeconds": START_PERIOD * START_FAILURES + 120,
        "strategy": rolling if work.several else {"type": "Recreate"},
        "selector": {"matchLabels": work.selector},
        "template": template_of(work, pod_of(work)),
    }
    if work.max_replicas is None:
        # Otherwise the autoscaler decides, and a second `apply` must not reset its number.
        spec["replicas"] = work.replicas
    return object_of(work, "apps/v1", "Deployment", spec=spec)


def template_of(
    work: Workload, pod: dict[str, Any], annotations: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The template of pods: `pod` with labels, one of which tells its pods from those of former versions."""
    given = dict(annotations or {})
    if work.environment_digest is not None:
        given[f"{MANAGED_BY}/environment"] = work.environment_digest
    # Not in the selector, which cannot change.
    revision = hashlib.sha256(json.dumps([pod, given], sort_keys=True).encode()).hexdigest()[:12]
    metadata: dict[str, Any] = {"labels": {**_labels(work), f"{MANAGED_BY}/revision": revision}}
    if given:
        metadata["annotations"] = given
    return {"metadata": metadata, "spec": pod}


def pod_of(work: Workload) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "serviceAccountName": work.name,
        "automountServiceAccountToken": False,
        # Variables of services would be taken for settings: a service named `agentapp` sets such ones.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": work.grace_period,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": key,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": work.selector},
            }
            for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
        ],
        "containers": [container_of(work)],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}],
    }
    return spec | placement_of(work)


def placement_of(work: Workload) -> dict[str, Any]:
    """Where pods may run, and how their image is got; only what is given."""
    found = {
        "imagePullSecrets": [{"name": work.image_pull_secret}] if work.image_pull_secret else None,
        "nodeSelector": dict(work.node_selector or {}),
        "tolerations": [dict(each) for each in work.tolerations],
    }
    return {name: value for name, value in found.items() if value}


def container_of(work: Workload) -> dict[str, Any]:
    environment: list[dict[str, Any]] = [
        {"name": "HOST", "value": "0.0.0.0"},  # noqa: S104  the address inside the pod
        {"name": "PORT", "value": str(work.port)},
        {"name": "AGENTAPP_LOG_FORMAT", "value": "json"},
    ]
    if work.redis_secret is not None:
        name, _, key = work.redis_secret.partition(":")
        reference = {"secretKeyRef": {"name": name, "key": key or "url"}}
        environment.append({"name": REDIS_VARIABLE, "valueFrom": reference})
    limits = {"memory": work.memory_limit} | ({} if work.cpu_limit is None else {"cpu": work.cpu_limit})
    return {
        "name": "agent",
        "image": work.image,
        "imagePullPolicy": work.image_pull_policy,
        "ports": [{"name": "http", "containerPort": work.port, "protocol": "TCP"}],
        "env": environment,
        "envFrom": [{"secretRef": {"name": name}} for name in work.secrets],
        "resources": {"requests": {"cpu": work.cpu_request, "memory": work.memory_request}, "limits": limits},
        "startupProbe": _probe("/liveness", period=START_PERIOD, failures=START_FAILURES),
        "readinessProbe": _probe("/readiness", period=3, failures=1),
        "livenessProbe": _probe("/liveness", period=10, failures=3),
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108  in the pod
    }


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    request = {"path": path, "port": "http"}
    return {"httpGet": request, "periodSeconds": period, "timeoutSeconds": 3, "failureThreshold": failures}
