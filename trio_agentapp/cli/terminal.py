"""Reads and writes text, also if a terminal would interpret it or cannot show it."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable, Sequence

import typer

__all__ = ["as_typed", "prepare_streams", "read_input", "write", "write_json", "write_table"]


def prepare_streams() -> None:
    """Write characters that the encoding lacks as escapes, and read bytes that are no characters as U+FFFD."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        # A program may have replaced it with None or another object.
        if isinstance(stream, io.TextIOWrapper):
            if stream is sys.stdin:
                # Python assumes ASCII if no locale is set; input from a pipe is UTF-8 then, too.
                stream.reconfigure(encoding="utf-8" if stream.encoding == "ascii" else None, errors="replace")
            else:
                stream.reconfigure(errors="backslashreplace")


def read_input() -> str:
    """The whole standard input."""
    return sys.stdin.read()


def as_typed(word: str) -> str:
    """Return a word of the command line as text, also if it does not fit the encoding of the locale."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return os.fsencode(word).decode(errors="replace")
    return word


def write(text: str, *, err: bool = False, dim: bool = False, end: str = "\n") -> None:
    """Write text from a server or a user. A terminal shows its escape sequences in place of executing them."""
    from ..protocol.text import visible

    stream = sys.stderr if err else sys.stdout
    if stream.isatty():
        text = typer.style(visible(text), dim=True) if dim and text else visible(text)
    stream.write(text + end)
    stream.flush()


def write_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write columns that are as wide as their longest cell. A row may have fewer cells than there are heads."""
    table = [[*row, *[""] * (len(heads) - len(row))] for row in (heads, *rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def write_json(value: object) -> None:
    """Write JSON on one line: as UTF-8 into a pipe, as ASCII to a terminal or in another encoding."""
    import attrs

    ascii_only = sys.stdout.isatty() or (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    typer.echo(json.dumps(value, default=attrs.asdict, ensure_ascii=ascii_only, separators=(",", ":")))
