"""A Celery worker of an app."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from ...errors import ConfigurationError

__all__ = ["HasWorker", "run_worker", "target_of"]


class HasWorker(Protocol):
    """What a worker needs to know of an app."""

    cleanup_budget: float
    import_name: str

    @property
    def celery(self) -> Any:
        """The Celery application; its `lifeline` is ours."""


def run_worker(
    app: HasWorker,
    queues: Sequence[str] = (),
    concurrency: int | None = None,
    *,
    loglevel: str = "INFO",
    options: Sequence[str] = (),
    quiet: bool = False,
) -> None:
    """Execute tasks of `app` until SIGTERM or Ctrl-C; call it in the main thread.

    Args:
        queues: which to take from; all that the app knows by default.
        concurrency: processes, each of which executes one task at a time; one per core by default.
        options: further ones of `celery worker`, as on its command line.

    Raises:
        ConfigurationError: the app has no broker.
    """
    arguments = ["--quiet"] if quiet else []
    arguments += ["worker", f"--loglevel={loglevel}", f"--hostname=agentapp-{os.getpid()}@%h"]
    if queues:
        arguments.append(f"--queues={','.join(queues)}")
    if concurrency is not None:
        arguments.append(f"--concurrency={concurrency}")
    app.celery.worker_main([*arguments, *options])


def target_of(app: HasWorker) -> str:
    """`module:name` or `file.py:name`: where another process finds the app.

    Raises:
        ConfigurationError: it is not a global of the module that made it.
    """
    module = sys.modules.get(app.import_name)
    name = next((name for name, value in vars(module).items() if value is app), None) if module else None
    if module is None or name is None:
        raise ConfigurationError(
            f"enable_embedded_worker: the worker has to import this app, and it is no global of {app.import_name!r}"
        )
    if module.__name__ != "__main__":
        return f"{module.__name__}:{name}"
    spec = getattr(module, "__spec__", None)
    if spec is not None:
        return f"{spec.name}:{name}"
    return f"{Path(str(module.__file__)).resolve()}:{name}"
