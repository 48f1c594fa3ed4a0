"""Configures logging: one handler at the root logger, so that the records of all code have one format.

These are the records of this package, of Quart, Hypercorn and Trio, of Python's warnings and of the user's code. A
program that has given the root logger a handler keeps its own configuration.

No record can forge another one: control characters are escaped, and tracebacks are indented.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import orjson

from ..protocol.text import escaped, safe_text
from ..runs.log_fields import LOG_FIELDS, log_fields
from .tracebacks import traceback_text

__all__ = [
    "LOG_FORMATS",
    "JsonFormatter",
    "LogFields",
    "TextFormatter",
    "configure_logging",
    "format_handlers",
    "levels_in",
]

REPEATED_AFTER = 60.0
"""Seconds between two reports that a listener cannot accept. Trio reports that ten times a second."""

HYPERCORN = ("hypercorn.error", "hypercorn.access")
HYPERCORN_FORMAT = "%(asctime)s [%(process)d] [%(levelname)s] %(message)s"


SHOWN = {name: name.rpartition("_")[0] for name in LOG_FIELDS}
"""The names of the fields in text."""


class LogFields(logging.Filter):
    """Adds the fields of `LOG_FIELDS` to each record, such as `run_id`; an empty text if there is none.

    Add it to a handler of your own to use these fields in its format.
    """

    def __init__(self, node_id: str = "") -> None:
        super().__init__()
        self._node_id = node_id

    def filter(self, record: logging.LogRecord) -> bool:
        known, given = log_fields(), record.__dict__
        for name in LOG_FIELDS:
            if name not in given:
                given[name] = known.get(name, self._node_id if name == "node_id" else "")
        return True


class TextFormatter(logging.Formatter):
    """Formats a record as text: a line of time, level, logger, message and fields, and the traceback below."""

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join([f"{SHOWN[name]}={_word(value)}" for name, value in _fields_of(record)])
        head = f"{_time_of(record)} {record.levelname:<8} {escaped(record.name)}: {escaped(_message_of(record))}"
        lines = [f"{head} [{fields}]" if fields else head]
        lines += [f"    {escaped(line)}" for line in _traceback_of(record).split("\n") if line]
        return "\n".join(lines)


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON; the traceback is one text."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, str] = {
            "time": _time_of(record),
            "level": record.levelname.lower(),
            "logger": safe_text(record.name),
            "message": _message_of(record),
            **dict(_fields_of(record)),
        }
        if text := _traceback_of(record):
            line["traceback"] = text
        # JSON escapes only the control characters of ASCII. Other characters may end a line, too.
        return escaped(orjson.dumps(line).decode())


TELL_TOO_MUCH = ("httpx", "autogen_core")
"""Loggers that are shown from the level WARNING only. httpx logs the whole URL of each request, which may contain
keys. AutoGen logs each message of each user, and every token of an answer several times.
"""

LOG_FORMATS: dict[str, type[logging.Formatter]] = {"text": TextFormatter, "json": JsonFormatter}


LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


def levels_in(text: str) -> dict[str, int]:
    """Read levels such as `warning` or `info,my.agent=debug`. The level without a name is that of the root, "".

    Raises ValueError: words that follow the value.
    """
    levels: dict[str, int] = {}
    for part in map(str.strip, text.split(",")):
        name, sign, word = part.rpartition("=")
        level = LEVELS.get(word.strip().lower())
        if level is None or (sign and not name.strip()):
            raise ValueError(f"{part!r} is not one of {', '.join(LEVELS)}, nor LOGGER=LEVEL")
        levels[name.strip()] = level
    return levels


def configure_logging(log_format: str = "text", *, node_id: str = "", levels: str | None = None) -> None:
    """Write records to stderr. Calling this again does nothing.

    A root logger that has a handler is not changed, and neither is any logger with a handler of its own.

    Args:
        log_format: "text" or "json".
        node_id: the id of this process, for records outside of requests.
        levels: the lowest levels that are written, see `levels_in`. Default: `info`, unless the program has set
            one.
    """
    accepting = logging.getLogger("trio.serve_listeners")
    if not any(isinstance(each, _OncePerMinute) for each in accepting.filters):
        accepting.addFilter(_OncePerMinute())
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LOG_FORMATS[log_format]())
    handler.addFilter(LogFields(node_id))
    handler.addFilter(_is_for_root)
    root.addHandler(handler)
    if root.level == logging.WARNING:
        root.setLevel(logging.INFO)
    for name, level in ({} if levels is None else levels_in(levels)).items():
        logging.getLogger(name).setLevel(level)
    for name in TELL_TOO_MUCH:
        if (logger := logging.getLogger(name)).level == logging.NOTSET:
            logger.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    for name in HYPERCORN:
        logging.getLogger(name).addFilter(_HypercornFormat(name, log_format, node_id))


def format_handlers(logger: logging.Logger, log_format: str, *, node_id: str = "") -> None:
    """Set the format of all handlers of a logger."""
    for handler in logger.handlers:
        handler.setFormatter(LOG_FORMATS[log_format]())
        if not any(isinstance(each, LogFields) for each in handler.filters):
            handler.addFilter(LogFields(node_id))


class _HypercornFormat(logging.Filter):
    """Sets the format of this module on the handler that the `hypercorn` command adds to its logger at its start.

    It is a filter because nothing reports when Hypercorn replaces the handlers. A format set by the user stays.
    """

    def __init__(self, name: str, log_format: str, node_id: str) -> None:
        super().__init__()
        self._logger = logging.getLogger(name)
        self._log_format = log_format
        self._node_id = node_id

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002  only its logger matters
        if any(getattr(each.formatter, "_fmt", "") == HYPERCORN_FORMAT for each in self._logger.handlers):
            format_handlers(self._logger, self._log_format, node_id=self._node_id)
        return True


class _OncePerMinute(logging.Filter):
    """Replaces the tracebacks of a listener that cannot accept by one line a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._last = -REPEATED_AFTER

    def filter(self, record: logging.LogRecord) -> bool:
        if record.created - self._last < REPEATED_AFTER:
            return False
        self._last = record.created
        record.msg = (
            "new connections cannot be accepted and wait: %s; raise the limit of open files (ulimit -n), or "
            "serve fewer clients (reported at most once in %d s)"
        )
        args = record.args
        reason = args[1] if isinstance(args, tuple) and len(args) > 1 else "too many open files"
        record.args = (reason, int(REPEATED_AFTER))
        record.exc_info = record.exc_text = None
        return True


