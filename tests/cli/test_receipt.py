"""A receipt of a stop as a person reads it agrees with itself."""

import pytest

from trio_agentapp.cli.turn import receipt_line
from trio_agentapp.protocol.lifecycle import CleanupResult, RunState, StopReceipt


@pytest.mark.parametrize(
    ("accepted", "stopped", "state", "line"),
    [
        (True, True, RunState.STOPPED, "Stopped run r1 in 3 ms, cleanup done."),
        (True, False, RunState.STOPPED, "Run r1 ended before the stop took effect (STOPPED, cleanup done)."),
        (True, False, RunState.RUNNING, "Run r1 is being stopped."),
        (False, False, RunState.FINISHED, "Run r1 had ended already (FINISHED)."),
        (False, True, RunState.STOPPED, "Run r1 had been stopped already."),
    ],
)
def test_a_receipt(accepted: bool, stopped: bool, state: RunState, line: str) -> None:
    receipt = StopReceipt(
        accepted=accepted,
        stopped=stopped,
        run_id="r1",
        state=state,
        latency_ms=3.0,
        cleanup=CleanupResult.DONE,
    )
    assert receipt_line(receipt) == line
