"""The checker accepts what the protocol allows and rejects histories that break it, one rule each."""

from __future__ import annotations

from typing import Any

import pytest

from .checker import Rules, judge
from .history import Fault, Freed, History, Line, Record, Sample, Start, Stop, Stuck, Terminal

RULES = Rules(lease=2.0, stop_within=1.3)
BROKEN = Rules(lease=2.0, stop_within=2.0, faults=True)


def lines(run: str, token: int, *happened: tuple[float, str], session: str = "s", node: str = "n0") -> list[Line]:
    return [Line(t=t, what=what, run=run, session=session, token=token, node=node) for t, what in happened]


def whole(run: str, token: int, begin: float, end: float, **more: str) -> list[Line]:
    return lines(run, token, (begin, "enter"), ((begin + end) / 2, "slice"), (end, "leave"), (end, "exit"), **more)


def start(run: str, t: float = 0.9, status: int = 200, **more: Any) -> Start:
    return Start(**{"t0": t, "t1": t, "run": run, "session": "s", "node": "n0", "status": status, **more})


def record(run: str, state: str = "FINISHED", reason: str = "returned", t: float = 100.0) -> Record:
    return Record(t=t, run=run, state=state, reason=reason)


def good() -> History:
    """Two runs after another, and the second is stopped."""
    return History(
        lines=whole("a", 1, 1.0, 2.0)
        + lines("b", 2, (3.0, "enter"), (3.5, "cancelled"), (3.5, "cleanup"), (3.6, "cleaned"), (3.6, "leave"))
        + lines("b", 2, (3.7, "exit")),
        starts=[start("a"), start("b", 2.9)],
        terminals=[
            Terminal(t=2.1, run="a", state="FINISHED", code=None),
            Terminal(t=3.8, run="b", state="STOPPED", code="stopped"),
        ],
        stops=[Stop(t0=3.4, t1=3.5, node="n1", session="s", accepted=True, target="b", state="RUNNING")],
        records=[record("a"), record("b", "STOPPED", "stopped"), record("b", "STOPPED", "stopped", 101.0)],
        samples=[Sample(t=1.5, session="s", state="RUNNING", run="a", run_state="RUNNING")],
    )


def rules_broken(history: History, rules: Rules = RULES) -> set[str]:
    return {violation.rule for violation in judge(history, rules).violations}


def test_a_good_history_is_clean() -> None:
    verdict = judge(good(), RULES)
    verdict.assert_clean()
    assert verdict.accepted == 1
    assert verdict.stop_latencies == [pytest.approx(0.1)]


@pytest.mark.parametrize(
    ("rule", "bad"),
    [
        pytest.param("S1", {"lines": whole("a", 1, 1.0, 2.0) + whole("b", 2, 1.5, 2.5)}, id="two bodies"),
        pytest.param(
            "S1",
            {
                "lines": lines("a", 1, (1.0, "enter"), (1.5, "cancelled"), (1.5, "cleanup"), (1.9, "cleaned"))
                + lines("a", 1, (1.9, "leave"), (1.9, "exit"))
                + whole("b", 2, 1.7, 2.5)
            },
            id="a body beside a cleanup",
        ),
        pytest.param("S1", {"lines": whole("a", 1, 1.0, 1.5) + whole("a", 2, 1.6, 1.7)}, id="executed twice"),
        pytest.param("S1", {"lines": whole("c", 3, 4.0, 5.0), "starts": [start("c", 4.0, 409)]}, id="refused"),
        pytest.param("S2", {"lines": lines("c", 3, (4.0, "enter"), (4.1, "slice"))}, id="has no end"),
        pytest.param("S2", {"lines": whole("c", 3, 4.0, 5.0), "records": []}, id="has no terminal state"),
        pytest.param("S2", {"records": [record("a"), record("a", "ERROR", "owner_lost", 101.0)]}, id="changes"),
        pytest.param("S2", {"records": [record("a"), record("a", "RUNNING", "", 101.0)]}, id="comes to life"),
        pytest.param(
            "S2", {"terminals": [Terminal(t=2.0, run="a", state="ERROR", code="lease_lost")]}, id="client was told"
        ),
        pytest.param(
            "S2",
            {"stops": [Stop(t0=2.1, t1=2.2, node="n1", run="a", target="a", state="STOPPED")]},
            id="the caller of a stop was told",
        ),
        pytest.param(
            "S3",
            {"samples": [Sample(t=2.5, session="s", state="RUNNING", run="a", run_state="FINISHED")]},
            id="session runs and its run does not",
        ),
        pytest.param(
            "S3",
            {"samples": [Sample(t=1.5, session="s", state="FINISHED", run="a", run_state="RUNNING")]},
            id="run runs and its session does not",
        ),
        pytest.param("S4", {"stops": []}, id="stopped by nobody"),
        pytest.param(
            "S4",
            {"stops": [Stop(t0=3.0, t1=3.1, node="n1", session="s", accepted=True, target="a", state="FINISHED")]},
            id="hit by a stop of the run before",
        ),
        pytest.param(
            "S4", {"stops": [Stop(t0=3.0, t1=3.1, run="a", status=503)]}, id="hit by the stop of another"
        ),
        pytest.param(
            "S4", {"stops": [Stop(t0=3.4, t1=3.5, run="b", accepted=True, foreign=True)]}, id="by a foreign one"
        ),
        pytest.param("S4", {"stops": [Stop(t0=3.9, t1=4.0, target="b", state="STOPPED", foreign=True)]}, id="told"),
        pytest.param("S5", {"lines": whole("a", 5, 1.0, 2.0) + whole("b", 5, 3.0, 4.0)}, id="token does not grow"),
        pytest.param("C1", {"lines": lines("a", 1, (1.0, "enter"), (1.1, "cleanup"), (1.2, "exit"))}, id="cut"),
        pytest.param(
            "L1",
            {
                "lines": whole("a", 1, 1.0, 2.0),
                "stops": [Stop(t0=1.1, t1=1.2, run="a", accepted=True, target="a")],
            },
            id="lost by run id",
        ),
        pytest.param(
            "L1",
            {
                "lines": whole("a", 1, 1.0, 2.0),
                "stops": [Stop(t0=1.8, t1=1.85, session="s", accepted=True, target="a")],
            },
            id="lost by session",
        ),
        pytest.param(
            "L1",
            {
                "lines": whole("a", 1, 1.0, 2.0),
                "stops": [Stop(t0=1.8, t1=1.85, session="s", accepted=True, target="a")],
                "records": [record("a", "ERROR", "lease_lost")],
                "terminals": [],
            },
            id="another end",
        ),
        pytest.param(
            "L1",
            {"stops": [Stop(t0=1.8, t1=1.85, node="n1", session="s", accepted=True, target="c", state="RUNNING")],
             "records": [record("c")]},
            id="finished unseen",
        ),
        pytest.param(
            "late",
            {"stops": [Stop(t0=1.0, t1=1.1, node="n1", session="s", accepted=True, target="b", state="RUNNING")]},
            id="late",
        ),
        pytest.param("L2", {"freed": [Freed(session="s", died_at=1.0, t=4.1)]}, id="blocked too long"),
        pytest.param("stuck", {"stuck": [Stuck(t=1.0, what="session s")]}, id="stuck"),
        pytest.param("refused", {"starts": [start("c", status=503)]}, id="refused without need"),
    ],
)  # fmt: skip
def test_a_bad_history_is_rejected(rule: str, bad: dict[str, Any]) -> None:
    history = good()
    for name, value in bad.items():
        setattr(history, name, value)
    assert rule in rules_broken(history)


