"""`deploy k8s --dry-run`: manifests on stdout, and nothing else."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--name", "a" * 60), "use at most 50 small letters"),
        (("--replicas", "2"), "--redis-secret NAME"),
        (("--memory-limit", "lots"), "memory_limit 'lots' is not a quantity"),
        (("-c", "c.json"), "c.json has an unknown key 'colour'"),
        (("-E", SECRET), "--env takes NAME=VALUE"),
    ],
)
def test_options_that_cannot_be_used(shell: Shell, words: tuple[str, ...], says: str) -> None:
    (shell.folder / "c.json").write_text('{"colour": 1}')
    done = shell.call("deploy", "k8s", str(AGENT), "--image", "i", *words, "--dry-run", code=2)
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


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
