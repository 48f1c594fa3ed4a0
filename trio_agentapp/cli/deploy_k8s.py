"""`deploy k8s`, `deploy knative` and `deploy kruise`: an app in a cluster, or its manifests."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .config import read_config
from .deployers import cluster_manager
from .environment import given_variables
from .exits import ExitCode, say
from .options import (
    Allow,
    App,
    AsJson,
    BaseImage,
    Builder,
    Cache,
    Entrypoint,
    Env,
    EnvFile,
    IndexUrl,
    Platform,
    Requirement,
    chosen,
)
from .progress import steps
from .terminal import write, write_json

if TYPE_CHECKING:
    from ..deploy.manifests import Workload

__all__ = ["knative", "kruise", "k8s"]

CONFIG: dict[str, type] = {
    "name": str,
    "namespace": str,
    "image": str,
    "image_name": str,
    "image_tag": str,
    "registry_url": str,
    "registry_namespace": str,
    "push": bool,
    "requirements": list,
    "base_image": str,
    "platform": str,
    "pypi_mirror": str,
    "entrypoint": str,
    "port": int,
    "replicas": int,
    "max_replicas": int,
    "scale_to_zero": bool,
    "redis_secret": str,
    "secrets": list,
    "cpu_request": str,
    "cpu_limit": str,
    "memory_request": str,
    "memory_limit": str,
    "ingress_host": str,
    "ingress_class": str,
    "tls_secret": str,
    "image_pull_policy": str,
    "image_pull_secret": str,
    "node_selector": dict,
    "tolerations": list,
    "labels": dict,
    "annotations": dict,
    "environment": dict,
}
"""Keys of the file of `--config`, with the types of their values."""

Name = Annotated[str | None, typer.Option(help="Of its objects.  [default: the app's name]")]
Namespace = Annotated[str | None, typer.Option(help="[default: default]")]
Image = Annotated[
    str | None, typer.Option(help="An image that a registry has; nothing is built, unless with --push.")
]
ImageName = Annotated[str | None, typer.Option(help="Of the image to build.  [default: --name]")]
ImageTag = Annotated[str | None, typer.Option(help="Of the image to build.  [default: the build's digest]")]
RegistryUrl = Annotated[str | None, typer.Option(help="Registry of the image to build, as HOST:PORT.")]
RegistryNamespace = Annotated[str | None, typer.Option(help="What stands between registry and name.")]
Push = Annotated[bool, typer.Option("--push", help="Push the image to its registry.")]
Replicas = Annotated[int | None, typer.Option(min=1, help="Pods; several need Redis.  [default: 1]")]
MaxReplicas = Annotated[int | None, typer.Option(min=1, help="Scale up to this number.")]
ScaleToZero = Annotated[bool, typer.Option("--scale-to-zero", help="No pod while nobody asks; needs Redis.")]
Port = Annotated[int | None, typer.Option("--port", "-p", min=1024, max=65535, help="In the pod.  [default: 8090]")]
Secret = Annotated[
    list[str] | None, typer.Option("--secret", help="Secret whose keys become variables; may be repeated.")
]
RedisSecret = Annotated[
    str | None, typer.Option(help="The Secret with the URL of Redis, as NAME or NAME:KEY.  [default key: url]")
]
IngressHost = Annotated[str | None, typer.Option(help="Make an Ingress for this host name.")]
IngressClass = Annotated[str | None, typer.Option(help="[default: nginx]")]
TlsSecret = Annotated[str | None, typer.Option(help="The Secret with the certificate of the host.")]
CpuRequest = Annotated[str | None, typer.Option(help="[default: 200m]")]
CpuLimit = Annotated[str | None, typer.Option(help="[default: none]")]
MemoryRequest = Annotated[str | None, typer.Option(help="[default: 512Mi]")]
MemoryLimit = Annotated[str | None, typer.Option(help="[default: 2Gi]")]
PullPolicy = Annotated[str | None, typer.Option(help="[default: IfNotPresent; Always for a pushed tag of yours]")]
PullSecret = Annotated[str | None, typer.Option(help="The Secret for a private registry.")]
Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="These options as JSON, TOML or YAML; options win.")
]
KubeConfig = Annotated[str | None, typer.Option(help="[default: KUBECONFIG, else ~/.kube/config]")]
Context = Annotated[str | None, typer.Option(help="Of the kubeconfig.  [default: its current one]")]
Timeout = Annotated[float, typer.Option(min=0, help="Seconds to wait until pods are ready.")]
HealthCheck = Annotated[bool, typer.Option("--health-check", help="Accepted for old scripts: there always is one.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the manifests; needs no cluster.")]


def _deploy(
    cluster: str,
    app: App,
    entrypoint: Entrypoint = None,
    name: Name = None,
    namespace: Namespace = None,
    image: Image = None,
    image_name: ImageName = None,
    image_tag: ImageTag = None,
    registry_url: RegistryUrl = None,
    registry_namespace: RegistryNamespace = None,
    push: Push = False,
    builder: Builder = None,
    platform: Platform = None,
    base_image: BaseImage = None,
    requirements: Requirement = None,
    pypi_mirror: IndexUrl = None,
    allowed: Allow = None,
    use_cache: Cache = True,
    replicas: Replicas = None,
    max_replicas: MaxReplicas = None,
    scale_to_zero: ScaleToZero = False,
    port: Port = None,
    env: Env = None,
    env_file: EnvFile = None,
    secrets: Secret = None,
    redis_secret: RedisSecret = None,
    ingress_host: IngressHost = None,
    ingress_class: IngressClass = None,
    tls_secret: TlsSecret = None,
    cpu_request: CpuRequest = None,
    cpu_limit: CpuLimit = None,
    memory_request: MemoryRequest = None,
    memory_limit: MemoryLimit = None,
    image_pull_policy: PullPolicy = None,
    image_pull_secret: PullSecret = None,
    config: Config = None,
    kube_config_path: KubeConfig = None,
    context: Context = None,
    deploy_timeout: Timeout = 300.0,
    _: HealthCheck = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> ExitCode:
    """Run an app in a cluster. What none of the options sets is left to the deployer."""
    options = {
        "name": name,
        "namespace": namespace,
        "image": image,
        "image_name": image_name,
        "image_tag": image_tag,
        "registry_url": registry_url,
        "registry_namespace": registry_namespace,
        "push": push or None,
        "builder": builder,
        "platform": platform,
        "base_image": base_image,
        "requirements": requirements,
        "pypi_mirror": pypi_mirror,
        "allowed": allowed,
        "use_cache": use_cache,
        "replicas": replicas,
        "max_replicas": max_replicas,
        "scale_to_zero": scale_to_zero or None,
        "port": port,
        "secrets": secrets,
        "redis_secret": redis_secret,
        "ingress_host": ingress_host,
        "ingress_class": ingress_class,
        "tls_secret": tls_secret,
        "cpu_request": cpu_request,
        "cpu_limit": cpu_limit,
        "memory_request": memory_request,
        "memory_limit": memory_limit,
        "image_pull_policy": image_pull_policy,
        "image_pull_secret": image_pull_secret,
    }
    settings = {} if config is None else read_config(config, CONFIG)
    environment = given_variables(env_file, env, settings.pop("environment", None))
    inside = settings.pop("entrypoint", None)
    source = chosen(app, entrypoint or inside)
    complete = {**settings, **{key: value for key, value in options.items() if value is not None}}
    complete["push_to_registry"] = complete.pop("push", False)

    from ..deploy.images import RegistryConfig

    registry = RegistryConfig(
        registry_url=complete.pop("registry_url", ""), namespace=complete.pop("registry_namespace", "")
    )
    kind = cluster_manager(cluster)
    if dry_run:
        from ..deploy.workload_of import workload_of

        work, _build = workload_of(None, source, environment, complete, registry)
        _print(work, kind.manifests(work), list(environment), as_json)
        return ExitCode.OK

    import trio

    from ..deploy.cluster import K8sConfig

    place = K8sConfig(
        k8s_namespace=complete.pop("namespace", "default"), kubeconfig_path=kube_config_path, context=context
    )
    with steps(silent=as_json) as report:
        manager = kind(place, registry, deploy_timeout=deploy_timeout, report=report)
        done = trio.run(partial(manager.deploy, entrypoint=source, environment=environment, **complete))
    if as_json:
        write_json(done)
    else:
        target = f"{cluster}:{place.k8s_namespace}/{done.deploy_id}"
        say(f"{app} is ready on {done.url} (trio-agentapp stop {target} stops it)")
        write(target)
    return ExitCode.OK


def _print(work: Workload, objects: Sequence[dict[str, Any]], variables: list[str], as_json: bool) -> None:
    from ..deploy.manifests import as_yaml
    from ..deploy.workload_of import environment_secret

    if as_json:
        write_json({"apiVersion": "v1", "kind": "List", "items": objects})
    else:
        write(as_yaml(objects).rstrip("\n"))
    if variables:
        say(
            f"The values of {', '.join(sorted(variables))} are not printed. Before you apply the manifests, make "
            f"the Secret {environment_secret(work.name)} of them: kubectl create secret generic "
            f"{environment_secret(work.name)} --namespace {work.namespace} --from-env-file FILE"
        )


def _command(cluster: str, text: str, *without: str) -> Callable[..., ExitCode]:
    """The command of one kind of cluster: all options but those that mean nothing there."""

    def command(**options: Any) -> ExitCode:
        return _deploy(cluster, **options)

    given = inspect.signature(_deploy, eval_str=True).parameters
    left = [each for name, each in given.items() if name not in ("cluster", *without)]
    command.__signature__ = inspect.Signature(left)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in left}
    command.__doc__ = f"{text}; with --dry-run, print its manifests."
    return command


INGRESS = ("ingress_host", "ingress_class", "tls_secret")

k8s = _command("k8s", "Run APP in Kubernetes, as a Deployment", "scale_to_zero")
knative = _command("knative", "Run APP as a service of Knative", *INGRESS)
kruise = _command(
    "kruise", "Run APP as a Sandbox of OpenKruise Agents", "replicas", "max_replicas", "scale_to_zero"
)
