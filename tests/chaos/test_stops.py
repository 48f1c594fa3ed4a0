"""Stops and starts at unlucky moments, over two nodes: a few of each; `make chaos` does many."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from statistics import median

import attrs
import pytest
import trio

from trio_agentapp.testing.redis_server import RedisServer

from . import load
from .cluster import SHORT
from .scenarios import SCENARIOS, Scenario, run_scenario

LOADS = [scenario for scenario in SCENARIOS.values() if scenario.load is not None and not scenario.readers]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One for all: nodes take no runs from a server that has just started."""
    server = RedisServer()
    trio.run(server.__aenter__)
    yield server
    trio.run(server.aclose)


@pytest.mark.parametrize("scenario", LOADS, ids=lambda scenario: scenario.name)
async def test_nothing_is_lost_doubled_or_stuck(scenario: Scenario, server: RedisServer) -> None:
    outcome = await run_scenario(scenario, scenario.short, server=server)
    outcome.assert_clean()
    if scenario.name == "cross-node-latency":
        # Heartbeats alone would find the stops too, half a heartbeat later: the wake-ups do work.
        assert median(outcome.latencies) < SHORT.heartbeat / 3
    if scenario.name == "connections":
        assert outcome.figures == {"processes": 2, "connections of one": 2}


@pytest.mark.parametrize("guess", [0.0, 0.16])
async def test_stops_around_the_finish_find_it_on_a_machine_of_any_speed(guess: float, server: RedisServer) -> None:
    """A machine that is faster, or slower, than the one for which the first guess was made."""
    scenario = SCENARIOS["stops-around-the-finish"]
    slow = attrs.evolve(scenario, load=partial(load.stops_around_the_finish, guess=guess))
    (await run_scenario(slow, scenario.short, server=server)).assert_clean()
