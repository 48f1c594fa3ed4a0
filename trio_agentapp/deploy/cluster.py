"""The API of a Kubernetes cluster, through its official client; errors are sentences that say what to do.

The client blocks, so each call is made in a thread. Its own time-out ends a call that is abandoned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import trio

from ..errors import ConfigurationError, DeployError
from .extras import needed

__all__ = ["Cluster", "Conflict", "K8sConfig", "kind_of"]

REQUEST_TIMEOUT = 10.0
"""Seconds for the answer to one request."""

CONTAINER = "agent"

KINDS = {
    "Deployment": ("AppsV1Api", "deployment"),
    "HorizontalPodAutoscaler": ("AutoscalingV2Api", "horizontal_pod_autoscaler"),
    "Ingress": ("NetworkingV1Api", "ingress"),
    "NetworkPolicy": ("NetworkingV1Api", "network_policy"),
    "Pod": ("CoreV1Api", "pod"),
    "PodDisruptionBudget": ("PolicyV1Api", "pod_disruption_budget"),
    "Secret": ("CoreV1Api", "secret"),
    "Service": ("CoreV1Api", "service"),
    "ServiceAccount": ("CoreV1Api", "service_account"),
}
"""Class of the client, and the end of its methods' names."""

CUSTOM = {
    "KnativeService": ("serving.knative.dev", "v1", "services", "Knative Serving"),
    "Sandbox": ("agents.kruise.io", "v1alpha1", "sandboxes", "OpenKruise Agents"),
}
"""Group, version and plural of kinds that a cluster has only with a certain product, and its name."""


def kind_of(item: Mapping[str, Any]) -> str:
    """The kind of an object as `Cluster` names it: Knative, too, calls one of its kinds Service."""
    knative = str(item.get("apiVersion")).startswith("serving.knative.dev/")
    return "KnativeService" if knative else str(item["kind"])


@attrs.frozen(kw_only=True)
class K8sConfig:
    """A namespace of a cluster: of `kubeconfig_path`, else `KUBECONFIG`, `~/.kube/config`, or that of this pod."""

    k8s_namespace: str = "default"
    kubeconfig_path: str | None = None
    context: str | None = None
    request_timeout: float = REQUEST_TIMEOUT


class Conflict(DeployError):
    """Another client has changed the object meanwhile, or has made one of this name."""


