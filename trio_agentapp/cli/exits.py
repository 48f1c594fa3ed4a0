"""How a command ends: one line on stderr for what went wrong, and a code that scripts can tell apart."""

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
    DeployError,
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
    """It was tried, and failed: a run, a start, a deployment."""
    USAGE = 2
    """The command cannot mean anything: an option, an app that is not there, a setting that cannot work."""
    UNREACHABLE = 3
    """Nothing answers there, or not as an agent does; or it is not ready."""
    REFUSED = 4
    """The server said no: not found, not allowed, busy."""
    STOPPED = 5
    """The run was stopped before it had finished."""
    INTERRUPTED = 130
    """Ctrl-C."""


def say(text: str) -> None:
    """To the person, and not into what a script reads."""
    write(text, err=True)


def exits(command: Callable[P, ExitCode | None]) -> Callable[P, None]:
    """Make a command of a function that returns its exit code and raises errors of ours."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **options: P.kwargs) -> None:
        try:
            code = command(*args, **options)
        except KeyboardInterrupt:
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
        case DeployError():
            return ExitCode.FAILED
    return ExitCode.FAILED
