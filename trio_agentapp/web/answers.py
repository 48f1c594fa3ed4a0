"""How runs and receipts look in answers (WIRE, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..protocol.lifecycle import Phase, RunState, StopReceipt
from ..runs import Run
from .service import Known

__all__ = ["receipt_body", "run_body"]


def receipt_body(receipt: StopReceipt) -> Mapping[str, Any]:
    """A receipt as `POST /stop` answers it."""
    if receipt.stopped:
        message = "The run was stopped."
    elif receipt.run_id is not None and receipt.state.terminal:
        message = "The run ended before the stop took effect." if receipt.accepted else "The run had ended already."
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


def run_body(known: Known, node_id: str) -> Mapping[str, Any]:
    """A run as `GET /runs/{id}` answers it, by the node `node_id`."""
    run = known.run
    record = known.as_record if run is None else run.record()
    return {
        "run_id": record.run_id,
        "user_id": record.key.user_id,
        "session_id": record.key.session_id,
        "state": record.state.value,
        "phase": _recorded_phase(record.state) if run is None else _live_phase(run),
        "reason": record.reason,
        "stop_requested": record.stop_requested,
        "stuck": run is not None and run.lifecycle.is_stuck,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
        "cleanup": record.cleanup.value,
        "cleanup_interrupted": record.cleanup_interrupted,
        "node": record.node_id if run is None else node_id,
    }


def _live_phase(run: Run) -> str:
    phase = run.lifecycle.phase
    if phase is Phase.CLAIMING:
        # Clients do not distinguish this phase. It lasts as long as one call of the backend.
        phase = Phase.RUNNING if run.lifecycle.cause is None else Phase.STOPPING
    return phase.value


def _recorded_phase(state: RunState) -> str:
    """The phase of a run on another node, as far as its record shows it. Without a session the run is queued."""
    if state is RunState.IDLE:
        return Phase.QUEUED.value
    return Phase.ENDED.value if state.terminal else Phase.RUNNING.value
