"""`web`: serves an app with its chat page."""

from __future__ import annotations

import os

from .exits import ExitCode
from .options import App, Entrypoint, Host, Port, Workers
from .run import run

__all__ = ["web"]


def web(
    app: App, entrypoint: Entrypoint = None, host: Host = None, port: Port = None, workers: Workers = 1
) -> ExitCode:
    """Serve APP as `run` does, with the chat page at /chat."""
    os.environ["AGENTAPP_WEB_UI"] = "1"
    return run(app, entrypoint, host, port, workers)
