"""A Celery worker of an app."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ["HasCelery", "run_worker"]


class HasCelery(Protocol):
    """The part of an app that a worker needs."""

    @property
    def celery(self) -> Any:
        """The Celery application."""


def run_worker(
    app: HasCelery,
    queues: Sequence[str] = (),
    concurrency: int | None = None,
    *,
    loglevel: str = "INFO",
    options: Sequence[str] = (),
    quiet: bool = False,
) -> None:
    """Execute tasks of `app` until SIGTERM or Ctrl-C. Call it in the main thread.

    Args:
        queues: the queues to take tasks from; by default all queues of the app.
        concurrency: number of processes, each executing one task at a time; by default one per core.
        options: other options of the command `celery worker`.

    Raises:
        ConfigurationError: the app has no broker.
    """
    arguments = ["--quiet"] if quiet else []
    arguments += ["worker", f"--loglevel={loglevel}", f"--hostname=agentapp-{os.getpid()}@%h"]
    if queues:
        arguments.append(f"--queues={','.join(queues)}")
    if concurrency is not None:
        arguments.append(f"--concurrency={concurrency}")
    if signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL:
        # Celery handles SIGHUP (warm restart) and SIGUSR1 (it prints its threads). SIGUSR2 would kill the process.
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    app.celery.worker_main([*arguments, *options])
