"""The tables say what was measured, and what was not."""

from typing import Any

import pytest

import measure
import table
from scenarios import SCENARIOS
from table import Row

ABOUT = {"machine": {"CPU": "one of a kind"}, "replaced": "other 1.0", "ours": {"trio": "1"}, "theirs": {"x": "2"}}


def round_of(ours: float, replaced: float | None = None, floor: float | None = None, **more: Any) -> dict[str, Any]:
    figures = {"ours": ours, "replaced": replaced, "floor": floor}
    client = {"client_cpu_s": 1.0, "wall_s": 4.0, "chats": 10, "problems": {}}
    return {
        "sides": {s: {"us_per_event": f, "client": client} for s, f in figures.items() if f is not None},
        "units": [10.0, 10.0],
        "others": {s: 0.0 for s, f in figures.items() if f is not None},
        "load": 0.5,
        "taken": "2026-01-01T00:00:00Z",
        "revision": "abc",
        **more,
    }


def test_medians_and_ratios_of_rounds() -> None:
    row = Row("slow-200", "us_per_event", "CPU", aim=100, of_other=0.4, of_floor=1.6)
    rounds = [round_of(90, 300, 45), round_of(120, 240, 60), round_of(100, 200, 50)]
    assert table.cells(row, rounds) == (
        "CPU",
        "100 (90 to 120)",
        "240 (200 to 300)",
        "0.50",
        "50 (45 to 60)",
        "2.00",
        "25% / 25%",
        "100 ok, ratio 0.4 MISS, floor 1.6 MISS",
    )


def test_a_ratio_is_marked_if_the_machine_was_busier_beside_one_side() -> None:
    row = Row("slow-200", "us_per_event", "CPU")
    busy = round_of(90, 300, others={"ours": 0.0, "replaced": 0.9})
    assert table.cells(row, [busy])[3] == "0.30 uneven"


def test_ours_alone() -> None:
    row = Row("slow-200", "us_per_event", "CPU", of_other=0.4)
    assert table.cells(row, [round_of(1234.5)]) == ("CPU", "1,234", "", "", "", "", "25%", "")
    assert table.cells(row, []) is None


def test_columns_without_figures_are_left_out() -> None:
    lines = list(table.render([("CPU", "1", "", "", "", "", "", "2 ok")]))
    assert lines == ["| what | ours | aim  |", "|------|------|------|", "| CPU  | 1    | 2 ok |"]


def test_remarks_name_noise_company_and_failures() -> None:
    noisy = round_of(1, units=[10.0, 15.0], others={"ours": 0.5})
    failed = {"sides": {"replaced": {"failed": "no chat"}}, "units": [1, 1], "others": {"replaced": 0.0}}
    found = "\n".join(table.remarks({"slow-200": [noisy, failed]}))
    assert "round 1: noisy" in found
    assert "other processes took 50% of the machine" in found
    assert "round 2, replaced: failed: no chat" in found


def test_the_page_has_the_machine_the_figures_and_what_is_missing() -> None:
    page = table.page({"slow-200": [round_of(90, 300, 45)]}, ABOUT, ["slow-500 1"])
    assert "one of a kind" in page
    assert "| 0.30 " in page
    assert "Not measured with this code: slow-500 1." in page


def test_every_row_has_its_scenario_and_every_scenario_a_row() -> None:
    rows = [row for rows in table.TABLES.values() for row in rows]
    assert {row.scenario for row in rows} == set(SCENARIOS)
    assert len({(row.scenario, row.figure) for row in rows}) == len(rows)


def test_a_slice_is_valid_for_its_code_only(tmp_path) -> None:
    results = measure.Results(tmp_path, "one")
    results.keep({"scenario": "slow-1"}, 1)
    assert results.slice("slow-1", 1) == {"scenario": "slow-1", "code": "one"}
    assert list(results.missing(["slow-1"], 2)) == [("slow-1", 2)]
    later = measure.Results(tmp_path, "two")
    assert later.slice("slow-1", 1) is None
    assert later.valid(1) == {}


def test_without_the_replaced_product_ours_is_measured(monkeypatch, capsys) -> None:
    def fails() -> None:
        raise OSError("no index")

    monkeypatch.setattr(measure, "replaced_python", fails)
    assert set(measure.programs(measure.HERE / "measured.py")) == {"ours", "floor"}
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("value", "text"), [(0.01234, "0.0123"), (12.34, "12.3"), (999.4, "999"), (12345.6, "12,346")]
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert table.number(value) == text
