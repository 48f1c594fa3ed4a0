"""The manager with the real client, against an emulated API server: see `emulator.py`."""

from __future__ import annotations

import base64
import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from trio_agentapp import AgentApp
from trio_agentapp.deploy import (
    K8sConfig,
    KnativeDeployManager,
    KruiseDeployManager,
    KubernetesDeployManager,
)
from trio_agentapp.errors import ConfigurationError, DeployError

HERE = Path(__file__).parent

APPS = "/apis/apps/v1/namespaces/agents/deployments"


class Emulated:
    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(json.dumps(kubeconfig(url)))

    def manager(
        self, kind: type[KubernetesDeployManager] = KubernetesDeployManager, **options: Any
    ) -> KubernetesDeployManager:
        config = K8sConfig(k8s_namespace="agents", kubeconfig_path=str(self.kubeconfig), request_timeout=3)
        return kind(config, **{"deploy_timeout": 20, **options})

    def get(self, path: str) -> Any:
        answer = httpx.get(f"{self.url.rstrip('/')}{path}", trust_env=False)
        return answer.json() if answer.status_code == 200 else None

    def post(self, path: str, body: Any) -> None:
        httpx.post(f"{self.url.rstrip('/')}{path}", json=body, trust_env=False).raise_for_status()

    def put(self, path: str, body: Any) -> None:
        httpx.put(f"{self.url.rstrip('/')}{path}", json=body, trust_env=False).raise_for_status()

    def objects(self) -> set[str]:
        found = set()
        for path, plurals in (
            ("/api/v1", ("secrets", "services", "serviceaccounts", "pods")),
            ("/apis/apps/v1", ("deployments",)),
            ("/apis/policy/v1", ("poddisruptionbudgets",)),
            ("/apis/networking.k8s.io/v1", ("networkpolicies", "ingresses")),
            ("/apis/autoscaling/v2", ("horizontalpodautoscalers",)),
        ):
            for plural in plurals:
                if self.get(f"{path}/namespaces/agents/{plural}")["items"]:
                    found.add(plural)
        return found


def kubeconfig(url: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url.rstrip("/")}}],
        "users": [{"name": "test", "user": {"token": "x"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }


Start = Callable[[str], Emulated]


@pytest.fixture
def emulated(tmp_path: Path) -> Iterator[Start]:
    running: list[subprocess.Popen[str]] = []

    def start(scenario: str) -> Emulated:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "emulator.py"), scenario], stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        assert process.stdout is not None
        return Emulated(process.stdout.readline().strip(), tmp_path)

    yield start
    for process in running:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTAPP_HOME", str(tmp_path / "home"))


@pytest.fixture
def app() -> AgentApp:
    return AgentApp(app_name="Friday")


async def test_deploy_update_scale_and_stop(emulated: Start, app: AgentApp) -> None:
    cluster = emulated("")
    steps: list[str] = []
    manager = cluster.manager(report=steps.append)
    options = {"redis_secret": "redis", "replicas": 2}
    here = await manager.deploy(app, image="good:1", environment={"KEY": "hidden"}, **options)
    assert (here.deploy_id, here.url) == ("friday", "http://friday.agents.svc")
    assert steps[0] == "Applying Secret friday-env"
    assert [step for step in steps if ": " not in step][-2:] == [
        "Applying Deployment friday",
        "Waiting for friday to be ready",
    ]
    assert steps[-1] == "Waiting for friday to be ready: 0 of 2 pods are ready"
    basic = {
        "secrets",
        "services",
        "serviceaccounts",
        "pods",
        "deployments",
        "poddisruptionbudgets",
        "networkpolicies",
    }
    assert cluster.objects() == basic
    secret = cluster.get("/api/v1/namespaces/agents/secrets/friday-env")
    assert base64.b64decode(secret["data"]["KEY"]) == b"hidden"
    status = await manager.status("friday")
    assert (status.state, status.entrypoint) == ("ready", "good:1")
    assert [each.deploy_id for each in await manager.list()] == ["friday"]

    texts = (await manager.logs("friday")).split("\n")
    assert [len(texts), *texts[1:3]] == [6, "one", "two"]
    assert texts[0].startswith("friday-")

    await manager.deploy(app, image="good:2", **options)
    assert (await manager.status("friday")).entrypoint == "good:2"
    assert (await manager.scale("friday", 4)).state == "ready"
    assert cluster.get(f"{APPS}/friday")["spec"]["replicas"] == 4

    stopped = await manager.stop("friday")
    assert (stopped.state, stopped.reason) == ("stopped", None)
    assert cluster.objects() == set()
    for call in (
        manager.status("friday"),
        manager.stop("friday"),
        manager.logs("friday"),
        manager.scale("friday", 1),
    ):
        with pytest.raises(DeployError, match="there is no deployment 'friday' in the namespace agents"):
            await call


