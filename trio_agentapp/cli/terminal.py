"""Text on its way to and from a terminal, which may obey it, or be unable to show it."""

from __future__ import annotations

import io
import json
import os
import sys

import typer

__all__ = ["as_typed", "prepare_streams", "read_input", "write", "write_json"]


def prepare_streams() -> None:
    """Show by its number what the terminal's encoding has no character for; read as U+FFFD what is no character."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        # None or another object where a program has replaced it.
        if isinstance(stream, io.TextIOWrapper):
            if stream is sys.stdin:
                # ASCII is what Python assumes where no locale is set; what is piped in is UTF-8 there, too.
                stream.reconfigure(encoding="utf-8" if stream.encoding == "ascii" else None, errors="replace")
            else:
                stream.reconfigure(errors="backslashreplace")


def read_input() -> str:
    """The whole standard input."""
    return sys.stdin.read()


def as_typed(word: str) -> str:
    """A word of the command line, also where it is no text in the encoding of the locale."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return os.fsencode(word).decode(errors="replace")
    return word


def write(text: str, *, err: bool = False, dim: bool = False, end: str = "\n") -> None:
    """Write text that others made. In a terminal its escape sequences are shown, and not obeyed; a pipe gets it as
    it is.
    """
    from ..protocol.text import visible

    stream = sys.stderr if err else sys.stdout
    if stream.isatty():
        text = typer.style(visible(text), dim=True) if dim and text else visible(text)
    stream.write(text + end)
    stream.flush()


def write_json(value: object) -> None:
    """JSON for scripts, on one line: UTF-8 in a pipe, ASCII where the terminal shows or encodes it otherwise."""
    import attrs
    import orjson

    plain = orjson.dumps(value, default=attrs.asdict)
    ascii_only = sys.stdout.isatty() or (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    typer.echo(json.dumps(orjson.loads(plain), separators=(",", ":")) if ascii_only else plain.decode())
