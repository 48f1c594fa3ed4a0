"""The end of a command: one line on stderr for an error, and an exit code."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from enum import IntEnum
from typing import ParamSpec

import typer

from ..errors import (
    AgentAppError,
    ConfigurationError,
    ConnectionLost,
    EventsMissed,
    RequestError,
    UnexpectedAnswer,
)
from .terminal import write

__all__ = ["ExitCode", "exits", "say"]

P = ParamSpec("P")


class ExitCode(IntEnum):
    OK = 0
    FAILED = 1
    """A run, a start or a deployment failed."""
    USAGE = 2
    """A wrong option or setting, or an app that does not exist."""
    UNREACHABLE = 3
    """Nothing answers at the URL, or no agent does, or the service is not ready."""
    REFUSED = 4
    """The server refused the request: not found, not allowed, busy."""
    STOPPED = 5
    """The run was stopped before it had finished."""
    INTERRUPTED = 130
    """Ctrl-C."""


def say(text: str) -> None:
    """Print a line on stderr, apart from the output that scripts read."""
    write(text, err=True)


def exits(command: Callable[P, ExitCode | None]) -> Callable[P, None]:
    """Make a command of a function that returns its exit code and may raise an `AgentAppError`."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **options: P.kwargs) -> None:
        try:
            code = command(*args, **options)
        except KeyboardInterrupt:
            code = ExitCode.INTERRUPTED
        except BaseExceptionGroup as group:
            # A second Ctrl-C, while the first one still ends what was in progress.
            if group.subgroup(KeyboardInterrupt) is None:
                raise
            code = ExitCode.INTERRUPTED
        except AgentAppError as error:
            if os.environ.get("AGENTAPP_TRACEBACK"):
                raise
            say(f"trio-agentapp: {error}")
            code = _code_of(error)
        if code:
            raise typer.Exit(code)

    return wrapped


def _code_of(error: AgentAppError) -> ExitCode:
    match error:
        case ConfigurationError():
            return ExitCode.USAGE
        case ConnectionLost() | UnexpectedAnswer() | EventsMissed():
            return ExitCode.UNREACHABLE
        case RequestError():
            return ExitCode.REFUSED
    return ExitCode.FAILED
