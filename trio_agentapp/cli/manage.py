"""`scale`: changes the number of pods of a deployment."""

from __future__ import annotations

from typing import Annotated

import typer

from .deployers import manager_of
from .exits import ExitCode, say
from .options import AsJson
from .progress import progress
from .status import as_line
from .target import deployments
from .terminal import write_json

__all__ = ["scale"]

Deployed = Annotated[str, typer.Argument(help="The id of a deployment, or k8s:NAME.", autocompletion=deployments)]


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
