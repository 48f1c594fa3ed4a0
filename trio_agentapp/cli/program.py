"""The command line: its commands and their common options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import (
    build,
    chat,
    deploy,
    deploy_clouds,
    deploy_k8s,
    invoke,
    logs,
    run,
    scale,
    status,
    stop,
    token,
    top,
    worker,
)
from .environment import read_env_file
from .exits import exits
from .terminal import prepare_streams

__all__ = ["main", "program"]

# Without rich: an error stays one line, and help starts fast.
program = typer.Typer(
    name="trio-agentapp",
    help="Serve agents, talk to them, and manage deployments.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
deployers = typer.Typer(help="Start an app as a service.", no_args_is_help=True, rich_markup_mode=None)
program.add_typer(deployers, name="deploy")

program.command("run")(exits(run.run))
program.command("web")(exits(run.web))
program.command("chat")(exits(chat.chat))
program.command("invoke")(exits(invoke.invoke))
program.command("stop")(exits(stop.stop))
program.command("status")(exits(status.status))
program.command("list")(exits(status.list_deployments))
program.command("logs")(exits(logs.logs))
program.command("scale")(exits(scale.scale))
program.command("top")(exits(top.top))
program.command("worker")(exits(worker.worker))
program.command("build")(exits(build.build))
program.command("token")(exits(token.token))
deployers.command("local")(exits(deploy.local))
deployers.command("k8s")(exits(deploy_k8s.k8s))
deployers.command("knative")(exits(deploy_k8s.knative))
deployers.command("kruise")(exits(deploy_k8s.kruise))
deployers.command("modelstudio")(exits(deploy_clouds.modelstudio))
deployers.command("agentrun")(exits(deploy_clouds.agentrun))
deployers.command("fc")(exits(deploy_clouds.fc))


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("trio-agentapp"))
        raise typer.Exit


@program.callback()
@exits
def options(
    env_file: Annotated[
        Path | None,
        typer.Option(help="Read variables from this file instead of .env in the current folder."),
    ] = None,
    _: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Serve agents, talk to them, and manage deployments."""
    read_env_file(env_file)


def main() -> None:
    prepare_streams()
    program(prog_name="trio-agentapp")
