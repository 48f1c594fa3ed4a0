"""Handles a stop request for a run on any node, and returns a receipt of what the stop did.

On the node of the run, every stop cancels its scope: see `stoppable`.
"""

from __future__ import annotations

import logging

import trio

from ..abc import BaseInterruptBackend, StopAnswer, StopOutcome, watching
from ..errors import AgentAppError
from ..protocol.ids import SessionKey
from ..protocol.lifecycle import Cause, CleanupResult, RunRecord, RunState, StopReceipt
from .registry import RunRegistry
from .run import Run

__all__ = ["WAIT_MARGIN", "stop_run"]

logger = logging.getLogger("trio_agentapp.runs")

WAIT_MARGIN = 5.0
"""Seconds beyond the cleanup budget after which a stop with `wait` returns."""

POLL = 0.25
"""Seconds between two lookups of a run on another node. Wake-ups may be lost."""


async def stop_run(
    registry: RunRegistry,
    backend: BaseInterruptBackend,
    key: SessionKey | None,
    run_id: str | None = None,
    *,
    user_id: str | None = None,
    wait: bool = False,
) -> StopReceipt:
    """Stop the session's current run, or the named one, wherever it runs.

    Args:
        key: the session. If None, `run_id` alone names the run; with `user_id`, only a run of that user.
        wait: return when nothing of the run runs any more, after the cleanup budget and 5 s at most.

    Raises:
        BackendUnavailable: the run is not on this node, and the backend does not answer. Safe to repeat.
        ValueError: neither `key` nor `run_id` was given.
    """
    if key is None and run_id is None:
        raise ValueError("a stop names a session, a run, or both")
    with registry.instruments.stopping(run_id, key):
        began = trio.current_time()
        run = _find_local(registry, key, run_id, user_id)
        answer = None
        if run is not None and run_id is None and run.lifecycle.state is RunState.IDLE:
            run, answer = await _find_owner(registry, backend, run)
        # The owner cancels first, and records the request in the backend afterwards.
        accepted_here = run is not None and run.scope.stop(Cause.STOPPED)
        if answer is None:
            answer = await _request_stop(backend, key, run, run_id, user_id)
        target = run.run_id if run is not None else answer.run_id
        record = None
        if target is not None and wait and (run is not None or answer.outcome is not StopOutcome.PENDING):
            with trio.move_on_after(registry.cleanup_budget + WAIT_MARGIN):
                record = await _wait_ended(backend, run, key, target)
        elif target is not None and answer.outcome is StopOutcome.ENDED:
            record = await backend.run_status(target)
        return StopReceipt(
            accepted=accepted_here or answer.outcome in (StopOutcome.ACCEPTED, StopOutcome.PENDING),
            stopped=record is not None and _ended_by_stop(record),
            run_id=target,
            state=record.state if record is not None else answer.state if run is None else run.lifecycle.state,
            node=registry.node_id if run is not None else answer.node_id,
            latency_ms=round((trio.current_time() - began) * 1000, 3),
            cleanup=_cleanup_result(run, record),
        )


def _find_local(
    registry: RunRegistry, key: SessionKey | None, run_id: str | None, user_id: str | None
) -> Run | None:
    if run_id is None:
        return None if key is None else registry.find_by_key(key)
    run = registry.find(run_id)
    if run is None or (key is not None and run.key != key) or user_id not in (None, run.user_id):
        return None
    return run


async def _find_owner(
    registry: RunRegistry, backend: BaseInterruptBackend, claiming: Run
) -> tuple[Run | None, StopAnswer | None]:
    """Find the run to stop if this node has only a run that is still claiming the session."""
    try:
        answer = await backend.request_stop(claiming.key)
    except (AgentAppError, OSError):
        return claiming, None
    if answer.outcome is StopOutcome.ACCEPTED:
        owner = registry.find(answer.run_id or "")
        return owner, answer if owner is None else None
    run = registry.find_by_key(claiming.key)
    return (None, answer) if run is None else (run, None)


async def _request_stop(
    backend: BaseInterruptBackend,
    key: SessionKey | None,
    run: Run | None,
    run_id: str | None,
    user_id: str | None,
) -> StopAnswer:
    if run is None:
        return await backend.request_stop(key, run_id, user_id=user_id)
    try:
        return await backend.request_stop(run.key, run.run_id)
    except (AgentAppError, OSError):
        # The run is on this node and is ending already. Only the record of the request is missing.
        logger.warning("run %s: its stop could not be recorded in the backend", run.run_id)
        return StopAnswer(outcome=StopOutcome.ACCEPTED, run_id=run.run_id, state=run.lifecycle.state)


async def _wait_ended(
    backend: BaseInterruptBackend, run: Run | None, key: SessionKey | None, run_id: str
) -> RunRecord | None:
    if run is not None:
        await run.ended.wait()
        if run.lifecycle.ending is not None:
            return run.record()
    record = await backend.run_status(run_id)
    if record is None or record.state.terminal:
        return record
    turn = trio.Event()

    def wake(_run_id: str) -> None:
        turn.set()

    async with watching(backend, key or record.key, wake):
        while True:
            turn = trio.Event()
            record = await backend.run_status(run_id)
            if record is None or record.state.terminal:
                return record
            with trio.move_on_after(POLL):
                await turn.wait()


def _ended_by_stop(record: RunRecord) -> bool:
    """Return whether the run ended because of a stop. False if it ended by itself before the stop took effect.

    A disconnect or a shutdown counts as a stop, so that no receipt says both STOPPED and not stopped.
    """
    if record.reason == Cause.CLEANUP_TIMEOUT:
        return record.stop_requested
    return record.state is RunState.STOPPED


def _cleanup_result(run: Run | None, record: RunRecord | None) -> CleanupResult:
    if record is not None:
        return record.cleanup
    return CleanupResult.TIMED_OUT if run is not None and run.lifecycle.is_stuck else CleanupResult.NONE
