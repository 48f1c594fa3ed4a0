"""The formats of log records, and what a program's own configuration means to them."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_agentapp.app.settings import Settings
from trio_agentapp.errors import ConfigurationError
from trio_agentapp.runs.log_fields import add_log_fields
from trio_agentapp.telemetry import (
    JsonFormatter,
    LogFields,
    TextFormatter,
    configure_logging,
    format_handlers,
    traceback_text,
)

EVERYTHING = st.text(st.characters(exclude_categories=()))


class Worst(Exception):
    """Everything about it raises."""

    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__

    @property
    def __notes__(self) -> list[str]:
        raise KeyboardInterrupt


def record(message: object, *args: object, error: BaseException | None = None) -> logging.LogRecord:
    info = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord("n", logging.ERROR, __file__, 1, message, args, info)


@given(message=EVERYTHING, told=EVERYTHING, session=EVERYTHING)
def test_no_text_ends_a_line_or_begins_one(message: str, told: str, session: str) -> None:
    made = record("%s", message, error=ValueError(told))
    made.session_hash = session
    first, *rest = TextFormatter().format(made).splitlines()
    assert " ERROR    n: " in first
    assert all(line.startswith("    ") for line in rest)
    (line,) = JsonFormatter().format(made).splitlines()
    line.encode()
    shown = json.loads(line)
    assert shown["session_hash" if session else "level"] == (
        session.encode(errors="backslashreplace").decode() if session else "error"
    )


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_what_raises_as_it_is_written_is_named(formatter: logging.Formatter) -> None:
    error = Worst()
    text = formatter.format(record("%s %d", error, error=error))
    assert "Worst" in text
    assert "%s %d" in text
    assert "Worst" in formatter.format(record(error))
    assert "Worst" in formatter.format(record("group", error=BaseExceptionGroup("g", [error])))


def test_a_traceback_begins_with_the_users_code() -> None:
    try:
        json.loads("{")
    except ValueError as error:
        lines = traceback_text(error).splitlines()
    assert __file__ in lines[1]
    assert any("decoder.py" in line for line in lines)


@contextmanager
def unconfigured() -> Iterator[logging.Logger]:
    """The root logger of a program that has configured nothing; pytest's own handlers are back in the end."""
    root = logging.getLogger()
    changed = [root, *map(logging.getLogger, ("httpx", "autogen_core", "hypercorn.error", "hypercorn.access"))]
    before = [(each, each.handlers, each.level, each.filters) for each in changed]
    for each in changed:
        each.handlers, each.filters = [], []
    root.setLevel(logging.WARNING)
    try:
        yield root
    finally:
        logging.captureWarnings(False)
        for each, handlers, level, filters in before:
            each.handlers, each.filters = handlers, filters
            each.setLevel(level)


def test_it_is_configured_once(capsys: pytest.CaptureFixture[str]) -> None:
    with unconfigured() as root:
        for _ in range(2):
            configure_logging("json", node_id="n1")
        logging.getLogger("somebody").info("hello")
        assert root.level == logging.INFO
        assert logging.getLogger("httpx").level == logging.WARNING
        assert not logging.getLogger("autogen_core.events").isEnabledFor(logging.INFO)
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["node_id"] == "n1"
    assert (json.loads(line)["logger"], json.loads(line)["message"]) == ("somebody", "hello")


def test_levels_of_all_loggers_and_of_single_ones(capsys: pytest.CaptureFixture[str]) -> None:
    agent, client, asked = (logging.getLogger(name) for name in ("some.agent", "httpx", "other"))
    with unconfigured():
        try:
            configure_logging(levels="Error, some.agent=debug,httpx=info")
            for logger in (agent, client, asked):
                logger.debug("a debug of %s", logger.name)
                logger.info("an info of %s", logger.name)
                logger.error("an error of %s", logger.name)
        finally:
            agent.setLevel(logging.NOTSET)
    said = [line.split(": ")[1] for line in capsys.readouterr().err.splitlines()]
    agents = ["a debug of some.agent", "an info of some.agent", "an error of some.agent"]
    assert said == [*agents, "an info of httpx", "an error of httpx", "an error of other"]


@pytest.mark.parametrize("levels", ["loud", "info,=debug", "some.agent=", "info;debug", 10])
def test_levels_that_are_none_end_the_start(levels: object) -> None:
    with pytest.raises(ConfigurationError, match="log_level"):
        Settings(log_level=levels)  # type: ignore[arg-type]


def test_a_handler_of_the_programs_own_is_left_alone() -> None:
    with unconfigured() as root:
        mine = logging.StreamHandler(sys.stderr)
        root.addHandler(mine)
        configure_logging()
        assert root.handlers == [mine]
        assert mine.formatter is None
        assert root.level == logging.WARNING


def test_the_fields_for_a_format_of_ones_own() -> None:
    add_log_fields(run_id="r1")
    made = record("x")
    assert LogFields("n1").filter(made)
    shown = logging.Formatter("%(run_id)s %(node_id)s [%(session_hash)s]").format(made)
    assert shown == "r1 n1 []"


def test_handlers_that_others_made_are_given_the_format() -> None:
    logger = logging.Logger("celery")
    handler = logging.StreamHandler()
    logger.addHandler(handler)
    for _ in range(2):
        format_handlers(logger, "json", node_id="n1")
    assert isinstance(handler.formatter, JsonFormatter)
    assert len(handler.filters) == 1


def test_a_listener_that_cannot_accept_is_reported_once_a_minute() -> None:
    configure_logging()
    (filter_,) = [each for each in logging.getLogger("trio.serve_listeners").filters if hasattr(each, "_last")]
    shown = []
    for second in range(0, 1300, 1):
        made = record("accept returned %s (%s)", "EMFILE", "Too many open files", error=OSError(24, "x"))
        made.created = 1e9 + second / 10
        if filter_.filter(made):  # type: ignore[union-attr]
            shown.append((second, TextFormatter().format(made)))
    assert [second for second, _ in shown] == [0, 600, 1200]
    assert all("Too many open files" in text and "\n" not in text for _, text in shown)
