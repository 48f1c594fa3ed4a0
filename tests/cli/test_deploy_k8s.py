"""`deploy k8s --dry-run`: manifests on stdout, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import AGENT, Shell

SECRET = "the-secret-of-this-test"


def objects(text: str) -> dict[str, Any]:
    return {each["kind"]: each for each in yaml.safe_load_all(text)}


def test_manifests_of_a_file(shell: Shell) -> None:
    (shell.folder / "serve.py").write_text(
        "from trio_agentapp import AgentApp\napp = AgentApp(app_name='Old Friday!', drain_timeout=200)\n"
    )
    words = ("deploy", "k8s", ".", "-e", "serve.py", "--dry-run")
    done = shell.call(*words)
    assert done.stderr == ""
    found = objects(done.stdout)
    assert found["Deployment"]["metadata"]["name"] == "old-friday"
    pod = found["Deployment"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > 200 + 2 * 30 + 11
    # The image is that of the build.
    digest = shell.call("build", ".", "-e", "serve.py").stdout.rpartition("sha256:")[2]
    assert pod["containers"][0]["image"] == f"old-friday:{digest[:12]}"
    assert shell.call(*words).stdout == done.stdout


def test_values_of_variables_are_not_printed(shell: Shell) -> None:
    (shell.folder / "more.env").write_text(f"B={SECRET}\n")
    (shell.folder / "c.yaml").write_text("name: from-file\nreplicas: 3\nredis_secret: redis\nenvironment: {A: x}\n")
    words = ("-E", f"C={SECRET}", "--env-file", "more.env", "-c", "c.yaml", "--replicas", "2", "--image", "i")
    done = shell.call("deploy", "k8s", str(AGENT), *words, "--dry-run")
    assert SECRET not in done.stdout + done.stderr
    assert done.stderr.startswith("The values of A, B, C are not printed.")
    found = objects(done.stdout)["Deployment"]
    assert (found["metadata"]["name"], found["spec"]["replicas"]) == ("from-file", 2)
    [container] = found["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "from-file-env"}}]
    changed = shell.call("deploy", "k8s", str(AGENT), *words, "-E", "C=other", "--dry-run").stdout
    # So that pods get the new values.
    before, after = [objects(text)["Deployment"]["spec"]["template"]["metadata"] for text in (done.stdout, changed)]
    assert before["annotations"] != after["annotations"]
    as_json = json.loads(shell.call("deploy", "k8s", str(AGENT), *words, "--dry-run", "--json").stdout)
    assert as_json["kind"] == "List"
    assert as_json["items"] == list(yaml.safe_load_all(done.stdout))


def test_a_target_without_a_name_is_refused_before_a_cluster_is_asked(shell: Shell) -> None:
    for target in ("k8s:", "k8s:agents/", "k8s:a/b/c", "knative:../x"):
        assert "names no deployment" in shell.call("stop", target, code=2).stderr
    assert "there is no deployment" in shell.call("scale", "0000", "2", code=1).stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--name", "a" * 60), "use at most 50 small letters"),
        (("--replicas", "2"), "--redis-secret NAME"),
        (("--memory-limit", "lots"), "memory_limit 'lots' is not a quantity"),
        (("-c", "c.json"), "c.json has an unknown key 'colour'"),
        (("-E", SECRET), "--env takes NAME=VALUE"),
        (("-E", f"A B={SECRET}"), "'A B' cannot be the name of a variable"),
        (("--env-file", "nul.env"), "nul.env has a NUL byte"),
    ],
)
def test_options_that_cannot_be_used(shell: Shell, words: tuple[str, ...], says: str) -> None:
    (shell.folder / "c.json").write_text('{"colour": 1}')
    (shell.folder / "nul.env").write_text(f"A={SECRET}\0\n")
    done = shell.call("deploy", "k8s", str(AGENT), "--image", "i", *words, "--dry-run", code=2)
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_options_of_old_scripts(shell: Shell) -> None:
    (shell.folder / "needs.txt").write_text("anyio==4.0\n")
    words = (
        *("--image-name", "agent_app", "--image-tag", "linux-amd64", "--registry-url", "localhost:5000"),
        *("--registry-namespace", "team", "--push", "--base-image", "python:3.10-slim-bookworm"),
        *("--requirements", "needs.txt", "--platform", "linux/amd64", "--pypi-mirror", "https://index.example.com"),
        *("--cpu-request", "200m", "--cpu-limit", "1000m", "--memory-request", "512Mi", "--memory-limit", "2Gi"),
        *("--image-pull-policy", "Never", "--deploy-timeout", "300", "--health-check", "--port", "8080"),
        *("--namespace", "agents", "-E", "A=b", "--kube-config-path", "/nowhere"),
    )
    for cluster, kind in (("k8s", "Deployment"), ("knative", "Service"), ("kruise", "Sandbox")):
        found = objects(shell.call("deploy", cluster, str(AGENT), *words, "--dry-run").stdout)[kind]
        [container] = found["spec"]["template"]["spec"]["containers"]
        assert container["image"] == "localhost:5000/team/agent_app:linux-amd64"
        assert container["imagePullPolicy"] == "Never"
        assert container["ports"][0]["containerPort"] == 8080


def test_all_options_in_a_file(shell: Shell) -> None:
    (shell.folder / "c.yaml").write_text(
        "image: i\nsecrets: [models]\nnode_selector: {disk: fast}\nlabels: {team: a}\nredis_secret: redis\n"
        "scale_to_zero: true\nmax_replicas: 4\n"
    )
    found = objects(shell.call("deploy", "knative", str(AGENT), "-c", "c.yaml", "--dry-run").stdout)["Service"]
    assert found["metadata"]["labels"]["team"] == "a"
    template = found["spec"]["template"]
    assert template["metadata"]["annotations"] == {
        "autoscaling.knative.dev/min-scale": "0",
        "autoscaling.knative.dev/max-scale": "4",
    }
    assert template["spec"]["nodeSelector"] == {"disk": "fast"}
    assert template["spec"]["containers"][0]["envFrom"] == [{"secretRef": {"name": "models"}}]


def test_a_kubeconfig_is_no_config(shell: Shell) -> None:
    (shell.folder / "kube.yaml").write_text("kind: Config\nclusters: []\n")
    done = shell.call("deploy", "k8s", str(AGENT), "-c", "kube.yaml", code=2)
    assert done.stderr == (
        "trio-agentapp: kube.yaml is a kubeconfig; name it with --kube-config-path, without -c\n"
    )


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--push",), 2, "--push needs a name: --image REGISTRY/NAME:TAG"),
        (("--image", "friday", "--push"), 2, "names no registry to push to"),
        (("--image", "Friday"), 2, "is not the name of an image"),
        (("--image", "friday"), 1, "no tool that builds images is installed; install docker, podman or buildah"),
        (("--image", "friday", "--builder", "podman"), 1, "podman is not installed"),
        (("--image", "friday", "--builder", "make"), 2, "'make' cannot build images"),
    ],
)
def test_images_that_cannot_be_built(shell: Shell, words: tuple[str, ...], code: int, says: str) -> None:
    done = shell.call("build", str(AGENT), *words, code=code, PATH="/nowhere")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_image_is_built(shell: Shell) -> None:
    tool = shell.folder / "bin" / "podman"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\n[ "$1" = image ] && exit 1\necho "STEP 1/9: FROM x"\n')
    tool.chmod(0o755)
    words = ("build", str(AGENT), "--image", "r.example.com/friday", "--push")
    done = shell.call(*words, "--json", PATH=f"{tool.parent}:/bin")
    found = json.loads(done.stdout)
    assert found["image"] == f"r.example.com/friday:{found['tag']}"
    # Progress is for terminals.
    assert done.stderr == f"{found['image']} is pushed.\n"


def test_a_secret_in_the_code_is_refused(shell: Shell) -> None:
    folder = shell.folder / "project"
    folder.mkdir()
    (folder / "agent.py").write_text(Path(AGENT).read_text() + f"KEY = 'AKIA{'A' * 16}'\n")
    for words in (("deploy", "k8s", str(folder), "--dry-run"), ("build", str(folder))):
        assert "agent.py, line " in shell.call(*words, code=1).stderr


def test_a_build_is_printed(shell: Shell) -> None:
    folder = shell.folder / "project"
    folder.mkdir()
    (folder / "agent.py").write_text(Path(AGENT).read_text())
    (folder / ".env").write_text("KEY=x\n")
    done = shell.call("build", str(folder), "-o", "out.tar", "--json")
    assert '"app/agent.py"' in done.stdout
    assert ".env" in done.stdout
    assert (shell.folder / "out.tar").is_file()
    shown = shell.call("build", str(folder)).stdout
    assert "left out  .env (always)" in shown
    assert "  app/agent.py\n" in shown