def paused(*after: tuple[float, str], seconds: float = 3.0) -> History:
    """A run whose node is paused, and on waking does `after`, while another has its session."""
    return History(
        lines=lines("a", 1, (1.0, "enter"), (1.1, "slice"), *after)
        + lines("b", 2, (3.2, "enter"), (4.2, "slice"), (6.0, "leave"), (6.0, "exit"), node="n1"),
        records=[record("a", "ERROR", "owner_lost"), record("b")],
        faults=[Fault(kind="pause", t0=1.2, t1=1.2 + seconds, node="n0")],
    )


def test_a_paused_owner_may_execute_the_slice_that_was_scheduled() -> None:
    assert rules_broken(paused((4.21, "slice"), (4.22, "leave"), (4.22, "exit")), BROKEN) == set()
    assert (
        rules_broken(paused((4.21, "cancelled"), (4.21, "cleanup"), (4.22, "leave"), (4.22, "exit")), BROKEN)
        == set()
    )


@pytest.mark.parametrize(
    "history",
    [
        pytest.param(paused((4.21, "slice"), (4.22, "slice"), (4.23, "exit")), id="two slices"),
        pytest.param(paused((5.9, "slice"), (5.9, "exit")), id="long after it woke"),
        pytest.param(paused((3.3, "slice"), (3.3, "exit")), id="while it was paused"),
        pytest.param(paused((4.21, "slice"), (4.3, "exit"), seconds=1.0), id="a short pause is no excuse"),
    ],
)
def test_it_may_not_do_more(history: History) -> None:
    assert "S1" in rules_broken(history, BROKEN)


def test_a_killed_owner_ends_without_a_word() -> None:
    history = good()
    history.lines = lines("a", 1, (1.0, "enter"), (1.1, "slice")) + whole("b", 2, 4.0, 5.0, node="n1")
    history.records = [record("a", "ERROR", "owner_lost"), record("b")]
    history.terminals, history.stops = [], []
    history.faults = [Fault(kind="kill", t0=1.2, t1=1.2, node="n0")]
    assert rules_broken(history, BROKEN) == set()
    history.faults = [Fault(kind="kill", t0=1.2, t1=1.2, node="n1")]
    assert rules_broken(history, BROKEN) == {"S2"}


def test_records_may_be_gone_with_the_data_and_only_then() -> None:
    history = History(lines=whole("a", 1, 1.0, 2.0))
    assert rules_broken(history, BROKEN) == {"S2"}
    history.faults = [Fault(kind="data lost", t0=1.5, t1=1.6)]
    assert rules_broken(history, BROKEN) == set()


def test_a_stop_whose_run_ended_by_itself_a_moment_later_is_not_lost() -> None:
    history = good()
    history.stops.append(Stop(t0=1.93, t1=1.95, session="s", accepted=True, target="a"))
    assert rules_broken(history) == set()
