"""The example for a cluster: it runs with its workers, and its files agree with each other and with the app."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import yaml

from trio_agentapp.testing.redis_server import RedisServer

ROOT = Path(__file__).parents[2]
HERE = ROOT / "examples/cluster"
PAGE = "examples/cluster/README.md"
COMPOSE: dict[str, Any] = yaml.safe_load((HERE / "compose.yaml").read_text())
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((HERE / "base/kustomization.yaml").read_text())
OBJECTS: list[dict[str, Any]] = [
    each for name in KUSTOMIZATION["resources"] for each in yaml.safe_load_all((HERE / "base" / name).read_text())
]
VARIABLES = dict(
    line.split("=", 1) for line in (HERE / "agents.env.example").read_text().splitlines() if "=" in line
)


def one(kind: str, name: str) -> dict[str, Any]:
    [found] = [each for each in OBJECTS if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


async def test_a_node_and_a_worker(start, document) -> None:
    async with RedisServer("valkey") as redis:
        # As agents.env has them, with another address.
        variables = {
            name: redis.url.rpartition("/")[0] + "/" + value.rpartition("/")[2]
            for name, value in VARIABLES.items()
            if name.startswith("AGENTAPP_")
        }
        node = start("python examples/cluster/app.py", PYTHONWARNINGS="", **variables)
        worker = start("python -m trio_agentapp worker examples/cluster/app.py", PYTHONWARNINGS="", **variables)
        await node.wait_ready()
        [chat] = document(PAGE).commands("/process")
        task = "curl -s http://127.0.0.1:8090/squares -H 'Content-Type: application/json' -d '{\"x\": 5}'"
        task_id = (await node.call(task))["task_id"]
        look = f"curl -s http://127.0.0.1:8090/squares/{task_id}"
        with trio.fail_after(30):
            while (body := await node.call(look))["status"] != "finished":
                await trio.sleep(0.05)
        assert body["result"] == {"result": 25}
        with trio.fail_after(30):
            while (await node.call("curl -s http://127.0.0.1:8090/readiness"))["status"] != "healthy":
                await trio.sleep(0.1)
        stream = node.stream(chat)
        await stream.wait_for('"text":"2 "')
        async with httpx.AsyncClient(trust_env=False) as client:
            assert "agent_runs_active 1.0" in (await client.get(f"{node.url}/metrics")).text
        await node.call(
            "curl -s 'http://127.0.0.1:8090/stop?wait=1' -H 'Content-Type: application/json' "
            '-d \'{"session_id": "s1"}\''
        )
        assert (await stream.wait_end())["status"] == "canceled"
        assert await node.stop() == 0
        assert await worker.stop() == 0


def test_the_nodes_are_what_the_command_prints(document) -> None:
    [command] = document(PAGE).commands("--dry-run")
    words = command.replace("\\\n", " ").split()
    assert words[:2] == ["trio-agentapp", "deploy"]
    assert words[-2:] == [">", "examples/cluster/base/agents.yaml"]
    done = subprocess.run(
        [sys.executable, "-m", "trio_agentapp", *words[1:-2]], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout == (HERE / "base/agents.yaml").read_text()


def test_names_and_secrets_agree() -> None:
    for each in OBJECTS:
        if each["kind"] not in ("Deployment", "StatefulSet"):
            continue
        pod = each["spec"]["template"]
        assert each["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        [container] = pod["spec"]["containers"]
        for variable in container.get("env", ()):
            if "valueFrom" in variable:
                reference = variable["valueFrom"]["secretKeyRef"]
                assert reference["name"] == "agents"
                assert reference["key"] in VARIABLES
        assert all(source["secretRef"]["name"] == "agents" for source in container.get("envFrom", ()))
        mounts = {mount["name"] for mount in container["volumeMounts"]}
        claims = {claim["metadata"]["name"] for claim in each["spec"].get("volumeClaimTemplates", ())}
        assert mounts == {volume["name"] for volume in pod["spec"]["volumes"]} | claims
    generated = {each["name"]: each["files"] for each in KUSTOMIZATION["configMapGenerator"]}
    assert all((HERE / "base" / name).is_file() for files in generated.values() for name in files)
    labels = one("Deployment", "agents")["spec"]["template"]["metadata"]["labels"]
    for service in ("agents", "agents-nodes"):
        assert one("Service", service)["spec"]["selector"].items() <= labels.items()
    server = re.fullmatch(r"redis://:change-me@(\w+):(\d+)/0", VARIABLES["AGENTAPP_INTERRUPT_REDIS_URL"])
    assert server
    assert server[1] in COMPOSE["services"]
    assert one("Service", server[1])["spec"]["ports"][0]["port"] == int(server[2])


def test_prometheus_asks_each_node() -> None:
    [job] = yaml.safe_load((HERE / "base/prometheus.yml").read_text())["scrape_configs"]
    [found] = job["dns_sd_configs"]
    assert found["names"] == ["agents-nodes"]
    headless = one("Service", "agents-nodes")
    assert headless["spec"]["clusterIP"] == "None"
    [container] = one("Deployment", "agents")["spec"]["template"]["spec"]["containers"]
    assert found["port"] == headless["spec"]["ports"][0]["port"] == container["ports"][0]["containerPort"]
    nodes = [COMPOSE["services"][name] for name in ("agent-1", "agent-2")]
    assert all(node["networks"]["default"]["aliases"] == ["agents-nodes"] for node in nodes)
    assert [node["ports"][0].rpartition(":")[2] for node in nodes] == [str(found["port"])] * 2


def test_everything_has_time_to_drain() -> None:
    grace = one("Deployment", "agents")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    pre_stop = 5
    assert one("Deployment", "worker")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= 60 + 30
    for name in ("agent-1", "agent-2", "worker"):
        seconds = int(COMPOSE["services"][name]["stop_grace_period"].removesuffix("s"))
        assert seconds >= grace - pre_stop - 5


@pytest.mark.parametrize(
    "command",
    [
        ("docker-compose", "-f", "compose.yaml", "config"),
        ("docker", "compose", "-f", "compose.yaml", "config"),
        ("kubectl", "kustomize", "base"),
    ],
    ids=lambda command: command[0],
)
def test_the_tools_read_the_files(command: tuple[str, ...], tmp_path: Path) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    if (
        command[1] == "compose"
        and subprocess.run(["docker", "compose"], capture_output=True, check=False).returncode
    ):
        pytest.skip("docker has no compose plugin")
    shutil.copytree(HERE, tmp_path / "cluster")
    shutil.copy(HERE / "agents.env.example", tmp_path / "cluster/agents.env")
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path / "cluster", check=False)
    assert done.returncode == 0, done.stderr
    if command[0] == "kubectl":
        found = list(yaml.safe_load_all(done.stdout))
        assert {each["metadata"]["namespace"] for each in found} == {"agents"}
        images = re.findall(r"image: (\S+)", done.stdout)
        assert images.count("registry.example.com/agents:1") == 2
