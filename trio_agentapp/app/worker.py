"""`python -m trio_agentapp.app.worker ENTRYPOINT`: the Celery worker that is a subprocess of its app."""

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
"""Seconds beyond the cleanup budget after which a worker without its app kills itself."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m trio_agentapp.app.worker")
    parser.add_argument("entrypoint")
    parser.add_argument("--life", type=int, required=True, help="a pipe that ends when the app wants no more of us")
    arguments = parser.parse_args()
    app = load_app(arguments.entrypoint)
    threading.Thread(target=_follow_app, args=(arguments.life, app), name="life of the app", daemon=True).start()
    run_worker(
        app,
        loglevel=os.environ.get("AGENTAPP_WORKER_LOGLEVEL", "WARNING"),
        options=("--without-gossip", "--without-mingle"),
        quiet=True,
    )


def _follow_app(life: int, app: AgentApp) -> None:
    """The app is gone, or in a hurry: stop the tasks, and leave; by force, if that takes too long."""
    os.read(life, 1)
    app.celery.lifeline.cut()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(app.cleanup_budget + KILL_MARGIN)
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    main()