async def test_a_first_deployment_that_fails_leaves_nothing(emulated: Start, app: AgentApp) -> None:
    cluster = emulated("")
    with pytest.raises(DeployError) as caught:
        await cluster.manager().deploy(app, image="missing:1", environment={"A": "b"})
    assert str(caught.value) == (
        "the image cannot be pulled (ErrImagePull, missing:1): not found; push it, check its name and tag, or name "
        "the Secret of its registry: --image-pull-secret NAME"
    )
    assert cluster.objects() <= {"pods"}


async def test_an_update_that_fails_is_undone(emulated: Start, app: AgentApp) -> None:
    cluster = emulated("")
    manager = cluster.manager()
    await manager.deploy(app, image="good:1", environment={"A": "old"})
    with pytest.raises(DeployError, match=r"the app ends again and again \(CrashLoopBackOff, crashing:1\); see "):
        await manager.deploy(app, image="crashing:1", environment={"A": "new"})
    secret = cluster.get("/api/v1/namespaces/agents/secrets/friday-env")
    assert base64.b64decode(secret["data"]["A"]) == b"old"
    with trio.fail_after(20):
        while (await manager.status("friday")).state != "ready":
            await trio.sleep(0.05)
    assert (await manager.status("friday")).entrypoint == "good:1"


async def test_one_deployment_of_a_name_at_a_time(emulated: Start, app: AgentApp) -> None:
    cluster = emulated("")
    waits = trio.Event()
    manager = cluster.manager(report=lambda step: waits.set() if step.startswith("Waiting") else None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(manager.deploy, app, image="slow:1"))
        await waits.wait()
        with pytest.raises(DeployError, match=rf"process {os.getpid()} deploys friday at this moment"):
            await cluster.manager().deploy(app, image="good:1")
        nursery.cancel_scope.cancel()
    # What was broken off is undone, and the next one begins.
    assert cluster.objects() <= {"pods"}
    assert (await cluster.manager().deploy(app, image="good:1")).deploy_id == "friday"


async def test_what_a_killed_command_has_left_is_listed_and_removed(
    emulated: Start, app: AgentApp, tmp_path: Path
) -> None:
    cluster = emulated("stalled")
    (tmp_path / "agent.py").write_text("from trio_agentapp import AgentApp\napp = AgentApp(app_name='Friday')\n")
    words = ["deploy", "k8s", "agent.py", "--namespace", "agents", "--image", "good:1", "-E", "A=b"]
    command = subprocess.Popen(
        [sys.executable, "-m", "trio_agentapp", *words],
        cwd=tmp_path,
        env={**os.environ, "KUBECONFIG": str(cluster.kubeconfig)},
    )
    with trio.fail_after(60):
        while "poddisruptionbudgets" not in cluster.objects():
            await trio.sleep(0.05)
    manager = cluster.manager()
    with pytest.raises(DeployError, match=rf"process {command.pid} deploys friday at this moment"):
        await manager.stop("friday")
    command.kill()
    command.wait()
    left = {"secrets", "services", "serviceaccounts", "poddisruptionbudgets", "networkpolicies"}
    assert cluster.objects() == left
    [listed] = await manager.list()
    seen = await manager.status("friday")
    assert seen == listed
    assert (seen.deploy_id, seen.state) == ("friday", "dead")
    assert "broken off" in str(seen.reason)
    # It is no deployment of another platform, whose objects may have the same names.
    for kind in (KnativeDeployManager, KruiseDeployManager):
        assert await cluster.manager(kind).list() == []
        with pytest.raises(DeployError, match="there is no deployment 'friday'"):
            await cluster.manager(kind).stop("friday")
    assert cluster.objects() == left
    assert (await manager.stop("friday")).state == "stopped"
    assert cluster.objects() == set()
    assert await manager.list() == []


async def test_pods_that_are_never_ready(emulated: Start, app: AgentApp) -> None:
    cluster = emulated("")
    with pytest.raises(DeployError, match=r"friday was not ready in 1 s: 0 of 1 pods are ready"):
        await cluster.manager(deploy_timeout=1).deploy(app, image="slow:1")


