"""`scale`: changes the number of pods of a deployment."""

from __future__ import annotations

from typing import Annotated

import typer

from .deployers import manager_of
from .exits import ExitCode
from .options import AsJson
from .progress import progress
from .status import show
from .target import deployments

__all__ = ["scale"]


def scale(
    target: Annotated[str, typer.Argument(help="The id of a deployment, or k8s:NAME.", autocompletion=deployments)],
    replicas: Annotated[int, typer.Argument(min=0, help="The number of pods.")],
    as_json: AsJson = False,
) -> ExitCode:
    """Change the number of pods of a deployment in a cluster. Pods that go drain first."""
    import trio

    manager, deploy_id = manager_of(target)
    with progress(f"Scaling {target}"):
        seen = trio.run(manager.scale, deploy_id, replicas)
    show(seen, as_json=as_json)
    return ExitCode.OK
