"""Makes the metrics, traces and other instruments that the settings and the environment ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from ..abc import Instrument
from ..errors import ConfigurationError
from ..telemetry.metrics import Metrics
from ..telemetry.trace_switches import is_switched_on
from .settings import Settings

if TYPE_CHECKING:
    from ..telemetry.tracing import Tracing

__all__ = ["AppInstruments", "instruments_of"]


class Instrumented(Protocol):
    """The parts of an app that this module needs."""

    settings: Settings
    app_name: str
    connection_count: Callable[[], int] | None

    def readiness_details(self) -> Mapping[str, Any]:
        """Return what the protocols report of their services."""


@attrs.frozen
class AppInstruments:
    """The instruments of an app; `metrics` and `tracing` are None if they are off."""

    metrics: Metrics | None
    tracing: Tracing | None
    others: Sequence[Instrument]

    def all(self) -> list[Instrument]:
        # Tracing comes first, so that its span is open when the others are called: exemplars need the trace id.
        return [each for each in (self.tracing, self.metrics, *self.others) if each is not None]


def instruments_of(app: Instrumented) -> AppInstruments:
    """Make the instruments of an app. Raises ConfigurationError: an extra is not installed."""
    settings = app.settings
    tracing = _tracing(app.app_name) if settings.traces or is_switched_on() else None
    metrics = None
    if settings.metrics:
        metrics = Metrics(
            connections=lambda: None if app.connection_count is None else app.connection_count(),
            registrations=lambda: {
                each["registry"]: each["state"] == "registered"
                for each in app.readiness_details().get("registries", ())
            },
            trace_id=(lambda: None) if tracing is None else tracing.trace_id,
        )
    return AppInstruments(metrics, tracing, settings.instruments or ())


def _tracing(app_name: str) -> Tracing:
    try:
        # Imported only if needed: it takes a quarter of a second.
        from ..telemetry.tracing import Tracing
    except ImportError as error:
        raise ConfigurationError("traces needs the extra `otel`: pip install 'trio-agentapp[otel]'") from error
    return Tracing(app_name)
