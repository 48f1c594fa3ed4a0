"""A call that blocks the loop is named with its line, while it blocks; what runs beside the loop is not."""

from __future__ import annotations

import json
import re

import pytest

from .conftest import Start
from .harness import AGENTS, WAYS, Server, say

BLOCKED = re.compile(
    r"""blocked the event loop for more than a second: File "(.*)", line (\d+), in (\w+), task '(.+?)'\."""
)


def line_of(comment: str) -> int:
    lines = (AGENTS / "blocking.py").read_text().splitlines()
    [place] = [number for number, line in enumerate(lines, 1) if line.endswith(comment)]
    return place


def records(server: Server) -> list[dict[str, str]]:
    return [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]


def blocked(server: Server) -> list[tuple[str, int, str]]:
    told = [record["message"] for record in records(server)]
    return [(found[1], int(found[2]), found[3]) for found in map(BLOCKED.search, told) if found]


@pytest.mark.parametrize("way", WAYS)
async def test_the_line_that_blocks_is_named_once(start: Start, way: str) -> None:
    server = start("blocking", way)
    for _ in range(2):
        assert (await server.call("POST", "/process", {"input": say(), "stream": False})).status == 200
    assert (await server.call("POST", "/sleep", {})).status == 200

    file = str(AGENTS / "blocking.py")
    assert blocked(server) == [
        (file, line_of("# blocks: in a handler"), "compute"),
        (file, line_of("# blocks: in an endpoint"), "sleep"),
    ]
    assert "trio.to_thread.run_sync" in server.log
    # The first one happened in a run. It names the run and the task, although another thread has logged it.
    first, second = (record for record in records(server) if BLOCKED.search(record["message"]))
    started = next(record for record in records(server) if "has started" in record["message"])
    assert first["run_id"] == started["run_id"]
    assert "run_id" not in second
    tasks = [BLOCKED.search(record["message"])[4] for record in (first, second)]
    assert all(tasks), tasks


@pytest.mark.parametrize("way", WAYS)
async def test_threads_and_awaits_do_not_block(start: Start, way: str) -> None:
    server = start("blocking", way)
    for path in ("/plain", "/thread"):
        assert (await server.call("POST", path, {})).status == 200
    assert (await server.call("GET", "/waits")).status == 200
    server.close()
