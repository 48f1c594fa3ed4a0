"""Converts the answers of the Redis backend's scripts into the types of the contract."""

from __future__ import annotations

from collections.abc import Sequence

from ..abc import Busy, Claim, Ended, Granted, Queued, QueueIsFull, StopAnswer, StopOutcome
from ..protocol.ids import SessionKey
from ..protocol.lifecycle import CleanupResult, RunRecord, RunState
from ..protocol.timings import Timings

__all__ = ["claim_answer", "record_from", "stop_answer", "text"]

Part = bytes | int | None


def text(value: Part) -> str:
    if value is None:
        return ""
    return value.decode() if isinstance(value, bytes) else str(value)


def claim_answer(answer: Sequence[Part], timings: Timings) -> Claim:
    match [text(part) for part in answer]:
        case ["OK", token]:
            return Granted(int(token))
        case ["BUSY", run_id, ms]:
            return Busy(run_id, max(1.0, min(int(ms) / 1000, timings.lease)))
        case ["QUEUED", run_id, ahead]:
            return Queued(run_id, int(ahead))
        case ["FULL", run_id]:
            return QueueIsFull(run_id)
        case ["ENDED", state, reason]:
            return Ended(RunState(state), reason or None)
    raise AssertionError(answer)


def stop_answer(answer: Sequence[Part], run_id: str) -> StopAnswer:
    match [text(part) for part in answer]:
        case ["ACCEPTED", run, node]:
            return StopAnswer(
                outcome=StopOutcome.ACCEPTED, run_id=run, state=RunState.RUNNING, node_id=node or None
            )
        case ["PENDING"]:
            return StopAnswer(outcome=StopOutcome.PENDING, run_id=run_id)
        case ["ENDED", run, state, node]:
            return StopAnswer(outcome=StopOutcome.ENDED, run_id=run, state=RunState(state), node_id=node or None)
        case ["NOT_RUNNING", state]:
            return StopAnswer(outcome=StopOutcome.NOT_RUNNING, state=RunState(state))
    raise AssertionError(answer)


def record_from(run_id: str, key: SessionKey, pairs: Sequence[bytes]) -> RunRecord:
    """Make a run record from the answer of HGETALL inside a script: a flat list of names and values."""
    raw = {text(pairs[i]): pairs[i + 1] for i in range(0, len(pairs), 2)}
    questions = raw.pop("questions", b"")
    fields = {name: text(value) for name, value in raw.items()}
    return RunRecord(
        run_id=run_id,
        key=key,
        state=RunState(fields["state"]),
        reason=fields.get("reason"),
        token=int(fields.get("tok", "0")),
        node_id=fields.get("node", ""),
        started_at=int(fields["started"]) / 1000 if "started" in fields else None,
        ended_at=int(fields["ended"]) / 1000 if "ended" in fields else None,
        stop_requested=fields.get("stop_requested") == "1",
        cleanup=CleanupResult(fields.get("cleanup", "none")),
        cleanup_interrupted=fields.get("cleanup_interrupted") == "1",
        questions=questions,
    )
