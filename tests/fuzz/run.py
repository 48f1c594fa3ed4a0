"""The long form: `python -m tests.fuzz.run [word ...]`, or `make fuzz`.

500 requests for each operation of the document, half of which break it, 50,000 mutated bodies, 10,000 mutated calls
of A2A, and against a guarded app 100,000 mutated requests and 50,000 mutated WebSocket frames.

Runs what is still missing, slice by slice, and prints a table. A finished slice is kept in
`results/`, and counts as long as the product's code is the one it was taken with: this may be interrupted at any
time, and continues where it was.
"""

# ruff: noqa: T201  its output is what it is for

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import attrs

import trio_agentapp

from .a2a import by_calls
from .attacks import MODES, Outcome, by_document, by_mutation, operations, together
from .guarded import by_frames, by_requests
from .target import A2A_APP, GUARDED_APP, Target, running

RESULTS = Path(__file__).parent / "results"
CODE = Path(trio_agentapp.__file__).parent
EXAMPLES = 250
BODIES, SLICES = 50_000, 20
CALLS, CALL_SLICES = 10_000, 5
REQUESTS, REQUEST_SLICES = 100_000, 20
FRAMES, FRAME_SLICES = 50_000, 10

Slice = Callable[[Target], Outcome]


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz every route.")
    parser.add_argument("words", nargs="*", help="only slices whose name has one of these in it")
    parser.add_argument("--seconds", type=float, help="begin no further slice after so long")
    parser.add_argument("--again", action="store_true", help="take them anew")
    given = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    code = digest()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as target:
        slices = {
            name: take
            for name, take in all_slices(target).items()
            if not given.words or any(word in name for word in given.words)
        }
        if given.again:
            for name in slices:
                path(name).unlink(missing_ok=True)
        with contextlib.suppress(KeyboardInterrupt):
            for name, take in slices.items():
                if load(name, code) is None:
                    if given.seconds is not None and time.monotonic() - began > given.seconds:
                        break
                    keep(name, take(target), code)
    found = {name: load(name, code) for name in slices}
    left = sum(outcome is None for outcome in found.values())
    clean = print_table({name: outcome for name, outcome in found.items() if outcome is not None})
    if left:
        print(f"\n{left} of {len(slices)} slices are missing; the same command goes on.")
    return 0 if clean and not left else 1


def all_slices(target: Target) -> dict[str, Slice]:
    slices: dict[str, Slice] = {}
    for label, operation in operations(target).items():
        for number, mode in enumerate(MODES):
            slices[f"{mode} {label}"] = lambda target, operation=operation, mode=mode, number=number: by_document(
                target, operation, mode, EXAMPLES, number
            )
    for number in range(CALL_SLICES):
        slices[f"a2a {number}"] = lambda target, number=number: _calls(number)
    for number in range(REQUEST_SLICES):
        slices[f"guarded {number}"] = lambda target, number=number: _guarded(
            by_requests, REQUESTS // REQUEST_SLICES, number
        )
    for number in range(FRAME_SLICES):
        slices[f"frames {number}"] = lambda target, number=number: _guarded(
            by_frames, FRAMES // FRAME_SLICES, number
        )
    for number in range(SLICES):
        slices[f"mutated {number}"] = lambda target, number=number: by_mutation(target, BODIES // SLICES, number)
    return slices


def _calls(number: int) -> Outcome:
    """Calls of A2A, to an app of their own."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), A2A_APP) as target:
        return by_calls(target, CALLS // CALL_SLICES, number)


def _guarded(attack: Callable[[Target, int, int], Outcome], count: int, number: int) -> Outcome:
    """Attacks on an app of their own, with another user in it."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), GUARDED_APP) as target:
        return attack(target, count, number)


def keep(name: str, outcome: Outcome, code: str) -> None:
    print(
        f"{name}: {outcome.requests} in {outcome.seconds:.0f} s, {len(outcome.violations)} violations", flush=True
    )
    for violation in outcome.violations[:5]:
        print(f"    {violation}")
    path(name).write_text(json.dumps({"code": code, **attrs.asdict(outcome)}))


def load(name: str, code: str) -> Outcome | None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        found = json.loads(path(name).read_text())
        if found.pop("code") == code:
            return Outcome(**found)
    return None


def path(name: str) -> Path:
    return RESULTS / (re.sub(r"\W+", "_", name) + ".json")


def digest() -> str:
    """Of the product's code and of the app: figures of another are not put beside these."""
    found = hashlib.sha256()
    for file in sorted([*CODE.rglob("*.py"), *Path(__file__).parent.glob("*.py")]):
        found.update(file.name.encode() + b"\0" + file.read_bytes())
    return found.hexdigest()


def print_table(found: dict[str, Outcome]) -> bool:
    """True if nothing in it is wrong."""
    rows = [("what", "requests", "violations", "slowest s", "minutes", "answers")]
    for kind in (*MODES, "mutated", "a2a", "guarded", "frames"):
        all_of_it = together([outcome for name, outcome in found.items() if name.startswith(kind)])
        answers = " ".join(f"{status}:{count}" for status, count in all_of_it.statuses.items())
        figures = (str(all_of_it.requests), str(len(all_of_it.violations)), f"{all_of_it.slowest:.2f}")
        rows.append((kind, *figures, f"{all_of_it.seconds / 60:.1f}", answers))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    return not any(outcome.violations for outcome in found.values())


if __name__ == "__main__":
    sys.exit(main())
