"""Traces runs with OpenTelemetry. Needs the extra `otel`.

The spans follow the semantic conventions for generative AI: `invoke_agent` for the run, and `execute_tool` and
`chat` of `trio_agentapp.agents` below it. `claim`, `cleanup`, `stop` and `task` are the runtime's own. They hold no
content.

The current span is a context variable. So the run's span is the parent of spans that the handler's tasks and
threads, and asyncio code on the bridge, make themselves.

If the program has set a tracer provider, that one is used as it is. Otherwise one is made at the first span, and is
shut down with the app; see `tracer_provider`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import trio
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from ..abc import Instrument, NodeFigures, RunEnd, RunFacts, TaskFacts
from ..protocol.ids import SessionKey
from ..protocol.lifecycle import CleanupResult, RunState
from ..protocol.tasks import TaskState
from ..runs.log_fields import add_log_fields
from .tracer_provider import ProviderOfApp, new_provider

__all__ = ["Tracing"]

FLUSH_TIMEOUT = 5.0
"""Seconds for the last spans to be exported when the app ends."""

NANOSECONDS = 1_000_000_000


class Tracing(Instrument):
    """The spans of one app."""

    def __init__(self, app_name: str) -> None:
        self._app_name = app_name
        self._own: TracerProvider | None = None
        self._spans: dict[str, trace.Span] = {}
        self._keys: dict[str, SessionKey] = {}

    def _tracer(self) -> trace.Tracer:
        known = trace.get_tracer_provider()
        if isinstance(known, trace.ProxyTracerProvider):
            trace.set_tracer_provider(known := ProviderOfApp())
        if isinstance(known, ProviderOfApp) and known.current is None:
            known.current = self._own = new_provider(self._app_name)
        return trace.get_tracer("trio_agentapp")

    # What the runtime reports.

    async def serve(self, figures: Callable[[], NodeFigures]) -> None:  # noqa: ARG002
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(FLUSH_TIMEOUT, shield=True):
                await trio.to_thread.run_sync(self.close, abandon_on_cancel=True)

    def close(self) -> None:
        """Export the last spans, and shut down the provider that was made here. It blocks."""
        own, self._own = self._own, None
        known = trace.get_tracer_provider()
        if own is not None and isinstance(known, ProviderOfApp):
            known.current = None
            own.shutdown()

    def claiming(self, run: RunFacts) -> AbstractContextManager[object]:
        return self._tracer().start_as_current_span("claim", attributes=_attributes_of(run))

    @contextmanager
    def running(self, run: RunFacts) -> Iterator[None]:
        attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": self._app_name,
            "gen_ai.conversation.id": run.key.digest,
            **_attributes_of(run),
        }
        name = f"invoke_agent {self._app_name}"
        with self._tracer().start_as_current_span(
            name, attributes=attributes, set_status_on_exception=False
        ) as span:
            self._add_to_log(span)
            self._spans[run.run_id], self._keys[run.run_id] = span, run.key
            try:
                yield
            finally:
                del self._spans[run.run_id], self._keys[run.run_id]

    def ended(self, run: RunFacts, end: RunEnd) -> None:
        span, ending = self._spans.get(run.run_id), end.ending
        if span is None:
            return
        span.set_attribute("agentapp.run.state", ending.state.value)
        span.set_attribute("agentapp.run.cause", ending.cause.value)
        if end.first_event_seconds is not None:
            span.set_attribute("agentapp.run.first_event_seconds", end.first_event_seconds)
        if ending.state is RunState.ERROR:
            span.set_attribute("error.type", ending.cause.value)
            span.set_status(trace.StatusCode.ERROR, ending.cause.value)
        if end.stop_seconds is not None and end.cleanup is not CleanupResult.NONE:
            now = time.time_ns()
            attributes = {"agentapp.cleanup": end.cleanup.value, "agentapp.stop.scope": end.stop_scope}
            begun = now - int(end.stop_seconds * NANOSECONDS)
            self._tracer().start_span("cleanup", start_time=begun, attributes=attributes).end(now)

    def stopping(self, run_id: str | None, key: SessionKey | None) -> AbstractContextManager[object]:
        attributes = {} if run_id is None else {"agentapp.run.id": run_id}
        if key is not None:
            attributes["gen_ai.conversation.id"] = key.digest
        links = [
            trace.Link(span.get_span_context())
            for live, span in self._spans.items()
            if live == run_id or (run_id is None and key is not None and self._keys[live] == key)
        ]
        return self._tracer().start_as_current_span("stop", attributes=attributes, links=links)

    @contextmanager
    def executing(self, task: TaskFacts) -> Iterator[None]:
        attributes = {"agentapp.task.id": task.task_id, "agentapp.task.name": task.name}
        with self._tracer().start_as_current_span(
            f"task {task.name}", attributes=attributes, kind=trace.SpanKind.CONSUMER, set_status_on_exception=False
        ) as span:
            self._add_to_log(span)
            yield

    def executed(self, task: TaskFacts, state: TaskState, error: str | None) -> None:  # noqa: ARG002
        span = trace.get_current_span()
        span.set_attribute("agentapp.task.state", state.value)
        if error is not None and state is TaskState.FAILED:
            span.set_attribute("error.type", error)
            span.set_status(trace.StatusCode.ERROR, error)

    @staticmethod
    def _add_to_log(span: trace.Span) -> None:
        if span.get_span_context().is_valid:
            add_log_fields(trace_id=f"{span.get_span_context().trace_id:032x}")

    def trace_id(self) -> str | None:
        """Return the id of the current trace (32 hexadecimal digits); None without one, or if it is not sampled."""
        found = trace.get_current_span().get_span_context()
        return f"{found.trace_id:032x}" if found.is_valid and found.trace_flags.sampled else None


def _attributes_of(run: RunFacts) -> dict[str, str]:
    return {
        "agentapp.run.id": run.run_id,
        "agentapp.node.id": run.node_id,
        "agentapp.entry": run.entry,
        "agentapp.handler": run.handler,
    }
