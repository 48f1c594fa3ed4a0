"""Logs: one JSON line a record, control characters escaped, no bodies, no tokens (WIRE, section 6)."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import orjson

__all__ = ["JsonFormatter", "configure_logging"]


class JsonFormatter(logging.Formatter):
    """Spells a record as one line of JSON: nobody's text can end it or begin another."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line).decode()
        except TypeError:
            # Lone surrogates, as they stand in file names: shown escaped.
            shown = {name: str(value).encode(errors="backslashreplace").decode() for name, value in line.items()}
            return orjson.dumps(shown).decode()


def configure_logging() -> None:
    """Write the records of this package to stderr, as JSON lines unless that is a terminal.

    A program that has set up logging itself is left alone.
    """
    logger = logging.getLogger("trio_agentapp")
    if logging.getLogger().handlers or logger.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    # A person reads a terminal, and programs read everything else.
    plain = logging.Formatter("%(levelname)s: %(message)s")
    handler.setFormatter(plain if sys.stderr.isatty() else JsonFormatter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
