"""`status` and `list`: show the state of services."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigurationError
from .deployers import CLUSTERS, Platform, manager_at, manager_of
from .exits import ExitCode, say
from .options import AsJson, ClientCert, ClientKey, Format, OutputFormat, Token
from .target import Access, deployments, is_url, new_client, url_of
from .terminal import write, write_json, write_table

if TYPE_CHECKING:
    from ..protocol.deployment import Deployment, DeploymentStatus

__all__ = ["list_deployments", "show", "show_ready", "status"]


def status(
    target: Annotated[str, typer.Argument(help="A URL, or the id of a deployment.", autocompletion=deployments)],
    run: Annotated[str | None, typer.Option(help="Show this run instead of the service.")] = None,
    user: Annotated[str | None, typer.Option("--user", "--user-id", help="The owner of the run.")] = None,
    token: Token = None,
    cert: ClientCert = None,
    key: ClientKey = None,
    as_json: AsJson = False,
    output: OutputFormat = Format.TEXT,
) -> ExitCode:
    """Show the state of a service. The exit code is 0 if it is ready, and 3 if it is not."""
    import trio

    as_json = as_json or output is Format.JSON
    access = Access(token, cert, key)
    if run is not None:
        return _run_status(target, run, user, access)
    if is_url(target):
        return _ask_url(url_of(target) or target, access, as_json)

    from ..deploy import DeploymentState

    manager, deploy_id = manager_of(target)
    seen = trio.run(manager.status, deploy_id)
    show(seen, as_json=as_json, write=write)
    return ExitCode.OK if seen.state is DeploymentState.READY else ExitCode.UNREACHABLE


def list_deployments(
    state: Annotated[
        str | None, typer.Option("--status", "-s", help="Show only deployments in this state.  [default: all]")
    ] = None,
    platform: Annotated[
        Platform, typer.Option("--platform", "-p", help="This machine, a namespace of a cluster, or a cloud.")
    ] = "local",
    namespace: Annotated[str, typer.Option(help="Of the cluster.")] = "default",
    region: Annotated[str, typer.Option(help="Of the cloud.  [default: that of the environment]")] = "",
    as_json: AsJson = False,
    output: OutputFormat = Format.TABLE,
) -> ExitCode:
    """List this user's deployments on this machine, or those of a cluster or a cloud, the oldest first."""
    import trio

    from ..deploy import DeploymentState

    if state is not None and state not in set(DeploymentState):
        raise ConfigurationError(f"--status {state} is not a state; states are {', '.join(DeploymentState)}")
    manager = manager_at(platform, namespace if platform in CLUSTERS else region)
    found = [each for each in trio.run(manager.list) if state in (None, each.state.value)]
    if as_json or output is Format.JSON:
        write_json(found)
        return ExitCode.OK
    if not found:
        say("Nothing is deployed." if state is None else f"No deployment is {state}.")
        return ExitCode.OK
    rows = [
        (each.deploy_id, each.state.value, each.url, each.app_name, _age(each.started_at), each.entrypoint)
        for each in found
    ]
    write_table(("ID", "STATE", "URL", "APP", "UP FOR", "ENTRYPOINT"), rows)
    return ExitCode.OK


def show(seen: DeploymentStatus, *, as_json: bool, write: Callable[[str], None] = say) -> None:
    """Print the state of a deployment, as JSON or with `write` as one line."""
    if as_json:
        write_json(seen)
        return
    name = f" ({seen.app_name})" if seen.app_name else ""
    reason = f": {seen.reason}" if seen.reason else ""
    where = f" at {seen.url}" if seen.url else ""
    write(f"{seen.deploy_id}{name}{where} is {seen.state.value}{reason}")


def show_ready(app: str, done: Deployment, target: str, *, as_json: bool) -> None:
    """Print a deployment that is ready; on stdout only what scripts need: JSON, or its target."""
    if as_json:
        write_json(done)
        return
    say(f"{app} is ready on {done.url} (trio-agentapp stop {target} stops it)")
    write(target)


def _age(since: float) -> str:
    seconds = max(0, int(time.time() - since))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _ask_url(url: str, access: Access, as_json: bool) -> ExitCode:
    import trio

    from ..deploy.readiness import unready_reason

    async def ask() -> tuple[dict[str, Any], str | None]:
        async with new_client(url, access) as client:
            health = await client.health()
            with trio.fail_after(10):
                return health, await unready_reason(url.rstrip("/"), ssl_context=access.ssl_context())

    health, why = trio.run(ask)
    name = health.get("service", "the agent")
    if as_json:
        write_json({"url": url, "app_name": name, "ready": why is None, "reason": why})
    else:
        write(f"{name} at {url} is {'ready' if why is None else f'unready: {why}'}")
    return ExitCode.OK if why is None else ExitCode.UNREACHABLE


def _run_status(target: str, run_id: str, user: str | None, access: Access) -> ExitCode:
    import json

    import trio

    async def ask() -> dict[str, Any]:
        async with new_client(url_of(target) or target, access) as client:
            return await client.status(run_id, user_id=user)

    write(json.dumps(trio.run(ask), indent=2))
    return ExitCode.OK
