"""`logs`: the story of one run from log files, in both formats."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from trio_agentapp.telemetry import JsonFormatter, TextFormatter

from .conftest import Shell

RUN, OTHER = "5e1f0a2b3c4d", "9a8b7c6d5e4f"


def record(message: str, second: float, **fields: str) -> logging.LogRecord:
    made = logging.LogRecord("trio_agentapp.runs", logging.INFO, "f.py", 1, message, (), None)
    made.created = 1_795_000_000 + second
    for name, value in fields.items():
        setattr(made, "session_hash" if name == "session" else f"{name}_id", value)
    return made


def failed() -> logging.LogRecord:
    made = record("the handler failed", 2, run=RUN, request="r1", session="s 1")
    try:
        raise ValueError("no such city")
    except ValueError as error:
        made.exc_info = (ValueError, error, error.__traceback__)
    return made


def log(path: Path, formatter: logging.Formatter) -> Path:
    records = [
        record("ready", 0, node="n1"),
        record("another run", 1, run=OTHER, request="r2", session="s2"),
        record("run has started", 1, run=RUN, request="r1", session="s 1"),
        failed(),
        record("POST /process from 127.0.0.1: 200 in 2.500 s", 3.5, request="r1"),
        record("of another request", 4, request="r2"),
    ]
    lines = "".join(formatter.format(each) + "\n" for each in records)
    path.write_text(f"Agent is ready on http://127.0.0.1:8090\n{{not json\n{lines}")
    return path


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_the_story_of_a_run(shell: Shell, tmp_path: Path, formatter: logging.Formatter) -> None:
    lines = shell.call("logs", RUN[:6], str(log(tmp_path / "log", formatter))).stdout.splitlines()
    assert "run has started" in lines[0]
    assert "+0.000 s" in lines[0]
    assert "the handler failed" in lines[1]
    assert "+1.000 s" in lines[1]
    assert lines[2] == "    Traceback (most recent call last):"
    assert "ValueError: no such city" in lines[-2]
    assert lines[-1].endswith("POST /process from 127.0.0.1: 200 in 2.500 s")
    assert "another" not in "".join(lines)


def test_it_is_told_as_json_too(shell: Shell, tmp_path: Path) -> None:
    done = shell.call("logs", RUN, str(log(tmp_path / "log", TextFormatter())), "--json")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["message"] for each in found][:2] == ["run has started", "the handler failed"]
    assert found[0]["session_hash"] == "s 1"


def test_no_message_looks_like_another_record(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(JsonFormatter().format(record("a\n2026-11-27T00:00:00Z b\x1b[31m", 0, run=RUN)) + "\n")
    [line] = shell.call("logs", RUN, str(path)).stdout.splitlines()
    assert line.endswith(r"a\n2026-11-27T00:00:00Z b\u001b[31m")


def test_records_of_several_nodes_are_in_order(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "b").write_text(JsonFormatter().format(record("the stop", 1.5, run=RUN)) + "\n")
    files = [str(tmp_path / "b"), str(log(tmp_path / "a", JsonFormatter()))]
    lines = shell.call("logs", RUN, *files).stdout.splitlines()
    assert ["run has started" in lines[0], "the stop" in lines[1]] == [True, True]


def test_an_unknown_run_and_an_ambiguous_one(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(JsonFormatter().format(record("x", 0, run=f"abcd{end}")) + "\n" for end in "12"))
    assert "no record of run ffff" in shell.call("logs", "ffff", str(path), code=1).stderr
    assert "abcd1, abcd2" in shell.call("logs", "abcd", str(path), code=2).stderr
    assert "too short" in shell.call("logs", "abc", str(path), code=2).stderr
    assert shell.call("logs", "abcd1", str(path)).stdout
