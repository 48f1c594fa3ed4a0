"""The trace of a call, as headers: `traceparent` and `tracestate` (W3C), unless OTEL_PROPAGATORS names others.

A program that has not imported OpenTelemetry has no traces. Then nothing is done here, and nothing is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

__all__ = ["continued_trace", "trace_headers"]


def trace_headers() -> dict[str, str]:
    """Return the headers that continue the current trace at another server; empty if there is none."""
    headers: dict[str, str] = {}
    if "opentelemetry.trace" in sys.modules:
        from opentelemetry import propagate

        propagate.inject(headers)
    return headers


@contextmanager
def continued_trace(headers: Mapping[str, str]) -> Iterator[None]:
    """Inside this block, spans continue the trace of a call with these headers. Faulty ones are ignored."""
    if not headers or "opentelemetry.trace" not in sys.modules:
        yield
        return
    from opentelemetry import context, propagate

    token = context.attach(propagate.extract(headers))
    try:
        yield
    finally:
        context.detach(token)
