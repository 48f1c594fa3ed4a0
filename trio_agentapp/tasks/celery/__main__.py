"""`python -m trio_agentapp.tasks.celery TARGET`: the worker that is a subprocess of its app."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from .worker import HasWorker, run_worker

KILL_MARGIN = 10.0
"""Seconds beyond the cleanup budget after which a worker without its app kills itself."""


def load_target(target: str) -> Any:
    """The app that `target_of` names."""
    place, _, name = target.rpartition(":")
    if not place.endswith(".py"):
        sys.path.insert(0, os.getcwd())
        return getattr(importlib.import_module(place), name)
    path = Path(place)
    # As for a script: what lies beside it can be imported.
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None  # noqa: S101  it ends with .py
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return getattr(module, name)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m trio_agentapp.tasks.celery")
    parser.add_argument("target")
    parser.add_argument("--life", type=int, required=True, help="a pipe that ends when the app wants no more of us")
    arguments = parser.parse_args()
    app = load_target(arguments.target)
    threading.Thread(target=_follow_app, args=(arguments.life, app), name="life of the app", daemon=True).start()
    run_worker(
        app,
        loglevel=os.environ.get("AGENTAPP_WORKER_LOGLEVEL", "WARNING"),
        options=("--without-gossip", "--without-mingle"),
        quiet=True,
    )


def _follow_app(life: int, app: HasWorker) -> None:
    """The app is gone, or in a hurry: stop the tasks, and leave; by force, if that takes too long."""
    os.read(life, 1)
    app.celery.lifeline.cut()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(app.cleanup_budget + KILL_MARGIN)
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    main()
