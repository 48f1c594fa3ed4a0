"""Kubernetes objects: rules that no schema can see, and values that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from trio_agentapp import AgentApp
from trio_agentapp.deploy.manifests import PRE_STOP, Workload, as_yaml, manifests
from trio_agentapp.deploy.packaging import USER, build_context
from trio_agentapp.errors import ConfigurationError

SMALL = Workload(name="friday", image="registry/friday:1")
LARGE = Workload(
    name="friday",
    image="registry/friday:1",
    namespace="agents",
    port=9000,
    replicas=2,
    max_replicas=6,
    redis_secret="redis:address",
    secrets=("friday-env", "models"),
    environment_digest="abc",
    cpu_limit="2",
    ingress_host="friday.example.com",
    tls_secret="friday-tls",
    image_pull_secret="registry",
    drain_timeout=120,
    cleanup_budget=7.5,
)
BOTH = pytest.mark.parametrize("work", [SMALL, LARGE], ids=["small", "large"])


def by_kind(work: Workload) -> dict[str, dict[str, Any]]:
    # As kubectl reads them.
    return {each["kind"]: each for each in yaml.safe_load_all(as_yaml(manifests(work)))}


def container(work: Workload) -> dict[str, Any]:
    [found] = by_kind(work)["Deployment"]["spec"]["template"]["spec"]["containers"]
    return dict(found)


def test_which_objects_there_are() -> None:
    always = {"ServiceAccount", "NetworkPolicy", "Service", "PodDisruptionBudget", "Deployment"}
    assert set(by_kind(SMALL)) == always
    assert set(by_kind(LARGE)) == always | {"Ingress", "HorizontalPodAutoscaler"}


@BOTH
def test_selectors_match_the_pods(work: Workload) -> None:
    found = by_kind(work)
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    pod = found["Deployment"]["spec"]["template"]["spec"]
    selectors = [
        found["Service"]["spec"]["selector"],
        found["Deployment"]["spec"]["selector"]["matchLabels"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        *(each["labelSelector"]["matchLabels"] for each in pod["topologySpreadConstraints"]),
    ]
    assert len(selectors) == 6
    for selector in selectors:
        assert selector
        assert selector.items() <= labels
    assert pod["serviceAccountName"] == found["ServiceAccount"]["metadata"]["name"]
    assert {each["metadata"]["namespace"] for each in found.values()} == {work.namespace}
    if "HorizontalPodAutoscaler" in found:
        target = found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) == ("Deployment", found["Deployment"]["metadata"]["name"])
        # The autoscaler computes a share of this, and decides the number alone.
        assert container(work)["resources"]["requests"]["cpu"]
        assert "replicas" not in found["Deployment"]["spec"]


@BOTH
def test_ports_agree(work: Workload) -> None:
    found = by_kind(work)
    [port] = container(work)["ports"]
    assert port["containerPort"] == work.port
    assert {"name": "PORT", "value": str(work.port)} in container(work)["env"]
    [served] = found["Service"]["spec"]["ports"]
    assert served["targetPort"] == port["name"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container(work)[probe]["httpGet"]["port"] == port["name"]
    [rule] = found["NetworkPolicy"]["spec"]["ingress"]
    assert rule["ports"] == [{"port": work.port, "protocol": "TCP"}]
    if "Ingress" in found:
        [host] = found["Ingress"]["spec"]["rules"]
        service = host["http"]["paths"][0]["backend"]["service"]
        assert (service["name"], service["port"]["name"]) == (found["Service"]["metadata"]["name"], served["name"])


@BOTH
async def test_probes_exist_in_the_app(work: Workload) -> None:
    app = AgentApp()
    async with app.test_app():
        client = app.test_client()
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert (await client.get(container(work)[probe]["httpGet"]["path"])).status_code == 200


@BOTH
def test_the_grace_period_is_longer_than_any_end(work: Workload) -> None:
    seconds = by_kind(work)["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    # Drain, cleanup and a second; then the watchdog waits for one more cleanup and 10 s.
    longest = work.drain_timeout + work.cleanup_budget + 1 + work.cleanup_budget + 10
    assert container(work)["lifecycle"]["preStop"]["sleep"]["seconds"] == PRE_STOP
    assert seconds > PRE_STOP + longest


@BOTH
def test_the_user_is_the_one_of_the_image_and_not_root(work: Workload, tmp_path: Path) -> None:
    pod = by_kind(work)["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsUser"] == USER != 0
    (tmp_path / "agent.py").write_text("from trio_agentapp import AgentApp\napp = AgentApp()\n")
    assert f"\nUSER {USER}:".encode() in build_context(str(tmp_path)).files["Dockerfile"]
    for mount in container(work)["volumeMounts"]:
        assert mount["name"] in {volume["name"] for volume in pod["volumes"]}


def test_values_of_secrets_are_named_and_not_written() -> None:
    text = as_yaml(manifests(LARGE))
    assert "secretKeyRef" in text
    assert container(LARGE)["envFrom"] == [{"secretRef": {"name": name}} for name in ("friday-env", "models")]
    [redis] = [each for each in container(LARGE)["env"] if each["name"] == "AGENTAPP_INTERRUPT_REDIS_URL"]
    assert redis["valueFrom"] == {"secretKeyRef": {"name": "redis", "key": "address"}}


def test_versions_are_never_mixed_without_a_shared_redis() -> None:
    assert by_kind(SMALL)["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}
    rolling = by_kind(LARGE)["Deployment"]["spec"]["strategy"]
    assert rolling == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def test_the_same_workload_gives_the_same_text() -> None:
    assert as_yaml(manifests(LARGE)) == as_yaml(manifests(LARGE))
    assert "&id" not in as_yaml(manifests(LARGE))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "a" * 51}, "use at most 50 small letters"),
        ({"name": "Friday"}, "name 'Friday' cannot be used in Kubernetes"),
        ({"namespace": "-x"}, "namespace '-x' cannot be used"),
        ({"memory_limit": "2 GB"}, "memory_limit '2 GB' is not a quantity"),
        ({"port": 80}, "port must be a number from 1024 to 65535, not 80"),
        ({"replicas": 0}, "replicas must be 1 or more"),
        ({"replicas": 2}, "several pods would not know of each other's runs"),
        ({"max_replicas": 2}, "--redis-secret NAME"),
        ({"replicas": 3, "max_replicas": 2, "shared": True}, "max_replicas not less"),
        ({"image_pull_policy": "always"}, "is not one of Always"),
    ],
)
def test_values_that_cannot_be_used(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Workload(**{"name": "friday", "image": "i", **options})
