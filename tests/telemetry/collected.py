"""The spans that the collector of the example has received and printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

COLLECTOR = Path(__file__).parents[2] / "examples/tracing/collector.py"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@attrs.frozen
class Span:
    trace: str
    id: str
    parent: str
    service: str
    name: str
    facts: dict[str, str]
    line: str

    @classmethod
    def read(cls, line: str) -> Span:
        found = re.fullmatch(r"(\w{32}) (\w{16}) (\S{16}) ([^:]+): (.+?) [\d.]+ ms ?(.*)", line)
        assert found, line
        facts = dict(re.findall(r"(\S+?)=(.*?)(?= \S+=|$)", found[6]))
        return cls(found[1], found[2], found[3], found[4], found[5], facts, line)


class Collector:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stderr is not None
        self.url = process.stderr.readline().split()[-1]

    def end(self) -> list[Span]:
        """End the collector, and return what it has printed."""
        self._process.terminate()
        return [Span.read(line) for line in self._process.communicate(timeout=20)[0].splitlines()]


@contextmanager
def collecting() -> Iterator[Collector]:
    command = [sys.executable, str(COLLECTOR)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PORT": "0"}
    ) as process:
        try:
            yield Collector(process)
        finally:
            process.kill()


def one(spans: list[Span], name: str) -> Span:
    found = [span for span in spans if span.name == name]
    assert len(found) == 1, [span.line for span in spans]
    return found[0]
