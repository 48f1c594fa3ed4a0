"""Progress is drawn at terminals, and nowhere else."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from typing import Any

import pytest
import rich.progress

from trio_agentapp.cli.progress import steps


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "silent"), [(io.StringIO, False), (Terminal, True)])
def test_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], silent: bool) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    with steps(silent=silent) as show:
        show("Building (1 of 2)")
    assert isinstance(sys.stderr, io.StringIO)
    assert sys.stderr.getvalue() == ""


def test_a_step_is_drawn_with_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    drawn: list[list[tuple[str, float, float | None]]] = []

    class Recorded(rich.progress.Progress):
        def get_renderables(self) -> Iterable[Any]:
            drawn.append([(task.description, task.completed, task.total) for task in self.tasks])
            return super().get_renderables()

    monkeypatch.setattr(rich.progress, "Progress", Recorded)
    wanted = [("Building [red]x", 0, None), ("Building x (3 of 4)", 3, 4), ("Pushing x", 0, None)]
    with steps() as show:
        for step, *_ in wanted:
            show(step)
    assert [[each] for each in wanted if [each] in drawn] == [[each] for each in wanted]
    assert max(map(len, drawn)) == 1
    assert isinstance(sys.stderr, io.StringIO)
    assert "Building [red]x" in sys.stderr.getvalue()
