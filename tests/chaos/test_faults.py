"""One of each fault, and readers of each kind: they mostly wait, so they do it side by side."""

from __future__ import annotations

import pytest
import trio

from .scenarios import SCENARIOS, Outcome, Scenario, run_scenario

FAULTS = [scenario for scenario in SCENARIOS.values() if scenario.fault is not None]
READERS = [scenario for scenario in SCENARIOS.values() if scenario.readers and scenario.short]
AT_ONCE = 4

Outcomes = dict[str, Outcome | BaseException]


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Outcomes:
    """What came of the scenarios that were selected."""
    selected = [
        item.callspec.params["scenario"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.module is request.module
    ]
    found: Outcomes = {}

    async def run(scenario: Scenario, limiter: trio.CapacityLimiter) -> None:
        try:
            found[scenario.name] = await run_scenario(scenario, scenario.short)
        except trio.Cancelled:
            raise
        except BaseException as exc:
            found[scenario.name] = exc
        finally:
            limiter.release_on_behalf_of(scenario)

    async def run_all() -> None:
        limiter = trio.CapacityLimiter(AT_ONCE)
        async with trio.open_nursery() as nursery:
            for scenario in selected:
                await limiter.acquire_on_behalf_of(scenario)
                nursery.start_soon(run, scenario, limiter)

    trio.run(run_all)
    return found


@pytest.mark.parametrize("scenario", [*FAULTS, *READERS], ids=lambda scenario: scenario.name)
def test_nothing_is_lost_doubled_or_stuck(scenario: Scenario, outcomes: Outcomes) -> None:
    outcome = outcomes[scenario.name]
    if isinstance(outcome, BaseException):
        raise outcome
    outcome.assert_clean()
