"""`KubernetesDeployManager` runs apps in a Kubernetes cluster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import attrs
import trio

from ..abc import DeployManager
from ..errors import DeployError
from ..protocol.deployment import Deployment, DeploymentState, DeploymentStatus
from .asyncio_bridge import run_trio
from .cluster import Cluster, Conflict, K8sConfig, kind_of
from .images import ImageBuild, RegistryConfig
from .manifests import MANAGED_BY, PLATFORM
from .platforms import DEPLOYMENTS, Platform
from .pods import hopeless
from .records import Records
from .workload import Workload, environment_secret, workload_of

if TYPE_CHECKING:
    from ..app import AgentApp

__all__ = ["K8sConfig", "KubernetesDeployManager"]

logger = logging.getLogger(__name__)

READY_TIMEOUT = 300.0
PAUSE = 0.5
"""Seconds between two looks at a Deployment."""

ATTEMPTS = 3
"""How often an object is read and replaced when another client, such as a controller, changes it meanwhile."""

DRAIN_MARGIN = 30
"""Seconds beyond the grace period in which pods that were deleted must be gone."""


class KubernetesDeployManager(DeployManager):
    """Runs apps in one namespace of a cluster. Needs `trio-agentapp[kubernetes]`.

    The cluster has the records: a deployment is a Deployment with a label of this package; its id is its name.
    Each method can be awaited from Trio and from asyncio, and raises `DeployError` or `ConfigurationError` with a
    sentence that says what to do.

    `deploy_timeout`: the seconds in which pods must be ready. `report` is called with the name of each step; one
    that can be counted has a part like `3 of 12`.
    """

    _platform: Platform = DEPLOYMENTS

    def __init__(
        self,
        kube_config: K8sConfig | None = None,
        registry_config: RegistryConfig | None = None,
        *,
        deploy_timeout: float = READY_TIMEOUT,
        report: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.kube_config = kube_config or K8sConfig()
        self.registry_config = registry_config or RegistryConfig()
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
        """Build the image, make or update all objects of an app, and wait until its new pods are ready.

        `options` are the fields of `Workload`, such as `image`, `replicas` and `redis_secret`, and those of
        `ImageOptions`, such as `push_to_registry`. With `image` alone nothing is built. If the pods of an update
        are not ready, the former version is put back; if those of a first one are not, all is deleted.

        Raises:
            DeployError: the image cannot be built or pushed; the cluster refuses an object or does not answer; an
                object of this name belongs to another program; the pods were not ready in time, with the reason.
            ConfigurationError: no cluster is configured, or an option cannot be used.
            TypeError: there is no such option.
        """
        namespace = self.kube_config.k8s_namespace
        given = {"namespace": namespace, **options}
        work, build = workload_of(app, entrypoint, environment or {}, given, self.registry_config)
        return await run_trio(self._deploy, work, build, dict(environment or {}))

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

    @classmethod
    def manifests(cls, work: Workload) -> Sequence[dict[str, Any]]:
        """Return the objects of an app, as `deploy` makes them; without the Secret of its environment.

        Raises:
            ConfigurationError: an option means nothing here.
        """
        objects = cls._platform.manifests(work)
        for each in objects:
            each["metadata"]["labels"][PLATFORM] = cls._platform.mode
        return objects

    # The methods below need Trio.

    async def _deploy(self, work: Workload, build: ImageBuild | None, environment: dict[str, str]) -> Deployment:
        objects = [*self.manifests(work)]
        cluster = self._cluster(work.namespace)
        with _only_one(cluster, work.name):
            made = await self._roll_out(cluster, objects, work, build, environment)
        url = self._platform.url(made)
        if work.ingress_host is not None:
            url = f"{'https' if work.tls_secret else 'http'}://{work.ingress_host}"
        return Deployment(deploy_id=work.name, url=url, mode=self._platform.mode)

    async def _roll_out(
        self,
        cluster: Cluster,
        objects: Sequence[dict[str, Any]],
        work: Workload,
        build: ImageBuild | None,
        environment: dict[str, str],
    ) -> dict[str, Any]:
        """Build and apply all, and wait until it is ready; otherwise put back what there was."""
        before = await cluster.get(self._platform.kind, work.name)
        former = await cluster.get("Secret", environment_secret(work.name))
        for found in filter(None, (before, former)):
            _check_owner(found)
        # After the first answer of the cluster: a build of minutes would be in vain without its rights.
        if build is not None:
            await build.run(self._report)
        if environment:
            objects = [_secret(work, environment, self._platform.mode), *objects]
        ready = False
        try:
            for item in objects:
                self._report(f"Applying {item['kind']} {item['metadata']['name']}")
                await self._apply(cluster, item)
            self._report(f"Waiting for {work.name} to be ready")
            made = await self._wait_rollout(cluster, work.name, self.deploy_timeout)
            ready = True
        finally:
            if not ready:
                seconds = self.kube_config.request_timeout * len(objects)
                if before is not None and self._platform.replaced_as_whole:
                    seconds += self._platform.grace_period(before) + DRAIN_MARGIN
                with trio.move_on_after(seconds) as scope:
                    scope.shield = True
                    try:
                        await self._undo(cluster, work.name, before, former)
                    except DeployError as error:  # the first error is raised
                        logger.warning("%s could not be put back as it was: %s", work.name, error)
        return made

    def _cluster(self, namespace: str | None = None) -> Cluster:
        config = self.kube_config
        return Cluster(config if namespace is None else attrs.evolve(config, k8s_namespace=namespace))

    async def _apply(self, cluster: Cluster, item: dict[str, Any]) -> None:
        """Create the object, or replace it if it is ours.

        Raises:
            Conflict: other clients changed it during each attempt.
        """
        for attempt in range(ATTEMPTS):
            try:
                found = await cluster.get(kind_of(item), item["metadata"]["name"])
                if found is None:
                    await cluster.create(item)
                else:
                    _check_owner(found)
                    await self._replace(cluster, item, found)
            except Conflict:
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                return

    async def _replace(self, cluster: Cluster, item: dict[str, Any], found: dict[str, Any]) -> None:
        if not self._platform.replaced_as_whole or kind_of(item) != self._platform.kind:
            await cluster.replace(_successor(item, found))
        elif _newest(item) != _newest(found):
            await cluster.delete(self._platform.kind, item["metadata"]["name"])
            if (reason := await self._wait_drained(cluster, found)) is not None:
                raise DeployError(f"{item['metadata']['name']} cannot be replaced: {reason}")
            await cluster.create(item)

    async def _undo(
        self, cluster: Cluster, name: str, before: dict[str, Any] | None, former: dict[str, Any] | None
    ) -> None:
        """Put back the Deployment and the environment. If there was none before, delete all."""
        if before is None:
            await self._delete(cluster, name)
            return
        if former is not None and (now := await cluster.get("Secret", environment_secret(name))) is not None:
            await cluster.replace({**now, "kind": "Secret", "data": former.get("data")})
        kept = {key: before["metadata"].get(key) for key in ("name", "namespace", "labels", "annotations")}
        await self._apply(cluster, {"kind": self._platform.kind, **before, "metadata": kept, "status": None})

    async def _wait_rollout(self, cluster: Cluster, name: str, timeout: float) -> dict[str, Any]:
        reason = "no pod was started"
        with trio.move_on_after(timeout):
            while True:
                found = await cluster.get(self._platform.kind, name)
                if found is None:
                    raise DeployError(f"the {self._platform.kind} {name} was deleted meanwhile")
                if self._platform.complete(found):
                    return found
                pods = await cluster.list("Pod", _newest(found))
                if (failure := self._failure(found, pods)) is not None:
                    raise DeployError(failure)
                if reason != (reason := self._platform.pending(found, pods)):
                    self._report(f"Waiting for {name} to be ready: {reason}")
                await trio.sleep(PAUSE)
        raise DeployError(f"{name} was not ready in {timeout:g} s: {reason}")

    async def _status(self, name: str) -> DeploymentStatus:
        cluster = self._cluster()
        if rest := await self._rest(cluster, name):
            return self._broken_off(next(iter(rest.values())))
        return await self._seen(cluster, await self._found(cluster, name))

    async def _found(self, cluster: Cluster, name: str) -> dict[str, Any]:
        found = await cluster.get(self._platform.kind, name)
        if found is None:
            raise DeployError(f"there is no deployment {name!r} in the namespace {cluster.namespace}")
        _check_owner(found)
        return found

    async def _rest(self, cluster: Cluster, name: str) -> dict[str, dict[str, Any]]:
        """What a deployment has left that was broken off before it had pods, by kind; nothing if it has pods."""
        if await cluster.get(self._platform.kind, name) is not None:
            return {}
        names = {**dict.fromkeys(self._platform.kinds, name), "Secret": environment_secret(name)}
        found = {kind: await cluster.get(kind, each) for kind, each in names.items()}
        return {
            kind: each for kind, each in found.items() if each and _label(each, PLATFORM) == self._platform.mode
        }

    async def _seen(self, cluster: Cluster, found: dict[str, Any]) -> DeploymentStatus:
        if self._platform.complete(found):
            return self._status_of(found, DeploymentState.READY, None)
        pods = await cluster.list("Pod", _newest(found))
        failure = self._failure(found, pods)
        if failure is not None and not (found.get("status") or {}).get("availableReplicas"):
            return self._status_of(found, DeploymentState.DEAD, failure)
        return self._status_of(found, DeploymentState.UNREADY, failure or self._platform.pending(found, pods))

    def _failure(self, found: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> str | None:
        """Why it will not be ready by itself. A pod gives the reason with an advice, so it comes first."""
        return next(filter(None, map(hopeless, pods)), None) or self._platform.failure(found)

    async def _list(self) -> Sequence[DeploymentStatus]:
        cluster = self._cluster()
        own = {"app.kubernetes.io/managed-by": MANAGED_BY}
        # Each deployment makes its ServiceAccount before the object that has its pods.
        accounts = await cluster.list("ServiceAccount", {**own, PLATFORM: self._platform.mode})
        found = {each["metadata"]["name"]: each for each in await cluster.list(self._platform.kind, own)}
        seen = [await self._seen(cluster, each) for each in found.values()]
        seen += [self._broken_off(each) for each in accounts if each["metadata"]["name"] not in found]
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
        if (fixed := self._platform.fixed_number) is not None:
            raise DeployError(f"the number of pods of {name} cannot be changed: {fixed}")
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
        if await self._rest(cluster, name):
            with _only_one(cluster, name):  # not while a deployment is at work
                rest = await self._rest(cluster, name)
                for kind, each in rest.items():
                    await cluster.delete(kind, each["metadata"]["name"])
            if rest:
                seen = self._broken_off(next(iter(rest.values())))
                return attrs.evolve(seen, state=DeploymentState.STOPPED, reason="its deployment was broken off")
        found = await self._found(cluster, name)
        await self._delete(cluster, name)
        return self._status_of(found, DeploymentState.STOPPED, await self._wait_drained(cluster, found))

    async def _wait_drained(self, cluster: Cluster, found: Mapping[str, Any]) -> str | None:
        """Wait until its pods have ended; returns None, or that they have not."""
        name = found["metadata"]["name"]
        seconds = self._platform.grace_period(found) + DRAIN_MARGIN
        self._report(f"Waiting for the pods of {name} to drain")
        with trio.move_on_after(seconds):
            while await cluster.list("Pod", _labels(name)):  # noqa: ASYNC110  the cluster tells nothing
                await trio.sleep(PAUSE)
            return None
        return f"pods are still there after {seconds} s"

    async def _delete(self, cluster: Cluster, name: str) -> None:
        """Delete the objects of one deployment, and no others of the same names."""
        for kind in self._platform.kinds:
            await self._delete_own(cluster, kind, name)
        await self._delete_own(cluster, "Secret", environment_secret(name))

    async def _delete_own(self, cluster: Cluster, kind: str, name: str) -> None:
        found = await cluster.get(kind, name)
        if found is not None and _is_own(found):
            await cluster.delete(kind, name)

    def _status_of(self, found: Mapping[str, Any], state: DeploymentState, reason: str | None) -> DeploymentStatus:
        metadata = found["metadata"]
        [container] = found["spec"]["template"]["spec"]["containers"]
        return DeploymentStatus(
            deploy_id=metadata["name"],
            state=state,
            url=self._platform.url(found),
            mode=self._platform.mode,
            app_name=metadata["name"],
            entrypoint=container["image"],
            started_at=_began(found),
            reason=reason,
        )

    def _broken_off(self, item: Mapping[str, Any]) -> DeploymentStatus:
        """The state of a deployment of which there is this object, and none that has pods."""
        name = str(_label(item, "app.kubernetes.io/name"))
        return DeploymentStatus(
            deploy_id=name,
            state=DeploymentState.DEAD,
            url="",
            mode=self._platform.mode,
            app_name=name,
            started_at=_began(item),
            reason=f"it has no {self._platform.kind}: its deployment was broken off or is under way; deploy it "
            "again, or stop it to remove the rest",
        )


def _labels(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": MANAGED_BY}


def _newest(found: Mapping[str, Any]) -> dict[str, str]:
    """The labels of its pods of the newest version. Those of former versions may be failing still."""
    labels: dict[str, str] = found["spec"]["template"]["metadata"]["labels"]
    return labels


def _label(item: Mapping[str, Any], name: str) -> str | None:
    found: str | None = (item["metadata"].get("labels") or {}).get(name)
    return found


def _began(item: Mapping[str, Any]) -> float:
    began = item["metadata"].get("creationTimestamp")
    return datetime.fromisoformat(began).timestamp() if began else 0.0


def _is_own(item: Mapping[str, Any]) -> bool:
    return _label(item, "app.kubernetes.io/managed-by") == MANAGED_BY


def _only_one(cluster: Cluster, name: str) -> AbstractContextManager[None]:
    """Hold the lock of a deployment, among the processes of this user on this machine."""
    return Records().only_one(f"{cluster.host} {cluster.namespace} {name}", f"deploys {name}")


def _check_owner(item: Mapping[str, Any]) -> None:
    if not _is_own(item):
        raise DeployError(
            f"{item.get('kind') or 'the object'} {item['metadata']['name']} belongs to another program; choose "
            "another name: --name NAME"
        )


def _secret(work: Workload, environment: dict[str, str], mode: str) -> dict[str, Any]:
    import base64

    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {
            "name": environment_secret(work.name),
            "namespace": work.namespace,
            "labels": {**work.selector, "app.kubernetes.io/managed-by": MANAGED_BY, PLATFORM: mode},
        },
        "data": {name: base64.b64encode(value.encode()).decode() for name, value in environment.items()},
    }


def _successor(item: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The object that replaces `found`, if no other client changes that first."""
    metadata = dict(item["metadata"])
    if version := found["metadata"].get("resourceVersion"):
        metadata["resourceVersion"] = version
    made = {**item, "metadata": metadata}
    # Other programs keep their own there: the creator of a Knative Service, the revision of a Deployment.
    if annotations := {
        **(found["metadata"].get("annotations") or {}),
        **(item["metadata"].get("annotations") or {}),
    }:
        metadata["annotations"] = annotations
    if item["kind"] == "Deployment" and "replicas" not in item["spec"] and "replicas" in found["spec"]:
        made["spec"] = {**item["spec"], "replicas": found["spec"]["replicas"]}
    return made
