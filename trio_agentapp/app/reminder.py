"""Messages that show a new user how to make and start an app."""

from __future__ import annotations

import atexit
import os
import sys
from typing import Protocol

__all__ = ["Remindable", "refuse_positional", "remind_to_serve"]


class Remindable(Protocol):
    app_name: str
    used: bool

    @property
    def has_handler(self) -> bool:
        """Whether there is a query handler."""


def refuse_positional(arguments: tuple[object, ...]) -> None:
    """Raise a TypeError for `AgentApp("Friday")` that shows the right call."""
    if not arguments:
        return
    first = arguments[0]
    name = "app_name" if isinstance(first, str) else "agent" if callable(first) else "<parameter>"
    shown = getattr(first, "__name__", "...") if name == "agent" else repr(first)
    raise TypeError(f"AgentApp takes its parameters by name: AgentApp({name}={shown})")


def remind_to_serve(app: Remindable, module: str) -> None:
    """At the end of a script that made an app with a handler and did not use it, print how to start it.

    Only for an app that the main script makes: launchers, test runners and workers make none in `__main__`.
    """
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if module == "__main__" and script is not None and not sys.flags.interactive:
        atexit.register(_remind, app, os.path.relpath(script))


def _remind(app: Remindable, script: str) -> None:
    # A script that failed has printed its traceback, which matters more.
    if not app.used and app.has_handler and getattr(sys, "last_value", None) is None:
        sys.stderr.write(
            f"{app.app_name} was not started: {script} ended without app.run(). Add app.run() as its last line, "
            f"or start it with: trio-agentapp run {script}\n"
        )