def _is_for_root(record: logging.LogRecord) -> bool:
    """Return whether the root logger has to write a record, since no logger below it has a handler."""
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None and logger.parent is not None:
        if any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers):
            return False
        logger = logger.parent
    return True


def _time_of(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message_of(record: logging.LogRecord) -> str:
    try:
        return safe_text(record.getMessage()).rstrip("\n")
    except BaseException:  # the arguments do not fit the message, or user code that makes their text raises
        args = record.args if isinstance(record.args, tuple) else [record.args]
        return " ".join(map(safe_text, [record.msg, *args]))


def _fields_of(record: logging.LogRecord) -> Iterator[tuple[str, str]]:
    for name in LOG_FIELDS:
        if value := getattr(record, name, ""):
            yield name, safe_text(value)


def _word(value: str) -> str:
    """Return a value for the log, in quotes unless it is one word."""
    if value.isalnum():
        return value
    return value if value.isprintable() and not set(' "[]=') & set(value) else escaped(orjson.dumps(value).decode())


def _traceback_of(record: logging.LogRecord) -> str:
    stack = safe_text(record.stack_info) if record.stack_info else ""
    if not isinstance(record.exc_info, tuple) or record.exc_info[1] is None:
        return safe_text(record.exc_text) if record.exc_text else stack
    text = traceback_text(record.exc_info[1])
    return f"{text}\n{stack}" if stack else text
