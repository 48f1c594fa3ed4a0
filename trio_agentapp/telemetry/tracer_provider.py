"""Makes the tracer provider of an app, for programs that have set none.

The environment decides where spans go: the SDK's own variables (`OTEL_...`), and the switches of the FastAPI-based
AgentApp:

- `TRACE_ENABLE_REPORT`: to a collector, by OTLP over HTTP, at `TRACE_ENDPOINT`, with `TRACE_AUTHENTICATION` as the
  header `Authentication`.
- `TRACE_ENABLE_LOG`: one line for each span into the log. `TRACE_ENABLE_DEBUG`: each span as JSON to stderr.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)

from .trace_switches import is_on

__all__ = ["ProviderOfApp", "new_provider"]

logger = logging.getLogger("trio_agentapp.traces")

EXPORT_TIMEOUT = 5.0
"""Seconds for a collector to take a batch of spans."""

COLLECTORS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""Variables of the SDK that name a collector."""


class ProviderOfApp(trace.TracerProvider):
    """The global provider.

    It passes calls on to the provider of the open app. Without an open app nothing is traced.

    OpenTelemetry's global provider can be set only once, and an app may be opened several times.
    """

    current: TracerProvider | None = None

    def get_tracer(self, *args: Any, **options: Any) -> trace.Tracer:
        provider = self.current or trace.NoOpTracerProvider()
        return provider.get_tracer(*args, **options)


class LogExporter(SpanExporter):
    """Writes one line for each span into the log."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        for span in spans:
            milliseconds = ((span.end_time or 0) - (span.start_time or 0)) / 1e6
            known = span.get_span_context()
            logger.info(
                "span %r took %.3f ms (trace %032x)", span.name, milliseconds, known.trace_id if known else 0
            )
        return SpanExportResult.SUCCESS


def new_provider(app_name: str, environment: Mapping[str, str] = os.environ) -> TracerProvider:
    """Make a provider with the resource and the exporters that the environment names."""
    provider = TracerProvider(resource=_resource(app_name, environment), shutdown_on_exit=False)
    if is_on("TRACE_ENABLE_REPORT", environment) or any(name in environment for name in COLLECTORS):
        provider.add_span_processor(BatchSpanProcessor(_collector(environment)))
    if is_on("TRACE_ENABLE_DEBUG", environment):
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=sys.stderr)))
    if is_on("TRACE_ENABLE_LOG", environment):
        provider.add_span_processor(SimpleSpanProcessor(LogExporter()))
    return provider


def _resource(app_name: str, environment: Mapping[str, str]) -> Resource:
    found: dict[str, str] = {}
    if "OTEL_SERVICE_NAME" not in environment:
        found["service.name"] = environment.get("SERVICE_NAME") or environment.get("DS_SVC_NAME") or app_name
    if version := environment.get("SERVICE_VERSION"):
        found["service.version"] = version
    return Resource.create(found)


def _collector(environment: Mapping[str, str]) -> OTLPSpanExporter:
    if not is_on("TRACE_ENABLE_REPORT", environment):
        return OTLPSpanExporter(timeout=EXPORT_TIMEOUT)
    key = environment.get("TRACE_AUTHENTICATION")
    return OTLPSpanExporter(
        endpoint=environment.get("TRACE_ENDPOINT") or None,
        headers={"Authentication": key} if key else None,
        timeout=EXPORT_TIMEOUT,
    )
