"""Kill -9 in the middle of saves, a few times; many times with `make kills`."""

from __future__ import annotations

import pytest

from .kills import KINDS, take

TRIALS = 3


@pytest.mark.parametrize("kind", KINDS)
async def test_what_was_saved_is_whole_after_a_kill(kind: str) -> None:
    outcomes = [outcome async for outcome in take(kind, TRIALS)]
    assert [faults for _, faults in outcomes if faults] == []
    assert len(outcomes) == TRIALS
