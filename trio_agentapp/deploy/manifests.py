"""The Kubernetes objects of one app, as plain data. Nothing here needs a cluster or its client."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from .extras import needed
from .workload import PRE_STOP, REDIS_VARIABLE, Workload

__all__ = [
    "MANAGED_BY",
    "PLATFORM",
    "USER",
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

START_PERIOD, START_FAILURES = 2, 90
"""Three minutes. Loading a model may take long, and after a restart of Redis the app waits for leases to expire."""

USER = 10001

# Names of annotations of ingress-nginx. Without them it collects events, and closes a quiet stream after 60 s.
STREAMING = {
    "nginx.ingress.kubernetes.io/proxy-buffering": "off",
    "nginx.ingress.kubernetes.io/proxy-request-buffering": "off",
    "nginx.ingress.kubernetes.io/proxy-http-version": "1.1",
    "nginx.ingress.kubernetes.io/proxy-read-timeout": "3600",
    "nginx.ingress.kubernetes.io/proxy-send-timeout": "3600",
    "nginx.ingress.kubernetes.io/proxy-body-size": "2m",
}


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
