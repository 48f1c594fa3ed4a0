"""`worker`: executes the tasks of an app."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import ConfigurationError
from .exits import ExitCode
from .options import App, Entrypoint, chosen

__all__ = ["worker"]


def worker(
    app: App,
    entrypoint: Entrypoint = None,
    queue: Annotated[
        list[str] | None,
        typer.Option("-Q", "--queue", help="Take tasks from this queue; may be repeated.  [default: all]"),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Processes, each with one task at a time.  [default: one per core]")
    ] = None,
) -> ExitCode:
    """Execute the tasks of APP that Celery delivers, until SIGTERM or Ctrl-C."""
    from ..app.loading import load_app

    try:
        from ..tasks.celery import run_worker
    except ImportError:
        raise ConfigurationError("worker needs an extra: pip install 'trio-agentapp[celery]'") from None
    queues = [name for names in queue or () for name in names.split(",") if name]
    run_worker(load_app(chosen(app, entrypoint)), queues, concurrency)
    return ExitCode.OK
