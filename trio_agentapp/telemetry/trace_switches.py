"""The variables that switched on the traces of the FastAPI-based AgentApp."""

from __future__ import annotations

import os
from collections.abc import Mapping

__all__ = ["is_on", "is_switched_on"]

ON = ("true", "1", "yes", "on")
SWITCHES = ("TRACE_ENABLE_LOG", "TRACE_ENABLE_REPORT", "TRACE_ENABLE_DEBUG")


def is_on(name: str, environment: Mapping[str, str]) -> bool:
    return environment.get(name, "").strip().lower() in ON


def is_switched_on(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether one of the switches is on, so that runs are traced."""
    return any(is_on(name, environment) for name in SWITCHES)
