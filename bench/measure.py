"""Takes the figures that speed claims rest on, one slice at a time, and prints them; see README.md beside it.

python bench/measure.py                     what is still missing, then the tables
python bench/measure.py slow-200 --again    one scenario anew
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from client import raise_limit_of_open_files
from environment import PINS, machine, replaced_python, versions
from scenarios import FLOOR, OURS, REPLACED, SCENARIOS, Bench, Figures, us_per_floor_event
from servers import HERE, Program
from table import page, remarks, tables

ROOT = HERE.parent
PAGE = ROOT / "docs" / "reference" / "benchmarks.md"
MEASURED_WITH = (
    "client.py",
    "floor.py",
    "measured.py",
    "reader.py",
    "replaced.py",
    "scenarios.py",
    "stops.py",
    "wire.py",
)
FLOOR_PROGRAM = Program(HERE / "floor.py")


class Results:
    """The folder of finished slices: one file for each round of each scenario.

    A slice is valid for the code with which it was taken.
    """

    def __init__(self, folder: Path, code: str) -> None:
        self.folder = folder
        self.code = code

    def file(self, scenario: str, number: int) -> Path:
        return self.folder / f"{scenario}-{number}.json"

    def slice(self, scenario: str, number: int) -> dict[str, Any] | None:
        """None if it is missing or was taken with other code."""
        try:
            taken = json.loads(self.file(scenario, number).read_text())
        except FileNotFoundError:
            return None
        return taken if taken.get("code") == self.code else None

    def keep(self, taken: dict[str, Any], number: int) -> None:
        self.file(taken["scenario"], number).write_text(json.dumps(taken | {"code": self.code}, indent=2) + "\n")

    def valid(self, rounds: int) -> dict[str, list[dict[str, Any]]]:
        slices = {name: [self.slice(name, number) for number in range(1, rounds + 1)] for name in SCENARIOS}
        return {name: found for name, taken in slices.items() if (found := [one for one in taken if one])}

    def missing(self, names: list[str], rounds: int) -> Iterator[tuple[str, int]]:
        """Every scenario once, then every one again: noise comes in waves."""
        for number in range(1, rounds + 1):
            yield from ((name, number) for name in names if not self.slice(name, number))


def code_of(app: Path) -> str:
    """Changes with every line that decides the figures."""
    digest = hashlib.sha256(repr(PINS).encode())
    for path in (*sorted((ROOT / "trio_agentapp").rglob("*.py")), *(HERE / name for name in MEASURED_WITH), app):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def revision() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def programs(app: Path) -> dict[str, Program]:
    """The sides that can be measured here; without the replaced product only the others."""
    sides = {OURS: Program(app), FLOOR: FLOOR_PROGRAM}
    try:
        sides[REPLACED] = Program(HERE / "replaced.py", replaced_python())
    except OSError as error:
        print(f"The replaced product cannot be installed; only ours is measured: {error}", file=sys.stderr)
    return sides


def take(name: str, sides: dict[str, Program], logs: Path) -> dict[str, Any]:
    """One slice: the figures of each side, one after the other, between two looks at the floor."""
    scenario = SCENARIOS[name]
    load = os.getloadavg()[0]
    units = [us_per_floor_event(FLOOR_PROGRAM, logs / "unit.log")]
    figures: dict[str, Figures] = {}
    others: dict[str, float] = {}
    for side in (side for side in scenario.sides if side in sides):
        bench = Bench(side, sides[side], logs / f"{name}-{side}.log", scenario.settings)
        watch = Others()
        try:
            figures[side] = scenario.take(bench)
        except (RuntimeError, LookupError) as error:
            if side == OURS:
                raise
            figures[side] = {"failed": str(error)[:300]}
        others[side] = watch.share()
    units.append(us_per_floor_event(FLOOR_PROGRAM, logs / "unit.log"))
    return {
        "scenario": name,
        "sides": figures,
        "units": units,
        "load": load,
        "others": others,
        "revision": revision(),
        "taken": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


class Others:
    """What else ran: the machine's busy time without this process and its children, which all end meanwhile."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._busy, self._own = busy_s(), own_s()

    def share(self) -> float:
        """Of all cores."""
        wall = time.monotonic() - self._began
        others = (busy_s() - self._busy) - (own_s() - self._own)
        return max(0.0, others / (wall * (os.cpu_count() or 1)))


def busy_s() -> float:
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = Path("/proc/stat").read_text().split()[1:]
    return sum(map(int, (user, nice, system, irq, softirq, steal))) / os.sysconf("SC_CLK_TCK")


def own_s() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def take_missing(
    names: list[str], results: Results, rounds: int, sides: dict[str, Program], *, again: bool
) -> bool:
    """True if every slice could be taken."""
    complete = True
    if again:
        for name in names:
            for number in range(1, rounds + 1):
                results.file(name, number).unlink(missing_ok=True)
    for name, number in list(results.missing(names, rounds)):
        print(f"{name}, round {number} of {rounds} ...", file=sys.stderr, flush=True)
        try:
            results.keep(take(name, sides, results.folder), number)
        except (RuntimeError, LookupError) as error:
            print(f"{name} failed: {error!r}", file=sys.stderr)
            complete = False
    return complete


def about(sides: dict[str, Program]) -> dict[str, Any]:
    return {
        "machine": machine(),
        "replaced": PINS[0].replace("==", " "),
        "ours": versions(),
        "theirs": versions(sides[REPLACED].python) if REPLACED in sides else {"not": "installed"},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the server; see bench/README.md.")
    parser.add_argument("scenarios", nargs="*", help=f"of {', '.join(SCENARIOS)}; default: all")
    parser.add_argument("--runs", type=int, default=3, help="rounds: each takes every side once")
    parser.add_argument("--again", action="store_true", help="also what has been measured already")
    parser.add_argument("--app", type=Path, help="another server to measure; needs --results")
    parser.add_argument("--results", type=Path, help="where finished slices are kept")
    options = parser.parse_args()
    if unknown := set(options.scenarios) - set(SCENARIOS):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    if options.app and not options.results:
        parser.error("the figures of another server must not mix with ours: name their folder with --results")
    app = options.app or HERE / "measured.py"
    results = Results(options.results or HERE / "results", code_of(app))
    results.folder.mkdir(parents=True, exist_ok=True)
    raise_limit_of_open_files()
    sides = programs(app)
    names = options.scenarios or list(SCENARIOS)
    complete = take_missing(names, results, options.runs, sides, again=options.again)
    valid = results.valid(options.runs)
    for line in (*tables(valid), *remarks(valid)):
        print(line)
    if not options.results:
        missing = [f"{name} {number}" for name, number in results.missing(list(SCENARIOS), options.runs)]
        PAGE.write_text(page(valid, about(sides), missing))
        print(f"written to {PAGE.relative_to(ROOT)}")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
