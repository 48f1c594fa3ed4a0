"""The full numbers: `python -m tests.chaos.run [scenario ...]`, or `make chaos`.

Runs what is still missing, slice by slice, and prints a table. A finished slice is kept in `results/`, and counts
as long as the product's code is the one it was taken with: so this may be interrupted at any time, and goes on
where it was. No slice takes longer than ten minutes, most take one; except the soak, which is one of 35 minutes.
"""

# ruff: noqa: T201  its output is what it is for

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import quantiles

import attrs
import trio

import trio_agentapp

from .scenarios import SCENARIOS, Outcome, Scenario, run_scenario

RESULTS = Path(__file__).parent / "results"
CODE = Path(trio_agentapp.__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(description="Take the full numbers of the chaos scenarios.")
    parser.add_argument("scenarios", nargs="*", metavar="scenario", help=", ".join(SCENARIOS))
    parser.add_argument("--seconds", type=float, help="begin no further slice after so long")
    parser.add_argument("--again", action="store_true", help="take them anew")
    parser.add_argument("--table", action="store_true", help="only print what there is")
    given = parser.parse_args()
    if unknown := set(given.scenarios) - set(SCENARIOS):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    chosen = [SCENARIOS[name] for name in given.scenarios or SCENARIOS]
    RESULTS.mkdir(exist_ok=True)
    if given.again:
        for scenario in chosen:
            for path in RESULTS.glob(f"{scenario.name}.*.json"):
                path.unlink()
    began = time.monotonic()
    code = digest()
    with contextlib.suppress(KeyboardInterrupt):
        for scenario, number, trials in [] if given.table else list(missing(chosen, code)):
            if given.seconds is not None and time.monotonic() - began > given.seconds:
                break
            take(scenario, number, trials, code)
    left = sum(1 for _ in missing(chosen, code))
    clean = print_table(chosen, code)
    if left:
        print(f"\n{left} slices are missing; the same command goes on.")
    return 0 if clean and not left else 1


def missing(chosen: list[Scenario], code: str) -> Iterator[tuple[Scenario, int, int]]:
    for scenario in chosen:
        for number, trials in enumerate(scenario.slices()):
            if load(scenario, number, code) is None:
                yield scenario, number, trials


def take(scenario: Scenario, number: int, trials: int, code: str) -> None:
    print(
        f"{scenario.name}, slice {number + 1} of {len(scenario.slices())} ({trials} trials) ... ",
        end="",
        flush=True,
    )
    try:
        outcome = trio.run(lambda: run_scenario(scenario, trials))
    except KeyboardInterrupt:
        raise
    except Exception as exc:
        print(f"failed: {exc!r}", *getattr(exc, "__notes__", ()), sep="\n")
        return
    print(f"{outcome.seconds:.0f} s, {len(outcome.violations)} violations")
    for violation in outcome.violations[:10]:
        print(f"    {violation}")
    path(scenario, number).write_text(json.dumps({"code": code, **attrs.asdict(outcome)}))


def path(scenario: Scenario, number: int) -> Path:
    return RESULTS / f"{scenario.name}.{number}.json"


def load(scenario: Scenario, number: int, code: str) -> Outcome | None:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads(path(scenario, number).read_text())
        if found.pop("code") == code and found["trials"] == scenario.slices()[number]:
            return Outcome(**found)
    return None


def digest() -> str:
    """Of the product's code: figures of another are not put beside these."""
    found = hashlib.sha256()
    for file in sorted([*CODE.rglob("*.py"), *CODE.rglob("*.lua")]):
        found.update(file.relative_to(CODE).as_posix().encode() + b"\0" + file.read_bytes())
    return found.hexdigest()


def print_table(chosen: list[Scenario], code: str) -> bool:
    """True if nothing in it is wrong."""
    head = ("scenario", "trials", "stops", "lost", "doubled", "stuck", "other", "p50 ms", "p99 ms", "max ms")
    rows = [head]
    notes, clean = [], True
    for scenario in chosen:
        outcomes = [
            outcome
            for number in range(len(scenario.slices()))
            if (outcome := load(scenario, number, code)) is not None
        ]
        if not outcomes:
            continue
        latencies = sorted(second for outcome in outcomes for second in outcome.latencies)
        counts = [
            sum(getattr(outcome, name) for outcome in outcomes)
            for name in ("trials", "accepted", "lost", "doubled", "stuck", "other")
        ]
        clean = clean and not any(counts[2:])
        rows.append((scenario.name, *map(str, counts), *_milliseconds(latencies)))
        if freed := [second for outcome in outcomes for second in outcome.freed_after]:
            notes.append(f"{scenario.name}: sessions could be claimed at most {max(freed):.2f} s after the death")
        for outcome in outcomes:
            notes += [f"{scenario.name}: {name} {value:g}" for name, value in outcome.figures.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        print(first.strip().ljust(widths[0]), *others, sep="  ")
    print(*notes, sep="\n")
    return clean


def _milliseconds(latencies: list[float]) -> tuple[str, str, str]:
    if len(latencies) < 2:
        return "", "", ""
    cuts = quantiles(latencies, n=100, method="inclusive")
    return f"{1000 * cuts[49]:.1f}", f"{1000 * cuts[98]:.1f}", f"{1000 * latencies[-1]:.0f}"


if __name__ == "__main__":
    sys.exit(main())
