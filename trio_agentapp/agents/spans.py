"""Spans of model calls and tool calls, by the semantic conventions of OpenTelemetry for generative AI.

No span is made if the program has not imported OpenTelemetry. Messages, arguments and results are recorded only if
the variable of the conventions is set:
`OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

__all__ = ["AgentSpan", "chat_span", "tool_span"]

CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"

USAGE = {
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
}


class AgentSpan:
    """A span. Its methods do nothing if the program does not trace."""

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def set(self, name: str, value: Any) -> None:
        if self._span is not None:
            self._span.set_attribute(name, value)

    def set_content(self, name: str, value: object) -> None:
        """Record content of users, models or tools, if the environment variable permits it."""
        if self._span is not None and os.environ.get(CONTENT, "").lower() == "true":
            text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            self._span.set_attribute(name, text)

    def set_usage(self, usage: Mapping[str, Any]) -> None:
        for theirs, name in USAGE.items():
            if isinstance(count := usage.get(theirs), int):
                self.set(name, count)

    def fail(self, kind: str) -> None:
        """Mark the call as failed. `kind`: the class of the error. Its text is left out: it may have content."""
        if self._span is not None:
            self._span.set_attribute("error.type", kind)
            self._span.set_status(_trace().StatusCode.ERROR, kind)

    def headers(self) -> dict[str, str]:
        """Return the headers, such as `traceparent`, with which another server continues the trace."""
        carrier: dict[str, str] = {}
        if self._span is not None:
            from opentelemetry import propagate

            propagate.inject(carrier, context=_trace().set_span_in_context(self._span))
        return carrier


def _trace() -> Any:
    return sys.modules.get("opentelemetry.trace")


@contextmanager
def chat_span(model: str, server: str, messages: Sequence[Mapping[str, Any]]) -> Iterator[AgentSpan]:
    """Open the span of one answer of a model.

    It is not made the current span: a generator is suspended inside this block, and the current span would leak
    into its caller.
    """
    if (trace := _trace()) is None:
        yield AgentSpan()
        return
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": model,
        "server.address": server,
    }
    tracer = trace.get_tracer("trio_agentapp.agents")
    span = tracer.start_span(f"chat {model}", kind=trace.SpanKind.CLIENT, attributes=attributes)
    made = AgentSpan(span)
    made.set_content("gen_ai.input.messages", messages)
    try:
        yield made
    except Exception as error:
        made.fail(type(error).__name__)
        raise
    finally:
        span.end()


@contextmanager
def tool_span(name: str, arguments: str) -> Iterator[AgentSpan]:
    """Open the span of one call of a tool. It is the current span inside the block."""
    if (trace := _trace()) is None:
        yield AgentSpan()
        return
    attributes = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": name,
        "gen_ai.tool.type": "function",
    }
    tracer = trace.get_tracer("trio_agentapp.agents")
    with tracer.start_as_current_span(
        f"execute_tool {name}", attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        made = AgentSpan(span)
        made.set_content("gen_ai.tool.call.arguments", arguments)
        yield made
