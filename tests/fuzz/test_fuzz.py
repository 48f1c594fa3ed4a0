"""A few requests of every kind for every route; `make fuzz` sends many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .a2a import CALLS, by_calls
from .attacks import MODES, by_document, by_mutation, operations, together
from .guarded import REQUESTS, by_frames, by_requests
from .mutations import ROUTES
from .target import A2A_APP, GUARDED_APP, Target, fault_of, running


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with running(tmp_path_factory.mktemp("fuzz")) as target:
        yield target


@pytest.mark.parametrize("mode", MODES)
def test_requests_by_the_document(target: Target, mode: str) -> None:
    found = operations(target)
    assert {"POST /process", "POST /stop", "GET /runs/{run_id}", "POST /lines", "GET /docs"} <= set(found)
    outcomes = {name: by_document(target, operation, mode, 5) for name, operation in found.items()}
    together([*outcomes.values()]).assert_clean()
    # An id that follows the document is unknown all the same.
    outcome = together([each for name, each in outcomes.items() if mode == "wrong" or "{" not in name])
    assert outcome.requests > len(found)
    # What follows the document is mostly taken, and what breaks it mostly refused.
    taken = sum(count for status, count in outcome.statuses.items() if status.startswith("2"))
    assert taken > outcome.requests / 2 if mode == "right" else taken < outcome.requests / 2


def test_mutated_bodies(target: Target) -> None:
    outcome = by_mutation(target, 40 * len(ROUTES))
    outcome.assert_clean()
    assert {"200", "400", "415", "422"} <= set(outcome.statuses)


def test_mutated_calls_of_a2a(tmp_path: Path) -> None:
    with running(tmp_path, A2A_APP) as target:
        outcome = by_calls(target, 20 * len(CALLS))
    outcome.assert_clean()
    assert {"200", "415"} <= set(outcome.statuses)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with running(tmp_path_factory.mktemp("guarded"), GUARDED_APP) as target:
        yield target


def test_mutated_requests_beside_another_users_chat(guarded: Target) -> None:
    outcome = by_requests(guarded, 20 * len(REQUESTS))
    outcome.assert_clean()
    assert {"200", "400", "401", "404", "422"} <= set(outcome.statuses)


def test_mutated_frames_beside_another_users_chat(guarded: Target) -> None:
    outcome = by_frames(guarded, 600)
    outcome.assert_clean()
    assert {"1002", "1007", "4400"} <= set(outcome.statuses)


def test_the_judge_sees_what_is_wrong() -> None:
    assert fault_of(500, b"{}", echoes=False)
    assert fault_of(422, b"Traceback (most recent call last)", echoes=False)
    assert fault_of(422, b"ValueError: x", echoes=False)
    assert fault_of(422, b"must be a number", echoes=False) is None
    assert fault_of(200, b"Traceback", echoes=True) is None
