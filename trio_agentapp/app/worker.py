"""`python -m trio_agentapp.app.worker ENTRYPOINT`: the Celery worker that its app starts as a subprocess."""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time

from ..tasks.celery import run_worker
from .application import AgentApp
from .loading import load_app

KILL_MARGIN = 10.0
"""Seconds beyond the cleanup budget after which a worker whose app has ended kills itself."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m trio_agentapp.app.worker")
    parser.add_argument("entrypoint")
    parser.add_argument(
        "--life", type=int, required=True, help="the descriptor of a pipe that closes when the app ends"
    )
    arguments = parser.parse_args()
    app = load_app(arguments.entrypoint)
    threading.Thread(target=_follow_app, args=(arguments.life, app), name="watch the app", daemon=True).start()
    run_worker(
        app,
        loglevel=os.environ.get("AGENTAPP_WORKER_LOGLEVEL", "WARNING"),
        options=("--without-gossip", "--without-mingle"),
        quiet=True,
    )


def _follow_app(life: int, app: AgentApp) -> None:
    """Wait until the app ends or stops its worker. Then stop the tasks and this process, at last by SIGKILL."""
    os.read(life, 1)
    app.celery.lifeline.cut()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(app.cleanup_budget + KILL_MARGIN)
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    main()
