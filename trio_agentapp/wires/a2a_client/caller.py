"""What a call tells another agent of the handler that makes it: its remaining time and its trace."""

from __future__ import annotations

import math
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from ...protocol.ids import new_run_id
from ...protocol.trace_context import trace_headers as current_trace_headers
from ...runs.run import Run, current_run

__all__ = ["TIMEOUT_HEADER", "cleanup", "remaining", "trace_headers"]

TIMEOUT_HEADER = "X-Agent-Timeout"
"""Seconds that the caller has left. A2A has no field for it."""

CLEANUP_WITHIN = 10.0
"""Seconds for the cancellation of a task at the other agent, or less if the cleanup budget of the run has less."""

RESERVE = 0.5
"""Seconds of the cleanup budget that are left to the handler's own cleanup."""

TRACE_ID_DIGITS = 32
HEXADECIMAL = frozenset("0123456789abcdef")


def remaining(timeout: float | None) -> float | None:
    """Return the seconds that a call may take: those of the run that makes it, and `timeout`; None: no limit."""
    run = current_run.get(None)
    left = math.inf if run is None else run.deadline - trio.current_time()
    left = min(left, math.inf if timeout is None else timeout)
    return None if left == math.inf else max(left, 0.001)


def trace_headers() -> dict[str, str]:
    """Return `traceparent` (W3C Trace Context), and `tracestate` if there is one.

    They are those of OpenTelemetry if the program uses it. Otherwise all calls of one run have one trace id.
    """
    headers = current_trace_headers()
    if "traceparent" in headers:
        return headers
    return {"traceparent": f"00-{_trace_id(current_run.get(None))}-{secrets.token_hex(8)}-01"}


def _trace_id(run: Run | None) -> str:
    """The id of the run, if it can be one of a trace: 32 hexadecimal digits, not all of them 0."""
    if run is not None and len(run.run_id) == TRACE_ID_DIGITS and {"0"} != set(run.run_id) <= HEXADECIMAL:
        return run.run_id
    return new_run_id()


@asynccontextmanager
async def cleanup() -> AsyncIterator[None]:
    """A shielded block for what has to be done at the other agent, within the cleanup budget of the run.

    Its time limit cuts it without an error: the other agent may be gone.
    """
    run = current_run.get(None)
    if run is None:
        with trio.move_on_after(CLEANUP_WITHIN, shield=True):
            yield
        return
    async with run.cleanup():
        with trio.move_on_at(min(trio.current_time() + CLEANUP_WITHIN, run.cleanup_state.deadline() - RESERVE)):
            yield
