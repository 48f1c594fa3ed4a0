"""The entrypoint of an app: the text `module:name` or `file:name` by which another process imports it."""

from __future__ import annotations

import os
import sys
from types import ModuleType

from quart import Quart

from ..errors import ConfigurationError

__all__ = ["entrypoint_of"]


def entrypoint_of(app: Quart) -> str:
    """Find the entrypoint with which `load_app` finds this app in another process.

    Raises:
        ConfigurationError: the app is not a global name of a module, or its module has no file.
    """
    main = sys.modules.get("__main__")
    modules = [sys.modules.get(app.import_name), main, *sys.modules.values()]
    for module in modules:
        name = None if module is None else _name_of(app, module)
        if module is None or name is None:
            continue
        if module is not main:
            return f"{module.__name__}:{name}"
        spec = getattr(module, "__spec__", None)
        if spec is not None:
            return f"{spec.name}:{name}"
        if file := getattr(module, "__file__", None):
            return f"{os.path.abspath(file)}:{name}"
        raise ConfigurationError(
            "the app was made in an interactive session, where another process cannot import it; put it into a file"
        )
    raise ConfigurationError(
        "the app is not a global name of any module, so another process cannot import it; assign it to a global "
        "name, or pass entrypoint='module:name'"
    )


def _name_of(app: Quart, module: ModuleType) -> str | None:
    # A copy, because another thread may be importing.
    return next((name for name, value in vars(module).copy().items() if value is app), None)
