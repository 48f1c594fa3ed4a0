"""A Celery worker of an app."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ["HasCelery", "run_worker"]


class HasCelery(Protocol):
    """What a worker needs to know of an app."""

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
    if signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL:
        # Celery takes SIGHUP (a warm restart) and SIGUSR1 (it shows its threads); this one would end it at once.
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    app.celery.worker_main([*arguments, *options])
