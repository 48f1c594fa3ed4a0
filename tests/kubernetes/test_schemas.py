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


def printed(*words: str, **environment: str) -> str:
    """What the command prints without kubeconfig, HOME and PATH, and so without container tools."""
    command = [sys.executable, "-m", "trio_agentapp", "deploy", "k8s", *words, "--dry-run"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={"HOME": "/nowhere", **environment}, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


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
