"""Every manifest is valid for the last three versions of Kubernetes, by their own schemas."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

EXAMPLES = Path(__file__).parents[2] / "examples"
VERSIONS = ("1.35", "1.36", "1.37")

LARGE = (
    *(
        "--name",
        "friday",
        "--namespace",
        "agents",
        "--image",
        "r/friday:1",
        "--replicas",
        "2",
        "--max-replicas",
        "5",
    ),
    *("--redis-secret", "redis:address", "--secret", "models", "-E", "COLOUR=blue", "--cpu-limit", "2"),
    *("--ingress-host", "friday.example.com", "--tls-secret", "tls", "--image-pull-secret", "registry"),
    *("--port", "9000"),
)


def printed(*words: str, cluster: str = "k8s", **environment: str) -> str:
    """What the command prints without kubeconfig, HOME and PATH, and so without container tools."""
    command = [sys.executable, "-m", "trio_agentapp", "deploy", cluster, *words, "--dry-run"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={"HOME": "/nowhere", **environment}, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("version", VERSIONS)
def test_the_example_for_a_cluster_is_valid(version: str) -> None:
    base = EXAMPLES / "cluster/base"
    names = yaml.safe_load((base / "kustomization.yaml").read_text())["resources"]
    objects = [each for name in names for each in yaml.safe_load_all((base / name).read_text())]
    assert len(objects) == 12
    for each in objects:
        kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_pods_of_the_variants_are_valid(version: str) -> None:
    """No schema of Knative and Kruise is published as a package, so their pods are looked at as such."""
    for cluster, own in (("knative", {"timeoutSeconds"}), ("kruise", set())):
        text = printed(str(EXAMPLES / "friday"), "--image", "i", "--redis-secret", "redis", cluster=cluster)
        *objects, owner = yaml.safe_load_all(text)
        template = owner["spec"]["template"]
        spec = {name: value for name, value in template["spec"].items() if name not in own}
        # Knative adds the port.
        for probe in ("readinessProbe", "livenessProbe"):
            spec["containers"][0][probe]["httpGet"].setdefault("port", 8090)
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": spec}
        for each in (*objects, pod):
            kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("words", [(), LARGE], ids=["small", "large"])
def test_manifests_are_valid(version: str, words: tuple[str, ...]) -> None:
    objects = list(yaml.safe_load_all(printed(str(EXAMPLES / "friday"), *words)))
    assert len(objects) == (7 if words else 5)
    for each in objects:
        kubernetes_validate.validate(each, version, strict=True)
    # The schemas would notice.
    objects[-1]["spec"]["template"]["spec"]["containers"][0]["livenessProbes"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(objects[-1], version, strict=True)