@pytest.mark.parametrize(
    ("scenario", "says"),
    [
        (
            "forbidden",
            "no right to do this with Deployment friday in the namespace agents: it is forbidden; ask",
        ),
        ("unauthorised", "refuses the credentials of the kubeconfig; log in again"),
        ("overloaded", "is overloaded (503: it is overloaded); try again later"),
        ("hanging", "does not answer (ReadTimeoutError); check the network"),
    ],
)
async def test_answers_of_a_cluster_are_explained(emulated: Start, app: AgentApp, scenario: str, says: str) -> None:
    with pytest.raises(DeployError) as caught:
        await emulated(scenario).manager().deploy(app, image="good:1")
    assert says in str(caught.value)


async def test_a_conflict_is_tried_again_and_then_explained(emulated: Start, app: AgentApp) -> None:
    cluster = emulated("conflict")
    manager = cluster.manager()
    await manager.deploy(app, image="good:1")
    with pytest.raises(DeployError, match="another client has changed Deployment friday at the same time"):
        await manager.deploy(app, image="good:2")


async def test_objects_of_others_are_not_touched(emulated: Start, app: AgentApp) -> None:
    cluster = emulated("")
    theirs = {"metadata": {"name": "friday", "namespace": "agents"}, "spec": {"ports": [{"port": 1}]}}
    path = "/api/v1/namespaces/agents/services"
    cluster.post(path, theirs)
    with pytest.raises(DeployError, match="friday belongs to another program; choose another name"):
        await cluster.manager().deploy(app, image="good:1")
    assert cluster.get(f"{path}/friday")["spec"] == theirs["spec"]
    assert cluster.objects() == {"services"}


