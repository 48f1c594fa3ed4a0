"""A cluster in a process of its own: `emulator.py SCENARIO`. Prints its URL.

kmock answers the API. It has no controllers, so a task here plays theirs: it gives a Deployment, a service of
Knative or a Sandbox its pods and its status, according to the image.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import Any

import aiohttp
import kmock

RESOURCES = (
    ("v1", "pods"),
    ("v1", "secrets"),
    ("v1", "services"),
    ("v1", "serviceaccounts"),
    ("apps/v1", "deployments"),
    ("policy/v1", "poddisruptionbudgets"),
    ("networking.k8s.io/v1", "networkpolicies"),
    ("networking.k8s.io/v1", "ingresses"),
    ("autoscaling/v2", "horizontalpodautoscalers"),
)
CUSTOM = (("serving.knative.dev/v1", "services"), ("agents.kruise.io/v1alpha1", "sandboxes"))
BASE = "/namespaces/agents"
WAITING = {
    "missing": {"reason": "ErrImagePull", "message": "not found"},
    "crashing": {"reason": "CrashLoopBackOff"},
}


class Emulator(kmock.KubernetesEmulator):
    """Answers PUT of an object, too, which kmock does not, and counts generations. PUT merges as PATCH does."""

    writes = 0

    async def _handle(self, request: kmock.Request) -> aiohttp.web.StreamResponse:
        if request.method == "PUT":
            object.__setattr__(request, "action", kmock.action.UPDATE)
        if sys.argv[1] == "stalled" and request.method == "POST" and request.url.path.endswith("/deployments"):
            await asyncio.sleep(60)
        if request.method in ("PUT", "POST"):
            self.writes += 1
            request.data["metadata"]["generation"] = self.writes
        return await super()._handle(request)


def scenario(cluster: kmock.KubernetesEmulator, name: str) -> None:
    status = {"forbidden": 403, "unauthorised": 401, "overloaded": 503}.get(name)
    if status is not None:
        cluster[f"/apis/apps/v1{BASE}/deployments/friday"] << kmock.Response(
            status=status, payload={"message": f"it is {name}"}
        )
    elif name == "plain":
        # What an API server answers for a group that no product has added.
        cluster[re.compile(r"/apis/(serving\.knative\.dev|agents\.kruise\.io)/.*")] << kmock.Response(
            status=404, payload=b"404 page not found"
        )
    elif name == "hanging":
        cluster[f"/apis/apps/v1{BASE}/deployments/friday"] << (lambda: asyncio.sleep(60))
    elif name == "conflict":
        cluster[f"put /apis/apps/v1{BASE}/deployments/friday"] << kmock.Response(
            status=409, payload={"message": "the object has been modified"}
        )


async def control(session: aiohttp.ClientSession, owners: list[str]) -> None:
    """Do what the controllers of these and of pods do."""
    while True:
        found = []
        for owner in owners:
            async with session.get(owner) as answer:
                found += [(owner, each) for each in (await answer.json()).get("items", [])]
        async with session.get(f"/api/v1{BASE}/pods") as answer:
            pods = (await answer.json()).get("items", [])
        if not found:
            for pod in pods:
                await session.delete(f"/api/v1{BASE}/pods/{pod['metadata']['name']}")
        for owner, each in found:
            await settle(session, owner, each, pods)
        await asyncio.sleep(0.05)


async def settle(
    session: aiohttp.ClientSession, owner: str, found: dict[str, Any], pods: list[dict[str, Any]]
) -> None:
    template = found["spec"]["template"]
    revision = template["metadata"]["labels"]["trio-agentapp/revision"]
    wanted = found["spec"].get("replicas", 1)
    image = template["spec"]["containers"][0]["image"]
    names = {f"{found['metadata']['name']}-{revision}-{number}" for number in range(wanted)}
    there = {pod["metadata"]["name"] for pod in pods}
    waiting = WAITING.get(image.partition(":")[0])
    [container] = template["spec"]["containers"]
    for probe in (container["readinessProbe"], container["livenessProbe"]):
        probe["httpGet"].setdefault("port", 8090)  # as Knative does
    for name in names - there:
        state = {
            "name": "agent",
            "ready": image.startswith("good"),
            "restartCount": 0,
            "image": image,
            "imageID": "",
            "state": {"waiting": waiting} if waiting else {"running": {}},
        }
        pod = {
            "metadata": {"name": name, "namespace": "agents", "labels": template["metadata"]["labels"]},
            "spec": template["spec"],
            "status": {"containerStatuses": [state]},
        }
        await session.post(f"/api/v1{BASE}/pods", json=pod)
    good = image.startswith("good")
    if good:
        for name in there - names:
            await session.delete(f"/api/v1{BASE}/pods/{name}")
    status: dict[str, Any] = {
        "replicas": wanted,
        "updatedReplicas": wanted,
        "availableReplicas": wanted if good else 0,
        "observedGeneration": found["metadata"]["generation"],
    }
    if not owner.endswith("/deployments"):
        ready = {"type": "Ready", "status": "True" if good else "Unknown", "reason": "Deploying"}
        if image.startswith("refused"):
            ready |= {"status": "False", "reason": "RevisionFailed", "message": "it is refused"}
        status = {
            "conditions": [ready],
            "observedGeneration": found["metadata"]["generation"],
            "url": "http://friday.agents.example.com",
            "phase": "Failed" if image.startswith("refused") else "Running",
        }
    if found.get("status") != status:
        await session.patch(f"{owner}/{found['metadata']['name']}/status", json={"status": status})


async def main() -> None:
    async with Emulator() as cluster, kmock.Server(cluster) as server:
        custom = () if sys.argv[1] == "plain" else CUSTOM
        for version, plural in (*RESOURCES, *custom):
            cluster.resources[f"{version}/{plural}"] = {"namespaced": True}
        cluster[kmock.subresource("log")] << "one\ntwo"
        scenario(cluster, sys.argv[1])
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        async with aiohttp.ClientSession(base_url=str(server.url)) as session:
            owners = [
                f"/apis/{version}{BASE}/{plural}" for version, plural in (("apps/v1", "deployments"), *custom)
            ]
            await control(session, owners)


asyncio.run(main())
