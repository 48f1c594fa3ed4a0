"""Shows on stderr that something is in progress, if stderr is a terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress", "steps"]

COUNTED = re.compile(r"(\d+) of (\d+)")


@contextmanager
def progress(text: str) -> Iterator[Callable[[], None]]:
    """Show `text` until the block ends, or until the function that it yields is called."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console

    with Console(stderr=True).status(text) as status:
        yield status.stop


@contextmanager
def steps(*, silent: bool = False) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows a step in place of the former one, with its time, until the block ends.

    A step with a part like `3 of 12` is drawn as a bar.
    """
    if silent or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:

        def show(step: str) -> None:
            # A task of its own for each: that of a former one cannot become one without an end.
            for former in shown.task_ids:
                shown.remove_task(former)
            found = COUNTED.search(step)
            done, total = (int(found[1]), int(found[2])) if found else (0, None)
            shown.add_task(step, completed=done, total=total)

        yield show
