"""`deploy k8s`: an app as a Kubernetes Deployment with all that belongs to it; or its manifests."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .config import read_config
from .environment import given_variables
from .exits import ExitCode, say
from .options import App, AsJson, Entrypoint, Env, EnvFile, chosen
from .terminal import write, write_json

if TYPE_CHECKING:
    from ..deploy.manifests import Workload

__all__ = ["k8s"]

CONFIG: dict[str, type] = {
    "name": str,
    "namespace": str,
    "image": str,
    "entrypoint": str,
    "port": int,
    "replicas": int,
    "max_replicas": int,
    "redis_secret": str,
    "cpu_request": str,
    "cpu_limit": str,
    "memory_request": str,
    "memory_limit": str,
    "ingress_host": str,
    "ingress_class": str,
    "tls_secret": str,
    "image_pull_policy": str,
    "image_pull_secret": str,
    "environment": dict,
}
"""Keys of the file of `--config`, with the types of their values."""


def k8s(
    app: App,
    entrypoint: Entrypoint = None,
    name: Annotated[str | None, typer.Option(help="Of the Deployment.  [default: the app's name]")] = None,
    namespace: Annotated[str | None, typer.Option(help="[default: default]")] = None,
    image: Annotated[
        str | None, typer.Option(help="The image, with registry and tag.  [default: NAME and the build's digest]")
    ] = None,
    replicas: Annotated[int | None, typer.Option(min=1, help="Pods; several need Redis.  [default: 1]")] = None,
    max_replicas: Annotated[int | None, typer.Option(min=1, help="Scale up to this number, by CPU.")] = None,
    port: Annotated[
        int | None, typer.Option("--port", "-p", min=1024, max=65535, help="In the pod.  [default: 8090]")
    ] = None,
    env: Env = None,
    env_file: EnvFile = None,
    secret: Annotated[
        list[str] | None, typer.Option(help="A Secret whose keys become variables; may be repeated.")
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
    image_pull_policy: Annotated[str | None, typer.Option(help="[default: IfNotPresent]")] = None,
    image_pull_secret: Annotated[str | None, typer.Option(help="The Secret for a private registry.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="These options as JSON, TOML or YAML; options win.")
    ] = None,
    kube_config_path: Annotated[str | None, typer.Option(help="[default: KUBECONFIG, else ~/.kube/config]")] = None,
    context: Annotated[str | None, typer.Option(help="Of the kubeconfig.  [default: its current one]")] = None,
    deploy_timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait until pods are ready.")] = 300.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the manifests; needs no cluster.")] = False,
    as_json: AsJson = False,
) -> ExitCode:
    """Run APP in Kubernetes; with --dry-run, print its manifests."""
    options = {
        "name": name,
        "namespace": namespace,
        "image": image,
        "replicas": replicas,
        "max_replicas": max_replicas,
        "port": port,
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
    source = chosen(app, entrypoint or settings.pop("entrypoint", None))
    settings.pop("entrypoint", None)
    complete = {**settings, **{key: value for key, value in options.items() if value is not None}}
    complete["secrets"] = secret or ()
    if dry_run:
        from ..deploy.workload_of import workload_of

        _print(workload_of(None, source, environment, complete), list(environment))
        return ExitCode.OK

    import trio

    from ..deploy.cluster import K8sConfig
    from ..deploy.kubernetes import KubernetesDeployManager

    cluster = K8sConfig(
        k8s_namespace=complete.pop("namespace", "default"), kubeconfig_path=kube_config_path, context=context
    )
    manager = KubernetesDeployManager(
        cluster, deploy_timeout=deploy_timeout, report=lambda step: say(f"{step} ...")
    )
    done = trio.run(partial(manager.deploy, entrypoint=source, environment=environment, **complete))
    if as_json:
        write_json(done)
    else:
        target = f"k8s:{cluster.k8s_namespace}/{done.deploy_id}"
        say(f"{app} is ready on {done.url} (trio-agentapp stop {target} stops it)")
        write(target)
    return ExitCode.OK


def _say_step(step: str) -> None:
    say(f"{step} ...")


def _print(work: Workload, variables: list[str]) -> None:
    from ..deploy.manifests import as_yaml, manifests
    from ..deploy.workload_of import environment_secret

    write(as_yaml(manifests(work)).rstrip("\n"))
    if variables:
        say(
            f"The values of {', '.join(sorted(variables))} are not printed. Before you apply the manifests, make "
            f"the Secret {environment_secret(work.name)} of them: kubectl create secret generic "
            f"{environment_secret(work.name)} --namespace {work.namespace} --from-env-file FILE"
        )