async def test_kubeconfigs_that_cannot_be_used(tmp_path: Path, app: AgentApp, monkeypatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    path = tmp_path / "kubeconfig"

    async def deploy() -> str:
        config = K8sConfig(kubeconfig_path=str(path), request_timeout=2)
        with pytest.raises((ConfigurationError, DeployError)) as caught:
            await KubernetesDeployManager(config).deploy(app, image="good:1")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no cluster is configured" in await deploy()
    assert "--dry-run" in await deploy()
    path.write_text("a: [")
    assert "cannot be read" in await deploy()
    path.write_text(json.dumps({**kubeconfig("http://127.0.0.1:1"), "current-context": "other"}))
    assert "no cluster is configured" in await deploy()
    path.write_text(json.dumps(kubeconfig("http://127.0.0.1:1")))
    assert "the cluster at http://127.0.0.1:1 does not answer" in await deploy()


KNATIVE = "/apis/serving.knative.dev/v1/namespaces/agents/services"
SANDBOXES = "/apis/agents.kruise.io/v1alpha1/namespaces/agents/sandboxes"


async def test_a_service_of_knative(emulated: Start, app: AgentApp) -> None:
    cluster = emulated("")
    manager = cluster.manager(KnativeDeployManager)
    here = await manager.deploy(app, image="good:1", environment={"KEY": "hidden"})
    assert (here.deploy_id, here.url, here.mode) == ("friday", "http://friday.agents.example.com", "knative")
    assert cluster.objects() == {"secrets", "serviceaccounts", "pods"}
    status = await manager.status("friday")
    assert (status.state, status.entrypoint, status.url) == ("ready", "good:1", here.url)
    assert [each.deploy_id for each in await manager.list()] == ["friday"]
    assert "one\ntwo" in await manager.logs("friday")
    # What Knative has written there must stay: it refuses an update without it.
    marked = cluster.get(f"{KNATIVE}/friday")
    marked["metadata"]["annotations"] = {"serving.knative.dev/creator": "someone"}
    cluster.put(f"{KNATIVE}/friday", marked)
    await manager.deploy(app, image="good:2")
    updated = cluster.get(f"{KNATIVE}/friday")
    assert updated["metadata"]["annotations"] == {"serving.knative.dev/creator": "someone"}
    with pytest.raises(DeployError, match=r"Knative cannot start it \(RevisionFailed\): it is refused"):
        await manager.deploy(app, image="refused:1")
    with trio.fail_after(20):
        while (await manager.status("friday")).state != "ready":
            await trio.sleep(0.05)
    assert (await manager.status("friday")).entrypoint == "good:2"
    with pytest.raises(DeployError, match="Knative decides it by requests"):
        await manager.scale("friday", 2)
    assert (await manager.stop("friday")).state == "stopped"
    assert cluster.objects() == set()
    assert cluster.get(KNATIVE)["items"] == []


async def test_a_sandbox_of_kruise(emulated: Start, app: AgentApp) -> None:
    cluster = emulated("")
    steps: list[str] = []
    manager = cluster.manager(KruiseDeployManager, report=steps.append)
    here = await manager.deploy(app, image="good:1")
    assert (here.url, here.mode) == ("http://friday.agents.svc", "kruise")
    assert cluster.objects() == {"serviceaccounts", "networkpolicies", "services", "pods"}
    first = cluster.get(f"{SANDBOXES}/friday")["metadata"]["generation"]
    await manager.deploy(app, image="good:1")
    assert cluster.get(f"{SANDBOXES}/friday")["metadata"]["generation"] == first
    assert "Waiting for the pods of friday to drain" not in steps
    # Another image is another sandbox, and the former one ends first.
    await manager.deploy(app, image="good:2")
    assert cluster.get(f"{SANDBOXES}/friday")["metadata"]["generation"] != first
    assert "Waiting for the pods of friday to drain" in steps
    with pytest.raises(DeployError, match=r"its pod has ended \(Failed\)"):
        await manager.deploy(app, image="refused:1")
    assert (await manager.status("friday")).entrypoint == "good:2"
    with pytest.raises(DeployError, match="a sandbox is one pod"):
        await manager.scale("friday", 2)
    await manager.stop("friday")
    assert cluster.objects() == set()


@pytest.mark.parametrize(
    ("kind", "product"),
    [(KnativeDeployManager, "Knative Serving"), (KruiseDeployManager, "OpenKruise Agents")],
)
async def test_a_cluster_without_the_product(emulated: Start, app: AgentApp, kind: Any, product: str) -> None:
    manager = emulated("plain").manager(kind)
    for call in (manager.deploy(app, image="good:1"), manager.list()):
        with pytest.raises(DeployError, match=f"has no {product}; install it, or use deploy k8s"):
            await call


async def test_the_command_line(emulated: Start, tmp_path: Path) -> None:
    cluster = emulated("")
    (tmp_path / "agent.py").write_text("from trio_agentapp import AgentApp\napp = AgentApp(app_name='Friday')\n")

    async def call(*words: str, code: int = 0) -> tuple[str, str]:
        done = await trio.run_process(
            [sys.executable, "-m", "trio_agentapp", *words],
            cwd=tmp_path,
            env={**os.environ, "KUBECONFIG": str(cluster.kubeconfig)},
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        assert done.returncode == code, done.stderr.decode()
        return done.stdout.decode(), done.stderr.decode()

    deploy = ("deploy", "k8s", "agent.py", "--namespace", "agents", "--deploy-timeout", "20")
    out, err = await call(*deploy, "--image", "good:1")
    assert out == "k8s:agents/friday\n"
    # Progress is for terminals.
    assert err == (
        "agent.py is ready on http://friday.agents.svc (trio-agentapp stop k8s:agents/friday stops it)\n"
    )
    out, _ = await call("status", "k8s:agents/friday", "--json")
    assert json.loads(out)["state"] == "ready"
    out, _ = await call("list", "-p", "k8s", "--namespace", "agents", "--json")
    assert [each["deploy_id"] for each in json.loads(out)] == ["friday"]
    _, err = await call("scale", "k8s:agents/friday", "3", code=1)
    assert "--redis-secret NAME" in err
    _, err = await call("stop", "k8s:agents/friday")
    assert "friday (friday) at http://friday.agents.svc is stopped" in err
    _, err = await call("status", "k8s:agents/friday", code=1)
    assert err == "trio-agentapp: there is no deployment 'friday' in the namespace agents\n"
    # The exit codes are those of other targets: 2 for what is wrong with the command, 1 for what has failed.
    for words, code, says in (
        (("--kube-config-path", "nowhere"), 2, "no cluster is configured"),
        (("--name", "a" * 60), 2, "use at most 50 small letters"),
        (("--namespace", "-x"), 2, "namespace '-x' cannot be used"),
        (("--kube-config-path", "dead"), 1, "the cluster at http://127.0.0.1:1 does not answer"),
    ):
        (tmp_path / "dead").write_text(json.dumps(kubeconfig("http://127.0.0.1:1")))
        _, err = await call(*deploy, "--image", "good:1", *words, code=code)
        assert says in err
        assert err.count("\n") == 1
    out, _ = await call("deploy", "knative", *deploy[2:], "--image", "good:1", "--json")
    assert json.loads(out)["mode"] == "knative"
    out, _ = await call("list", "-p", "knative", "--namespace", "agents", "--json")
    assert [each["deploy_id"] for each in json.loads(out)] == ["friday"]
    _, err = await call("stop", "knative:agents/friday")
    assert "is stopped" in err
    _, err = await call(*deploy, "--image", "missing:1", code=1)
    assert "the image cannot be pulled" in err