class Cluster:
    """One cluster, and one namespace of it. Objects are dicts, spelt as in YAML."""

    def __init__(self, config: K8sConfig) -> None:
        """Read the configuration. Nothing is sent.

        Raises:
            ConfigurationError: there is no kubeconfig, or it cannot be used, or the extra is not installed.
        """
        self.namespace = config.k8s_namespace
        self._client = needed("kubernetes.client", "kubernetes")
        self._timeout = config.request_timeout
        self._api = _api_client(config)
        self.host = str(self._api.configuration.host)

    async def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return the object; None if there is none."""
        try:
            return await self._call(kind, "read", name, self.namespace)
        except _Missing:
            return None

    async def create(self, item: Mapping[str, Any]) -> dict[str, Any]:
        return await self._call(kind_of(item), "create", self.namespace, body=item)

    async def replace(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the object as a whole. With `resourceVersion` in its metadata, only if it has not changed."""
        return await self._call(kind_of(item), "replace", item["metadata"]["name"], self.namespace, body=item)

    async def delete(self, kind: str, name: str) -> bool:
        """Delete the object and what belongs to it; returns whether it existed."""
        try:
            await self._call(kind, "delete", name, self.namespace, propagation_policy="Background")
        except _Missing:
            return False
        return True

    async def list(self, kind: str, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        found = await self._call(kind, "list", self.namespace, label_selector=selector)
        # Checked here too: then a server that ignores the selector cannot make this end the services of others.
        return [each for each in found["items"] if labels.items() <= (each["metadata"].get("labels") or {}).items()]

    async def logs(self, pod: str, lines: int) -> str:
        """The last lines that the app has written in a pod, which may have containers of others, too."""
        api = self._client.CoreV1Api(self._api)
        found = await self._in_thread(
            "Pod",
            pod,
            lambda: api.read_namespaced_pod_log(
                pod, self.namespace, container=CONTAINER, tail_lines=lines, **self._limits()
            ),
        )
        return str(found)

    def _limits(self) -> dict[str, float]:
        return {"_request_timeout": self._timeout}

    async def _call(self, kind: str, verb: str, *args: str, **options: Any) -> dict[str, Any]:
        name = options["body"]["metadata"]["name"] if "body" in options else args[0]
        method = self._custom(kind, verb) if kind in CUSTOM else self._method(kind, verb)
        try:
            found = await self._in_thread(kind, name, lambda: method(*args, **options, **self._limits()))
        except _Missing as error:
            if kind in CUSTOM and verb in ("create", "list"):
                product = CUSTOM[kind][-1]
                raise DeployError(
                    f"the cluster at {self.host} has no {product}; install it, or use deploy k8s"
                ) from error
            raise
        plain: dict[str, Any] = self._api.sanitize_for_serialization(found)
        return plain

    def _method(self, kind: str, verb: str) -> Any:
        group, ending = KINDS[kind]
        return getattr(getattr(self._client, group)(self._api), f"{verb}_namespaced_{ending}")

    def _custom(self, kind: str, verb: str) -> Any:
        """The same for a kind of `CUSTOM`, with the same arguments."""
        group, version, plural, _ = CUSTOM[kind]
        api = self._client.CustomObjectsApi(self._api)
        method = getattr(api, f"{verb.replace('read', 'get')}_namespaced_custom_object")

        def call(*args: str, **options: Any) -> Any:
            *name, namespace = args  # the name of the object comes after the plural here
            return method(group, version, namespace, plural, *name, **options)

        return call

    async def _in_thread(self, kind: str, name: str, call: Any) -> Any:
        exceptions = needed("kubernetes.client.exceptions", "kubernetes")
        http = needed("urllib3.exceptions", "kubernetes")
        try:
            return await trio.to_thread.run_sync(call, abandon_on_cancel=True)
        except exceptions.ApiException as error:
            raise _meaning(error, kind, name, self.namespace, self.host) from error
        except ValueError as error:
            # The client checks answers against its own schemas.
            raise DeployError(
                f"the client does not understand what the cluster at {self.host} has answered for {kind} {name}; "
                "install a version of it that fits the cluster: pip install --upgrade kubernetes"
            ) from error
        except http.HTTPError as error:
            raise DeployError(
                f"the cluster at {self.host} does not answer ({_cause(error)}); check the network, and that the "
                "kubeconfig names the right cluster: kubectl cluster-info"
            ) from error


class _Missing(DeployError):
    """There is no such object."""


def _api_client(config: K8sConfig) -> Any:
    kube = needed("kubernetes.config", "kubernetes")
    try:
        made = kube.new_client_from_config(config_file=config.kubeconfig_path, context=config.context)
    except kube.ConfigException as error:
        try:
            kube.load_incluster_config()
        except kube.ConfigException:
            where = config.kubeconfig_path or "KUBECONFIG or ~/.kube/config"
            raise ConfigurationError(
                f"no cluster is configured: {_one_line(error)} (looked at {where}); name a kubeconfig with "
                "--kube-config-path, or print the manifests with --dry-run"
            ) from error
        made = needed("kubernetes.client", "kubernetes").ApiClient()
    except (OSError, ValueError, TypeError, KeyError, AttributeError, needed("yaml", "build").YAMLError) as error:
        where = config.kubeconfig_path or "KUBECONFIG or ~/.kube/config"
        raise ConfigurationError(f"the kubeconfig of {where} cannot be read ({type(error).__name__})") from error
    # Requests are repeated by the caller, which knows how long to wait.
    made.rest_client.pool_manager.connection_pool_kw["retries"] = False
    return made


def _meaning(error: Any, kind: str, name: str, namespace: str, host: str) -> DeployError:
    said = _message(error)
    match error.status:
        case 401:
            return DeployError(f"the cluster at {host} refuses the credentials of the kubeconfig; log in again")
        case 403:
            return DeployError(
                f"no right to do this with {kind} {name} in the namespace {namespace}: {said}; ask for the role "
                f"`edit` there: kubectl auth can-i create {kind.lower()} -n {namespace}"
            )
        case 404 if "namespaces" in said and namespace in said:
            return DeployError(f"there is no namespace {namespace}: kubectl create namespace {namespace}")
        case 404:
            return _Missing(f"there is no {kind} {name} in the namespace {namespace}")
        case 409:
            return Conflict(f"another client has changed {kind} {name} at the same time ({said}); try again")
        case 400 | 422:
            return DeployError(f"the cluster refuses {kind} {name}: {said}")
        case 429 | 503 | 504:
            return DeployError(f"the cluster at {host} is overloaded ({error.status}: {said}); try again later")
    return DeployError(f"the cluster at {host} answered {error.status} for {kind} {name}: {said}")


def _message(error: Any) -> str:
    import json

    try:
        return str(json.loads(error.body)["message"])
    except (ValueError, KeyError, TypeError):
        return str(error.reason)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _cause(error: BaseException) -> str:
    return type(getattr(error, "reason", None) or error).__name__
