"""`deploy local`: starts an app as a service that outlives this command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .config import LOCAL, read_config
from .environment import given_variables
from .exits import ExitCode
from .options import (
    App,
    AsJson,
    CaCerts,
    CertFile,
    CertReqs,
    Entrypoint,
    Env,
    EnvFile,
    Host,
    KeyFile,
    Port,
    Workers,
    chosen,
)
from .progress import progress
from .status import show_ready

if TYPE_CHECKING:
    from ..protocol.deployment import Deployment

__all__ = ["local"]


def local(
    app: App,
    args: Annotated[list[str] | None, typer.Argument(help="Arguments of the program, after --.")] = None,
    entrypoint: Entrypoint = None,
    name: Annotated[
        str | None, typer.Option(help="Name shown by list and status.  [default: the app's name]")
    ] = None,
    host: Host = None,
    port: Port = None,
    env: Env = None,
    env_file: EnvFile = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            help="Host, port, entrypoint and environment, as JSON, TOML or YAML; options win.",
        ),
    ] = None,
    workers: Workers = 1,
    ready_timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait until it is ready.")] = 60.0,
    restart: Annotated[bool, typer.Option("--restart/--no-restart", help="Start it again when it crashes.")] = True,
    certfile: CertFile = None,
    keyfile: KeyFile = None,
    ca_certs: CaCerts = None,
    cert_reqs: CertReqs = None,
    as_json: AsJson = False,
) -> ExitCode:
    """Start APP on this machine as a process that outlives this command, and wait until it is ready."""
    import trio

    from ..deploy import DeploymentMode, LocalDeployManager

    settings = {} if config is None else read_config(config, LOCAL)
    host = settings.get("host") if host is None else host
    port = settings.get("port") if port is None else port
    source = chosen(app, entrypoint or settings.get("entrypoint"))
    environment = given_variables(env_file, env, settings.get("environment"))

    async def start() -> Deployment:
        return await LocalDeployManager(host, port, DeploymentMode.DETACHED_PROCESS).deploy(
            entrypoint=source,
            name=name,
            environment=environment,
            args=args or (),
            workers=workers,
            restart=restart,
            certfile=certfile,
            keyfile=keyfile,
            ca_certs=ca_certs,
            cert_reqs=cert_reqs,
            ready_timeout=ready_timeout,
        )

    with progress(f"Starting {app}"):
        done = trio.run(start)
    show_ready(app, done, done.deploy_id, as_json=as_json)
    return ExitCode.OK
