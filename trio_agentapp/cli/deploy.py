"""`deploy local`: start an app as a service that stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .exits import ExitCode, say
from .invoke import AsJson
from .progress import progress
from .run import App, CertFile, Host, KeyFile, Port, Workers
from .terminal import write_json

if TYPE_CHECKING:
    from ..protocol.deployment import Deployment

__all__ = ["local"]


def local(
    app: App,
    args: Annotated[list[str] | None, typer.Argument(help="Arguments of the program, after --.")] = None,
    host: Host = None,
    port: Port = None,
    env: Annotated[list[str] | None, typer.Option(help="NAME=VALUE for its environment; may be repeated.")] = None,
    workers: Workers = 1,
    ready_timeout: Annotated[float, typer.Option(min=0, help="Seconds it may take to be ready.")] = 60.0,
    certfile: CertFile = None,
    keyfile: KeyFile = None,
    as_json: AsJson = False,
) -> ExitCode:
    """Start APP as a process of its own that stays, on this machine; return when it is ready."""
    import trio

    from ..deploy import DeploymentMode, LocalDeployManager

    environment = {}
    for pair in env or ():
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"--env takes NAME=VALUE, not {pair!r}")
        environment[name] = value

    async def start() -> Deployment:
        return await LocalDeployManager(host, port, DeploymentMode.DETACHED_PROCESS).deploy(
            entrypoint=app,
            environment=environment,
            args=args or (),
            workers=workers,
            certfile=certfile,
            keyfile=keyfile,
            ready_timeout=ready_timeout,
        )

    with progress(f"Starting {app}"):
        done = trio.run(start)
    if as_json:
        write_json(done)
    else:
        say(f"{app} is ready on {done.url} (trio-agentapp stop {done.deploy_id} stops it)")
        typer.echo(done.deploy_id)
    return ExitCode.OK
