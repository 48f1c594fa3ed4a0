"""What is said to someone who has not found the way to start an app yet."""

from __future__ import annotations

import atexit
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .application import AgentApp

__all__ = ["refuse_by_place", "remind_to_serve"]


def refuse_by_place(arguments: tuple[object, ...]) -> None:
    """Raises TypeError, which shows the way, for `AgentApp("Friday")`."""
    if not arguments:
        return
    first = arguments[0]
    name = "app_name" if isinstance(first, str) else "agent" if callable(first) else "<parameter>"
    shown = getattr(first, "__name__", "...") if name == "agent" else repr(first)
    raise TypeError(f"AgentApp takes its parameters by name: AgentApp({name}={shown})")


def remind_to_serve(app: AgentApp, module: str) -> None:
    """Have a script that makes an app with a handler, and ends without using it, say how it is started.

    Only where the script is the program: no launcher, test runner or worker makes an app in its `__main__`.
    """
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if module == "__main__" and script is not None and not sys.flags.interactive:
        atexit.register(_remind, app, os.path.relpath(script))


def _remind(app: AgentApp, script: str) -> None:
    # A script that has failed has other troubles.
    if not app.used and app.has_handler and getattr(sys, "last_value", None) is None:
        sys.stderr.write(
            f"{app.app_name} was not started: {script} ended without app.run(). Add app.run() as its last line, "
            f"or start it with: trio-agentapp run {script}\n"
        )
