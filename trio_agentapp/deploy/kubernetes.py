"""`KubernetesDeployManager` runs apps in a Kubernetes cluster."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import trio

from ..abc import DeployManager
from ..errors import DeployError
from ..protocol.deployment import Deployment, DeploymentState, DeploymentStatus
from .asyncio_bridge import run_trio
from .cluster import Cluster, Conflict, K8sConfig
from .manifests import MANAGED_BY, Workload, manifests
from .workload_of import environment_secret, workload_of

if TYPE_CHECKING:
    from ..app import AgentApp

__all__ = ["K8sConfig", "KubernetesDeployManager"]

logger = logging.getLogger(__name__)

MODE = "kubernetes"
READY_TIMEOUT = 300.0
PAUSE = 0.5
"""Seconds between two looks at a Deployment."""

ATTEMPTS = 3
"""How often an object is read and replaced when another client, such as a controller, changes it meanwhile."""

HOPELESS = {
    "ErrImagePull": "the image cannot be pulled",
    "ImagePullBackOff": "the image cannot be pulled",
    "InvalidImageName": "the image has no valid name",
    "ErrImageNeverPull": "the image is not on the machine",
    "CreateContainerConfigError": "a Secret or key that it needs is missing",
    "CrashLoopBackOff": "the app ends again and again",
}
"""Reasons of waiting containers that do not go away by themselves."""

PUSH = "push it, check its name and tag, or name the Secret of its registry: --image-pull-secret NAME"
ADVICE = {
    "ErrImagePull": PUSH,
    "ImagePullBackOff": PUSH,
    "CreateContainerConfigError": "create it",
}


class KubernetesDeployManager(DeployManager):
    """Runs apps in one namespace of a cluster. Needs `trio-agentapp[kubernetes]`.

    The cluster has the records: a deployment is a Deployment with a label of this package; its id is its name.
    Each method can be awaited from Trio and from asyncio, and raises `DeployError` or `ConfigurationError` with a
    sentence that says what to do.

    `deploy_timeout`: the seconds in which pods must be ready. `report` is called with the name of each step.
    """

    def __init__(
        self,
        kube_config: K8sConfig | None = None,
        *,
        deploy_timeout: float = READY_TIMEOUT,
        report: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.kube_config = kube_config or K8sConfig()
        self.deploy_timeout = deploy_timeout
        self._report = report

    async def deploy(
        self,
        app: AgentApp | None = None,
        *,
        entrypoint: str | None = None,
        environment: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Deployment:
        """Make or update all objects of an app, and wait until its new pods are ready.

        `options` are the fields of `Workload`, such as `image`, `replicas` and `redis_secret`. If the pods of an
        update are not ready, the former version is put back; if those of a first one are not, all is deleted.

        Raises:
            DeployError: the cluster refuses an object or does not answer; an object of this name belongs to another
                program; the pods were not ready in time, with the reason of one.
            ConfigurationError: no cluster is configured, or an option cannot be used.
            TypeError: there is no such option.
        """
        namespace = self.kube_config.k8s_namespace
        work = workload_of(app, entrypoint, environment or {}, {"namespace": namespace, **options})
        return await run_trio(self._deploy, work, dict(environment or {}))

    async def status(self, deploy_id: str) -> DeploymentStatus:
        return await run_trio(self._status, deploy_id)

    async def list(self) -> Sequence[DeploymentStatus]:
        return await run_trio(self._list)

    async def logs(self, deploy_id: str, *, lines: int = 100) -> str:
        """The last lines of each pod, after a line with its name."""
        return await run_trio(self._logs, deploy_id, lines)

    async def scale(self, deploy_id: str, replicas: int) -> DeploymentStatus:
        """Change the number of pods, and wait until they are ready. Pods that go drain first."""
        return await run_trio(self._scale, deploy_id, replicas)

    async def stop(self, deploy_id: str) -> DeploymentStatus:
        """Delete all objects of a deployment. Returns when its pods have drained and ended."""
        return await run_trio(self._stop, deploy_id)

    # The methods below need Trio.

    async def _deploy(self, work: Workload, environment: dict[str, str]) -> Deployment:
        cluster = self._cluster(work.namespace)
        before = await cluster.get("Deployment", work.name)
        former = await cluster.get("Secret", environment_secret(work.name))
        for found in filter(None, (before, former)):
            _check_owner(found)
        objects = manifests(work)
        if environment:
            objects.insert(0, _secret(work, environment))
        ready = False
        try:
            for item in objects:
                self._report(f"Applying {item['kind']} {item['metadata']['name']}")
                await self._apply(cluster, item)
            self._report(f"Waiting for {work.name} to be ready")
            await self._wait_rollout(cluster, work.name, self.deploy_timeout)
            ready = True
        finally:
            if not ready:
                with trio.move_on_after(self.kube_config.request_timeout * len(objects)) as scope:
                    scope.shield = True
                    try:
                        await self._undo(cluster, work.name, before, former)
                    except DeployError as error:  # the first error is raised
                        logger.warning("%s could not be put back as it was: %s", work.name, error)
        url = f"http://{work.name}.{work.namespace}.svc"
        if work.ingress_host is not None:
            url = f"{'https' if work.tls_secret else 'http'}://{work.ingress_host}"
        return Deployment(deploy_id=work.name, url=url, mode=MODE, pid=0)

    def _cluster(self, namespace: str | None = None) -> Cluster:
        import attrs

        config = self.kube_config
        return Cluster(config if namespace is None else attrs.evolve(config, k8s_namespace=namespace))

    async def _apply(self, cluster: Cluster, item: dict[str, Any]) -> None:
        """Create the object, or replace it if it is ours.

        Raises:
            Conflict: other clients changed it during each attempt.
        """
        for attempt in range(ATTEMPTS):
            try:
                found = await cluster.get(item["kind"], item["metadata"]["name"])
                if found is None:
                    await cluster.create(item)
                else:
                    _check_owner(found)
                    await cluster.replace(_successor(item, found))
            except Conflict:
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                return

    async def _undo(
        self, cluster: Cluster, name: str, before: dict[str, Any] | None, former: dict[str, Any] | None
    ) -> None:
        """Put back the Deployment and the environment. If there was none before, delete all."""
        if before is None:
            await self._delete(cluster, name)
            return
        if former is not None and (now := await cluster.get("Secret", environment_secret(name))) is not None:
            await cluster.replace({**now, "kind": "Secret", "data": former.get("data")})
        if (now := await cluster.get("Deployment", name)) is not None:
            await cluster.replace({**now, "kind": "Deployment", "spec": before["spec"]})

    async def _wait_rollout(self, cluster: Cluster, name: str, timeout: float) -> None:
        reason = "no pod was started"
        with trio.move_on_after(timeout):
            while True:
                found = await cluster.get("Deployment", name)
                if found is None:
                    raise DeployError(f"the Deployment {name} was deleted meanwhile")
                if _complete(found):
                    return
                pods = await cluster.list("Pod", _newest(found))
                for pod in pods:
                    if (hopeless := _hopeless(pod)) is not None:
                        raise DeployError(hopeless)
                reason = _pending(found, pods)
                await trio.sleep(PAUSE)
        raise DeployError(f"{name} was not ready in {timeout:g} s: {reason}")

    async def _status(self, name: str) -> DeploymentStatus:
        cluster = self._cluster()
        return await self._seen(cluster, await self._found(cluster, name))

    async def _found(self, cluster: Cluster, name: str) -> dict[str, Any]:
        found = await cluster.get("Deployment", name)
        if found is None:
            raise DeployError(f"there is no deployment {name!r} in the namespace {cluster.namespace}")
        _check_owner(found)
        return found

    async def _seen(self, cluster: Cluster, found: dict[str, Any]) -> DeploymentStatus:
        if _complete(found):
            return _status_of(found, DeploymentState.READY, None)
        pods = await cluster.list("Pod", _newest(found))
        hopeless = next(filter(None, map(_hopeless, pods)), None)
        if hopeless is not None and not (found.get("status") or {}).get("availableReplicas"):
            return _status_of(found, DeploymentState.DEAD, hopeless)
        return _status_of(found, DeploymentState.UNREADY, hopeless or _pending(found, pods))

    async def _list(self) -> Sequence[DeploymentStatus]:
        cluster = self._cluster()
        found = await cluster.list("Deployment", {"app.kubernetes.io/managed-by": MANAGED_BY})
        seen = [await self._seen(cluster, each) for each in found]
        return sorted(seen, key=lambda status: status.started_at)

    async def _logs(self, name: str, lines: int) -> str:
        cluster = self._cluster()
        await self._found(cluster, name)
        pods = await cluster.list("Pod", _labels(name))
        texts = [
            f"{pod['metadata']['name']}:\n{await cluster.logs(pod['metadata']['name'], lines)}" for pod in pods
        ]
        return "\n".join(texts) or f"{name} has no pods"

    async def _scale(self, name: str, replicas: int) -> DeploymentStatus:
        if replicas < 0:
            raise DeployError(f"replicas must be 0 or more, not {replicas}")
        cluster = self._cluster()
        found = await self._found(cluster, name)
        if await cluster.get("HorizontalPodAutoscaler", name) is not None:
            raise DeployError(
                f"{name} has an autoscaler, which would undo this; deploy it again with other --replicas and "
                "--max-replicas"
            )
        if replicas > 1 and found["spec"]["strategy"]["type"] == "Recreate":
            raise DeployError(
                f"{name} has no shared Redis, so several pods would not know of each other's runs; deploy it again "
                "with --redis-secret NAME"
            )
        await cluster.replace({**found, "kind": "Deployment", "spec": {**found["spec"], "replicas": replicas}})
        await self._wait_rollout(cluster, name, self.deploy_timeout)
        return await self._status(name)

    async def _stop(self, name: str) -> DeploymentStatus:
        cluster = self._cluster()
        found = await self._found(cluster, name)
        await self._delete(cluster, name)
        grace = found["spec"]["template"]["spec"].get("terminationGracePeriodSeconds", 30)
        with trio.move_on_after(grace + 30) as scope:
            while await cluster.list("Pod", _labels(name)):
                self._report(f"Waiting for the pods of {name} to drain")
                await trio.sleep(PAUSE)
        reason = f"pods are still there after {math.ceil(grace + 30)} s" if scope.cancelled_caught else None
        return _status_of(found, DeploymentState.STOPPED, reason)

    async def _delete(self, cluster: Cluster, name: str) -> None:
        """Delete the objects of one deployment, and no others of the same names."""
        for kind in ("HorizontalPodAutoscaler", "Ingress", "Deployment", "Service", "PodDisruptionBudget"):
            await self._delete_own(cluster, kind, name)
        for kind, each in (("NetworkPolicy", name), ("ServiceAccount", name), ("Secret", environment_secret(name))):
            await self._delete_own(cluster, kind, each)

    async def _delete_own(self, cluster: Cluster, kind: str, name: str) -> None:
        found = await cluster.get(kind, name)
        if found is not None and _is_own(found):
            await cluster.delete(kind, name)


def _labels(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": MANAGED_BY}


def _newest(found: Mapping[str, Any]) -> dict[str, str]:
    """The labels of its pods of the newest version. Those of former versions may be failing still."""
    labels: dict[str, str] = found["spec"]["template"]["metadata"]["labels"]
    return labels


def _is_own(item: Mapping[str, Any]) -> bool:
    return (item["metadata"].get("labels") or {}).get("app.kubernetes.io/managed-by") == MANAGED_BY


def _check_owner(item: Mapping[str, Any]) -> None:
    if not _is_own(item):
        raise DeployError(
            f"{item.get('kind') or 'the object'} {item['metadata']['name']} belongs to another program; choose "
            "another name: --name NAME"
        )


def _secret(work: Workload, environment: dict[str, str]) -> dict[str, Any]:
    import base64

    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {
            "name": environment_secret(work.name),
            "namespace": work.namespace,
            "labels": {**work.selector, "app.kubernetes.io/managed-by": MANAGED_BY},
        },
        "data": {name: base64.b64encode(value.encode()).decode() for name, value in environment.items()},
    }


def _successor(item: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The object that replaces `found`, if no other client changes that first."""
    metadata = dict(item["metadata"])
    if version := found["metadata"].get("resourceVersion"):
        metadata["resourceVersion"] = version
    made = {**item, "metadata": metadata}
    if item["kind"] == "Deployment" and "replicas" not in item["spec"] and "replicas" in found["spec"]:
        made["spec"] = {**item["spec"], "replicas": found["spec"]["replicas"]}
    return made


