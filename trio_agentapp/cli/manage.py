"""`logs` and `scale`: what else can be done with a deployment."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from .deployers import manager_of
from .exits import ExitCode, say
from .options import AsJson
from .progress import progress
from .status import as_line
from .target import deployments
from .terminal import write, write_json

__all__ = ["logs", "scale"]

Deployed = Annotated[str, typer.Argument(help="The id of a deployment, or k8s:NAME.", autocompletion=deployments)]


def logs(
    target: Deployed,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=10_000, help="The last lines.")] = 100,
) -> ExitCode:
    """Print the end of the log of a deployment."""
    import trio

    manager, deploy_id = manager_of(target)
    write(trio.run(partial(manager.logs, deploy_id, lines=lines)))
    return ExitCode.OK


def scale(
    target: Deployed,
    replicas: Annotated[int, typer.Argument(min=0, help="The number of pods.")],
    as_json: AsJson = False,
) -> ExitCode:
    """Change the number of pods of a deployment in a cluster. Pods that go drain first."""
    import trio

    manager, deploy_id = manager_of(target)
    with progress(f"Scaling {target}"):
        seen = trio.run(manager.scale, deploy_id, replicas)
    if as_json:
        write_json(seen)
    else:
        say(as_line(seen))
    return ExitCode.OK
