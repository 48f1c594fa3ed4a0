"""Kubernetes objects: rules that no schema can see, and values that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import yaml

from trio_agentapp import AgentApp
from trio_agentapp.deploy import (
    KnativeDeployManager,
    KruiseDeployManager,
    KubernetesDeployManager,
    RegistryConfig,
)
from trio_agentapp.deploy.manifests import as_yaml, manifests
from trio_agentapp.deploy.packaging import USER, build_context
from trio_agentapp.deploy.workload import PRE_STOP, Workload, workload_of
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


# Knative and Kruise.


def test_a_service_of_knative_has_only_what_knative_allows() -> None:
    work = attrs.evolve(LARGE, ingress_host=None, tls_secret=None)
    account, knative = KnativeDeployManager.manifests(work)
    assert (account["kind"], knative["apiVersion"], knative["kind"]) == (
        "ServiceAccount",
        "serving.knative.dev/v1",
        "Service",
    )
    template = knative["spec"]["template"]
    assert template["metadata"]["annotations"] == {
        "autoscaling.knative.dev/min-scale": "2",
        "autoscaling.knative.dev/max-scale": "6",
        "trio-agentapp/environment": "abc",
    }
    pod = template["spec"]
    # Its webhook refuses every other field of a pod, and of a container.
    assert set(pod) == {
        "containers",
        "enableServiceLinks",
        "imagePullSecrets",
        "serviceAccountName",
        "timeoutSeconds",
        "volumes",
    }
    [found] = pod["containers"]
    assert not {"lifecycle", "startupProbe"} & set(found)
    assert found["ports"] == [{"containerPort": 9000}]
    assert "PORT" not in {each["name"] for each in found["env"]}
    [mount] = found["volumeMounts"]
    assert mount["mountPath"] not in ("/", "/dev", "/dev/log", "/tmp", "/var", "/var/log")
    assert {"name": "TMPDIR", "value": mount["mountPath"]} in found["env"]
    assert (found["securityContext"]["runAsUser"], found["securityContext"]["runAsNonRoot"]) == (USER, True)
    # Which is the grace period of its pods.
    assert pod["timeoutSeconds"] == 600
    slow = attrs.evolve(work, drain_timeout=900)
    assert (
        KnativeDeployManager.manifests(slow)[1]["spec"]["template"]["spec"]["timeoutSeconds"] == slow.grace_period
    )


def test_knative_ends_the_last_pod_only_on_request() -> None:
    def least(work: Workload) -> str:
        template = KnativeDeployManager.manifests(work)[1]["spec"]["template"]
        return str(template["metadata"]["annotations"]["autoscaling.knative.dev/min-scale"])

    assert least(SMALL) == "1"
    assert least(attrs.evolve(SMALL, shared=True, scale_to_zero=True)) == "0"


def test_a_sandbox_has_the_pod_of_a_deployment() -> None:
    found = {each["kind"]: each for each in KruiseDeployManager.manifests(SMALL)}
    assert set(found) == {"ServiceAccount", "NetworkPolicy", "Service", "Sandbox"}
    assert found["Sandbox"]["spec"]["template"] == by_kind(SMALL)["Deployment"]["spec"]["template"]
    labels = found["Sandbox"]["spec"]["template"]["metadata"]["labels"]
    assert found["Service"]["spec"]["selector"].items() <= labels.items()


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        (KnativeDeployManager, {"ingress_host": "x.example.com"}, "make a DomainMapping"),
        (KnativeDeployManager, {"port": 8012}, "port 8012 belongs to Knative's proxy"),
        (KnativeDeployManager, {"scale_to_zero": True}, "end with its last pod, so it cannot be scaled to zero"),
        (KruiseDeployManager, {"replicas": 2, "shared": True}, "a sandbox is one pod"),
        (KruiseDeployManager, {"max_replicas": 2, "shared": True}, "a sandbox is one pod"),
        (KubernetesDeployManager, {"scale_to_zero": True}, "--scale-to-zero is for Knative"),
        (KruiseDeployManager, {"scale_to_zero": True}, "a sandbox is one pod"),
    ],
)
def test_what_a_platform_cannot_do(kind: type[KubernetesDeployManager], options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        kind.manifests(attrs.evolve(SMALL, **options))


# Options of the replaced product.


def test_runtime_config_of_old_scripts() -> None:
    config = {
        "image_pull_policy": "Always",
        "image_pull_secrets": ["registry"],
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "3Gi"}},
        "restart_policy": "Always",
        "node_selector": {"disk": "fast"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
    }
    options = {"image": "i", "runtime_config": config, "labels": {"team": "a"}, "annotations": {"why": "b"}}
    work, build = workload_of(AgentApp(app_name="Friday"), None, {}, options)
    assert build is None
    deployment = by_kind(work)["Deployment"]
    assert deployment["metadata"]["labels"]["team"] == "a"
    assert deployment["metadata"]["annotations"] == {"why": "b"}
    pod = deployment["spec"]["template"]["spec"]
    assert (pod["nodeSelector"], pod["tolerations"]) == (config["node_selector"], config["tolerations"])
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    [found] = pod["containers"]
    assert (found["imagePullPolicy"], found["resources"]) == ("Always", config["resources"])
    for wrong in ({"security_context": {}}, {"restart_policy": "Never"}, {"image_pull_secrets": ["a", "b"]}):
        with pytest.raises(ConfigurationError, match="runtime_config"):
            workload_of(AgentApp(), None, {}, {"image": "i", "runtime_config": wrong})
    with pytest.raises(TypeError, match="has no option 'mount_dir'"):
        workload_of(AgentApp(), None, {}, {"image": "i", "mount_dir": "/x"})


def test_which_image_is_built(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text("from trio_agentapp import AgentApp\napp = AgentApp()\n")
    source = str(tmp_path / "agent.py")
    registry = RegistryConfig(registry_url="r.example.com", namespace="team", image_pull_secret="login")
    work, build = workload_of(None, source, {}, {"name": "friday", "push_to_registry": True}, registry)
    assert build is not None
    assert work.image == build.image == f"r.example.com/team/friday:{build.context.tag}"
    assert (work.image_pull_secret, work.image_pull_policy, work.environment_digest) == (
        "login",
        "IfNotPresent",
        None,
    )
    # Pods cannot tell another image by such a tag.
    named = {"image_name": "other", "image_tag": "1", "push_to_registry": True, "base_image": "localhost/base:1"}
    work, build = workload_of(None, source, {}, named, registry)
    assert build is not None
    assert (work.image, work.image_pull_policy) == ("r.example.com/team/other:1", "Always")
    assert work.environment_digest
    assert build.context.files["Dockerfile"].find(b"FROM localhost/base:1") > 0


def test_the_same_workload_gives_the_same_text() -> None:
    assert as_yaml(manifests(LARGE)) == as_yaml(manifests(LARGE))
    assert "&id" not in as_yaml(manifests(LARGE))


def test_what_kubernetes_allows_is_not_refused() -> None:
    image = f"registry:5000/team/i@sha256:{'a' * 64}"
    Workload(name="friday", image=image, ingress_host="*.example.com", tls_secret="a.b", memory_request="2048Mi")


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
        ({"memory_request": "4Gi"}, "memory_request 4Gi is more than memory_limit 2Gi"),
        ({"cpu_request": "1", "cpu_limit": "900m"}, "cpu_request 1 is more than cpu_limit 900m"),
        ({"image": "a b"}, "image is not the name of an image"),
        ({"image": "me:correct-horse@host/i"}, "image is not the name of an image"),
        ({"ingress_host": "a b"}, "ingress_host 'a b' cannot be used"),
        ({"redis_secret": "Redis:url"}, "redis_secret 'Redis' cannot be used"),
        ({"secrets": ("a_b",)}, "secret 'a_b' cannot be used"),
    ],
)
def test_values_that_cannot_be_used(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Workload(**{"name": "friday", "image": "i", **options})
