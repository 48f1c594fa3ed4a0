"""The metrics of an app, if its settings ask for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..telemetry.metrics import Metrics
from .settings import Settings

__all__ = ["metrics_of"]


class Counted(Protocol):
    """The parts of an app that this module needs."""

    settings: Settings
    connection_count: Callable[[], int] | None


def metrics_of(app: Counted) -> Metrics | None:
    """Return new metrics. Raises ConfigurationError: the extra is not installed."""
    if not app.settings.metrics:
        return None
    return Metrics(connections=lambda: None if app.connection_count is None else app.connection_count())
