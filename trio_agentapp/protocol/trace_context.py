"""The trace of a call, as headers: `traceparent` and `tracestate` (W3C), unless OTEL_PROPAGATORS names others.

A program that has not imported OpenTelemetry makes no spans. Then the headers of a call are passed on unchanged, so
that the trace of its caller continues at the next server. OpenTelemetry is not imported for that.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["continued_trace", "load_propagation", "trace_headers"]

TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, section 3.2.2."""

MAX_TRACESTATE = 512
"""Characters of a `tracestate` that is passed on: W3C Trace Context, section 3.3.1.5."""

_passed_on: ContextVar[Mapping[str, str] | None] = ContextVar("trace_headers", default=None)


def load_propagation() -> None:
    """Import what the functions below need, if the program has imported OpenTelemetry."""
    if "opentelemetry.trace" in sys.modules:
        from opentelemetry import propagate as _propagate  # noqa: F401


def trace_headers() -> dict[str, str]:
    """Return the headers that continue the current trace at another server; empty if there is none."""
    headers: dict[str, str] = {}
    if "opentelemetry.trace" in sys.modules:
        from opentelemetry import propagate

        propagate.inject(headers)
    return headers or dict(_passed_on.get() or {})


@contextmanager
def continued_trace(headers: Mapping[str, str]) -> Iterator[None]:
    """Inside this block, spans continue the trace of a call with these headers. Faulty ones are ignored."""
    if not headers:
        yield
        return
    if "opentelemetry.trace" not in sys.modules:
        passed_on = _passed_on.set(_valid(headers) or _passed_on.get())
        try:
            yield
        finally:
            _passed_on.reset(passed_on)
        return
    from opentelemetry import context, propagate

    token = context.attach(propagate.extract(headers))
    try:
        yield
    finally:
        context.detach(token)


def _valid(headers: Mapping[str, str]) -> Mapping[str, str] | None:
    """Return only the valid headers of the trace; None if there is no valid `traceparent`."""
    if TRACEPARENT.fullmatch(parent := headers.get("traceparent", "")) is None:
        return None
    state = headers.get("tracestate", "")
    fits = 0 < len(state) <= MAX_TRACESTATE and state.isascii() and state.isprintable()
    return {"traceparent": parent, "tracestate": state} if fits else {"traceparent": parent}
