"""Responses of the runtime's own routes: JSON, the bodies of runs and stop receipts, and the headers of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson
from quart import Response
from quart.wrappers import Request

from ..protocol.lifecycle import Phase, RunRecord, RunState, StopReceipt
from ..runs import Run
from .run_access import Known

if TYPE_CHECKING:
    from ..endpoints.openapi import bodies

__all__ = ["json_response", "link", "question_body", "receipt_body", "run_body", "run_headers", "shown_id"]

UNQUOTED = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")


def json_response(body: object, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status=status, content_type="application/json")


def receipt_body(receipt: StopReceipt) -> bodies.StopReceipt:
    """The body of a response to a stop."""
    if receipt.stopped:
        message = "The run was stopped."
    elif receipt.run_id is not None and receipt.state.terminal and receipt.accepted:
        message = "The run ended before the stop took effect."
    elif receipt.accepted:
        message = "The run is being stopped."
    elif receipt.run_id is not None:
        message = "The run had ended already."
    else:
        message = "No run of this session is running."
    return {
        "status": "success",
        "message": message,
        "accepted": receipt.accepted,
        "stopped": receipt.stopped,
        "run_id": receipt.run_id,
        "state": receipt.state.value,
        "node": receipt.node,
        "latency_ms": receipt.latency_ms,
        "cleanup": receipt.cleanup.value,
    }


def run_body(known: Known, node_id: str) -> bodies.RunInfo:
    """The body of `GET /runs/{id}`. `node_id` is this node's id."""
    run, record = known.run, known.latest
    return {
        "run_id": record.run_id,
        "user_id": record.key.user_id,
        "session_id": record.key.session_id,
        "state": record.state.value,
        "phase": (_recorded_phase(record.state) if run is None else _live_phase(run)).value,
        "reason": record.reason,
        "stop_requested": record.stop_requested,
        "stuck": run is not None and run.lifecycle.is_stuck,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
        "cleanup": record.cleanup.value,
        "cleanup_interrupted": record.cleanup_interrupted,
        "node": record.node_id if run is None else node_id,
    }


def question_body(record: RunRecord, question: Mapping[str, Any]) -> bodies.OpenQuestion:
    """An entry of `GET /questions`."""
    return {
        "run_id": record.run_id,
        "user_id": record.key.user_id,
        "session_id": record.key.session_id,
        "id": question["id"],
        "name": question["name"],
        "question": question["question"],
        "schema": question["schema"],
        "asked_at": question["asked_at"],
        "expires_at": question["expires_at"],
    }


def _live_phase(run: Run) -> Phase:
    phase = run.lifecycle.phase
    if phase is Phase.CLAIMING:
        # Clients do not see the phase FINISHING, which lasts as long as one call of the backend.
        return Phase.RUNNING if run.lifecycle.cause is None else Phase.STOPPING
    return phase


def _recorded_phase(state: RunState) -> Phase:
    """Return the phase of a run on another node, derived from its record. In the state IDLE it is queued."""
    if state is RunState.IDLE:
        return Phase.QUEUED
    return Phase.ENDED if state.terminal else Phase.RUNNING


def run_headers(request: Request, run_id: str, session_id: str) -> dict[str, str]:
    """Return the headers that name the run of a response."""
    return {
        "X-Run-Id": run_id,
        "X-Session-Id": shown_id(session_id),
        "Location": link(request, f"/runs/{run_id}"),
    }


def shown_id(name: str) -> str:
    """Return an id for a header: `%` and everything except visible ASCII is percent-encoded."""
    return quote(name, safe=UNQUOTED)


def link(request: Request, path: str) -> str:
    """Return the path of a resource as the client has to request it: with the path prefix of the app."""
    return request.root_path + path
