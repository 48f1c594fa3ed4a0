"""`deploy k8s`, `deploy knative` and `deploy kruise`: an app in a cluster, or its manifests."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

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
    variant,
)
from .progress import steps
from .status import show_ready
from .terminal import write, write_json

if TYPE_CHECKING:
    from ..deploy.workload import Workload

__all__ = ["knative", "kruise", "k8s"]


def _options(
    app: App,
    entrypoint: Entrypoint = None,
    name: Annotated[str | None, typer.Option(help="Of its objects.  [default: the app's name]")] = None,
    namespace: Annotated[str | None, typer.Option(help="[default: default]")] = None,
    image: Annotated[
        str | None, typer.Option(help="An image that a registry has; nothing is built, unless with --push.")
    ] = None,
    image_name: Annotated[str | None, typer.Option(help="Of the image to build.  [default: --name]")] = None,
    image_tag: Annotated[
        str | None, typer.Option(help="Of the image to build.  [default: the build's digest]")
    ] = None,
    registry_url: Annotated[str | None, typer.Option(help="Registry of the image to build, as HOST:PORT.")] = None,
    registry_namespace: Annotated[str | None, typer.Option(help="What stands between registry and name.")] = None,
    push: Annotated[bool, typer.Option("--push", help="Push the image to its registry.")] = False,
    builder: Builder = None,
    platform: Platform = None,
    base_image: BaseImage = None,
    requirements: Requirement = None,
    pypi_mirror: IndexUrl = None,
    allowed: Allow = None,
    use_cache: Cache = True,
    replicas: Annotated[int | None, typer.Option(min=1, help="Pods; several need Redis.  [default: 1]")] = None,
    max_replicas: Annotated[int | None, typer.Option(min=1, help="Scale up to this number.")] = None,
    scale_to_zero: Annotated[
        bool, typer.Option("--scale-to-zero", help="No pod while nobody asks; needs Redis.")
    ] = False,
    port: Annotated[
        int | None, typer.Option("--port", "-p", min=1024, max=65535, help="In the pod.  [default: 8090]")
    ] = None,
    env: Env = None,
    env_file: EnvFile = None,
    secrets: Annotated[
        list[str] | None, typer.Option("--secret", help="Secret whose keys become variables; may be repeated.")
    ] = None,
    redis_secret: Annotated[
        str | None, typer.Option(help="The Secret with the URL of Redis, as NAME or NAME:KEY.  [default key: url]")
    ] = None,
    ingress_host: Annotated[str | None, typer.Option(help="Make an Ingress for this host name.")] = None,
    ingress_class: Annotated[str | None, typer.Option(help="[default: nginx]")] = None,
    tls_secret: Annotated[str | None, typer.Option(help="The Secret with the certificate of the host.")] = None,
    cpu_request: Annotated[str | None, typer.Option(help="[default: 200m]")] = None,
    cpu_limit: Annotated[str | None, typer.Option(help="[default: none]")] = None,
    memory_request: Annotated[str | None, typer.Option(help="[default: 512Mi]")] = None,
    memory_limit: Annotated[str | None, typer.Option(help="[default: 2Gi]")] = None,
    image_pull_policy: Annotated[
        str | None, typer.Option(help="[default: IfNotPresent; Always for a pushed tag of yours]")
    ] = None,
    image_pull_secret: Annotated[str | None, typer.Option(help="The Secret for a private registry.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="These options as JSON, TOML or YAML; options win.")
    ] = None,
    kube_config_path: Annotated[str | None, typer.Option(help="[default: KUBECONFIG, else ~/.kube/config]")] = None,
    context: Annotated[str | None, typer.Option(help="Of the kubeconfig.  [default: its current one]")] = None,
    deploy_timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait until pods are ready.")] = 300.0,
    _: Annotated[
        bool, typer.Option("--health-check", help="Accepted for old scripts: there always is one.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the manifests; needs no cluster.")] = False,
    as_json: AsJson = False,
) -> None:
    """Declare the options of the three commands, in the order of their help. Each may leave some out."""


OPTIONS = inspect.signature(_options, eval_str=True).parameters
OUTSIDE = [
    *("app", "builder", "allowed", "use_cache", "env", "env_file", "config", "kube_config_path", "context"),
    *("deploy_timeout", "_", "dry_run", "as_json"),
]
"""Options that the file of `--config` cannot set."""


def _type_of(option: Any) -> type:
    """The type of an option, such as `list` of `Annotated[list[str] | None, ...]`."""
    kind = get_args(option)[0]
    first: type = (get_args(kind) or (kind,))[0]
    return get_origin(first) or first


CONFIG: dict[str, type] = {
    **{name: _type_of(option.annotation) for name, option in OPTIONS.items() if name not in OUTSIDE},
    "node_selector": dict,
    "tolerations": list,
    "labels": dict,
    "annotations": dict,
    "environment": dict,
}
"""Keys of the file of `--config`, with the types of their values."""


def _deploy(
    cluster: str,
    app: str,
    entrypoint: str | None,
    env: list[str] | None,
    env_file: Path | None,
    config: Path | None,
    kube_config_path: str | None,
    context: str | None,
    deploy_timeout: float,
    dry_run: bool,
    as_json: bool,
    _: bool,
    **options: Any,
) -> ExitCode:
    """Run an app in a cluster. What none of the options sets is left to the deployer."""
    settings = {} if config is None else read_config(config, CONFIG)
    environment = given_variables(env_file, env, settings.pop("environment", None))
    inside = settings.pop("entrypoint", None)
    source = chosen(app, entrypoint or inside)
    complete = {**settings, **{name: value for name, value in options.items() if value != OPTIONS[name].default}}
    complete["push_to_registry"] = complete.pop("push", False)

    from ..deploy.images import RegistryConfig

    registry = RegistryConfig(
        registry_url=complete.pop("registry_url", ""), namespace=complete.pop("registry_namespace", "")
    )
    kind = cluster_manager(cluster)
    if dry_run:
        from ..deploy.workload import workload_of

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
    show_ready(app, done, f"{cluster}:{place.k8s_namespace}/{done.deploy_id}", as_json=as_json)
    return ExitCode.OK


def _print(work: Workload, objects: Sequence[dict[str, Any]], variables: list[str], as_json: bool) -> None:
    from ..deploy.manifests import as_yaml
    from ..deploy.workload import environment_secret

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


INGRESS = ("ingress_host", "ingress_class", "tls_secret")
SCALING = ("replicas", "max_replicas", "scale_to_zero")
DRY_RUN = "with --dry-run, print its manifests."

k8s = variant(
    _options, partial(_deploy, "k8s"), f"Run APP in Kubernetes, as a Deployment; {DRY_RUN}", ["scale_to_zero"]
)
knative = variant(_options, partial(_deploy, "knative"), f"Run APP as a service of Knative; {DRY_RUN}", INGRESS)
kruise = variant(
    _options, partial(_deploy, "kruise"), f"Run APP as a Sandbox of OpenKruise Agents; {DRY_RUN}", SCALING
)
