"""Shows on stderr that something is in progress, if stderr is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress"]


@contextmanager
def progress(text: str) -> Iterator[Callable[[], None]]:
    """Show `text` until the block ends, or until the function that it yields is called."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console

    with Console(stderr=True).status(text) as status:
        yield status.stop