def _complete(found: Mapping[str, Any]) -> bool:
    """Whether all pods are of the newest version and available, as `kubectl rollout status` decides it."""
    status = found.get("status") or {}
    wanted = found["spec"].get("replicas", 1)
    if status.get("observedGeneration", 0) < found["metadata"].get("generation", 0):
        return False
    counts = [status.get(name) or 0 for name in ("updatedReplicas", "replicas", "availableReplicas")]
    return counts == [wanted] * 3 and ("availableReplicas" in status or wanted == 0)


def _hopeless(pod: Mapping[str, Any]) -> str | None:
    """Why a pod will not become ready by itself."""
    for state in (pod.get("status") or {}).get("containerStatuses") or ():
        waiting = (state.get("state") or {}).get("waiting") or {}
        if (reason := waiting.get("reason")) in HOPELESS:
            image = state.get("image") or ""
            advice = ADVICE.get(reason, f"see its log: kubectl logs {pod['metadata']['name']} --previous")
            said = f": {waiting['message']}" if waiting.get("message") else ""
            return f"{HOPELESS[reason]} ({reason}, {image}){said}; {advice}"
    return None


def _pending(found: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> str:
    for pod in pods:
        for condition in (pod.get("status") or {}).get("conditions") or ():
            if condition.get("reason") == "Unschedulable":
                return f"no machine has room for a pod ({condition.get('message')}); lower its --cpu-request"
    for condition in (found.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "ReplicaFailure":
            return f"its pods are refused ({condition.get('message')})"
    status = found.get("status") or {}
    wanted = found["spec"].get("replicas", 1)
    return f"{status.get('availableReplicas') or 0} of {wanted} pods are ready"


def _status_of(found: Mapping[str, Any], state: DeploymentState, reason: str | None) -> DeploymentStatus:
    metadata = found["metadata"]
    [container] = found["spec"]["template"]["spec"]["containers"]
    began = metadata.get("creationTimestamp")
    return DeploymentStatus(
        deploy_id=metadata["name"],
        state=state,
        url=f"http://{metadata['name']}.{metadata['namespace']}.svc",
        mode=MODE,
        pid=None,
        app_name=metadata["name"],
        entrypoint=container["image"],
        log="",
        started_at=datetime.fromisoformat(began).timestamp() if began else 0.0,
        reason=reason,
    )
