"""How runs and receipts look in answers (WIRE, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..protocol.lifecycle import Phase, RunState, StopReceipt
from .service import Known

if TYPE_CHECKING:
    from ..endpoints.openapi import bodies

__all__ = ["receipt_body", "run_body"]


def receipt_body(receipt: StopReceipt) -> bodies.StopReceipt:
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


def run_body(known: Known, node_id: str) -> bodies.RunInfo:
    """A run as `GET /runs/{id}` answers it, by the node `node_id`."""
    run, record = known.run, known.record
    if run is not None:
        return {
            "run_id": run.run_id,
            "user_id": run.user_id,
            "session_id": run.session_id,
            "state": run.state.value,
            "phase": "queued" if run.waits else run.phase.value,
            "reason": run.cause.value if run.cause is not None and run.phase is not Phase.RUNNING else None,
            "stop_requested": run.stop_requested,
            "stuck": run.stuck,
            "started_at": run.created_at,
            "ended_at": None,
            "cleanup": run.cleanup_state.result.value,
            "cleanup_interrupted": run.cleanup_state.interrupted,
            "node": node_id,
        }
    assert record is not None  # noqa: S101
    return {
        "run_id": record.run_id,
        "user_id": record.key.user_id,
        "session_id": record.key.session_id,
        "state": record.state.value,
        "phase": _phase_of(record.state),
        "reason": record.reason,
        "stop_requested": record.stop_requested,
        "stuck": False,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
        "cleanup": record.cleanup.value,
        "cleanup_interrupted": record.cleanup_interrupted,
        "node": record.node_id,
    }


def _phase_of(state: RunState) -> str:
    """What another node's run is doing, as far as its record tells: one without a session waits for it."""
    if state is RunState.IDLE:
        return "queued"
    return Phase.ENDED.value if state.terminal else Phase.RUNNING.value
