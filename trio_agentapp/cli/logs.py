"""`logs`: the end of the log of a deployment, or the story of one run from log files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigurationError
from .deployers import manager_of
from .exits import ExitCode, say
from .options import AsJson
from .target import deployments
from .terminal import write

__all__ = ["logs"]

LEAST_PREFIX = 4
"""Characters of a run id. Fewer would mean many runs."""

TEXT = re.compile(
    r"(?P<time>\S+Z) (?P<level>[A-Z]+) +(?P<logger>\S+): (?P<message>.*?)(?: \[(?P<fields>[a-z]+=[^\]]*)\])?$"
)
FIELD_NAMES = {"session": "session_hash"}
"""Fields of JSON whose names are not those of the text with `_id`."""
FIELD = re.compile(r'([a-z]+)=("(?:[^"\\]|\\.)*"|\S+)')


def logs(
    target: Annotated[
        str,
        typer.Argument(
            help="The id of a deployment, or k8s:NAME; with files: the id of a run, or its first characters.",
            autocompletion=deployments,
        ),
    ],
    file: Annotated[
        list[Path] | None,
        typer.Argument(exists=True, dir_okay=False, help="Files of the log in which the run is looked for."),
    ] = None,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=1, max=10_000, help="The last lines of a deployment.")
    ] = 100,
    as_json: AsJson = False,
) -> ExitCode:
    """Print the end of the log of a deployment; with files, all records of one run in them."""
    if file:
        return _story(target, file, as_json=as_json)
    import trio

    manager, deploy_id = manager_of(target)
    write(trio.run(partial(manager.logs, deploy_id, lines=lines)))
    return ExitCode.OK


def _story(run_id: str, file: list[Path], *, as_json: bool) -> ExitCode:
    """Show the records of one run, and of the request that started it, from log files in either format."""
    if len(run_id) < LEAST_PREFIX:
        raise ConfigurationError(f"{run_id!r} is too short for a run; give {LEAST_PREFIX} characters or more")
    runs, requests = _ids(run_id, file)
    if len(runs) > 1:
        raise ConfigurationError(f"{run_id} is the beginning of several runs: {', '.join(sorted(runs)[:5])}")
    if not runs:
        say(f"There is no record of run {run_id}. Was the log written with its fields?")
        return ExitCode.FAILED
    found = [each for each in _records(file) if _belongs(each, runs, requests)]
    found.sort(key=lambda each: str(each["time"]))
    began = _moment(found[0])
    for record in found:
        write(json.dumps(record) if as_json else _line(record, began))
    return ExitCode.OK


def _ids(prefix: str, files: list[Path]) -> tuple[set[str], set[str]]:
    runs: set[str] = set()
    requests: set[str] = set()
    for record in _records(files):
        if (run_id := record.get("run_id", "")).startswith(prefix):
            runs.add(run_id)
            if request_id := record.get("request_id"):
                requests.add(request_id)
    return ({prefix} if prefix in runs else runs), requests


def _belongs(record: dict[str, Any], runs: set[str], requests: set[str]) -> bool:
    run_id = record.get("run_id")
    return run_id in runs if run_id else record.get("request_id") in requests


def _records(files: list[Path]) -> Iterator[dict[str, Any]]:
    """The records of the files, one after the other. What is no record is left out."""
    for path in files:
        with open(path, encoding="utf-8", errors="replace") as lines:
            yield from _records_of(lines)


def _records_of(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    last: dict[str, Any] | None = None
    for line in lines:
        if line.startswith("    ") and last is not None:
            # The traceback of a record in the text format.
            last["traceback"] = f"{last['traceback']}\n{line[4:].rstrip()}" if "traceback" in last else line.strip()
            continue
        if last is not None:
            yield last
        last = _record(line)
    if last is not None:
        yield last


def _record(line: str) -> dict[str, Any] | None:
    if line.startswith("{"):
        try:
            read = json.loads(line)
        except ValueError:
            return None
        return read if isinstance(read, dict) and isinstance(read.get("time"), str) else None
    if (found := TEXT.match(line.rstrip("\n"))) is None:
        return None
    fields = {
        FIELD_NAMES.get(name, f"{name}_id"): _unquoted(value)
        for name, value in FIELD.findall(found["fields"] or "")
    }
    record = {"time": found["time"], "level": found["level"].lower(), "logger": found["logger"]}
    return {**record, "message": found["message"], **fields}


def _unquoted(value: str) -> str:
    return str(json.loads(value)) if value.startswith('"') else value


def _moment(record: dict[str, Any]) -> datetime | None:
    try:
        return datetime.fromisoformat(record["time"])
    except ValueError:
        return None


def _line(record: dict[str, Any], began: datetime | None) -> str:
    # Imported only if needed: the command line starts without the protocol's classes.
    from ..protocol.text import escaped

    now = _moment(record)
    after = "" if began is None or now is None else f"+{(now - began).total_seconds():.3f} s"
    level = str(record.get("level", "")).upper()
    node = str(record.get("node_id", ""))[:8]
    # One line for each record, and indented ones below it: no text of a client can look like a record.
    head = escaped(f"{record['time']} {after:>12} {level:<8} {node:<8} {record.get('message', '')}")
    below = [f"    {escaped(line)}" for line in str(record.get("traceback", "")).split("\n") if line]
    return "\n".join([head.rstrip(), *below])
