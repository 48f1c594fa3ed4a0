"""Loads the libraries of extras, and says how to install one that is missing."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import ConfigurationError

__all__ = ["needed"]


def needed(module: str, extra: str) -> Any:
    """Import a library of an extra.

    Raises:
        ConfigurationError: it is not installed; with the line that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise ConfigurationError(f"this needs an extra: pip install 'trio-agentapp[{extra}]'") from None
