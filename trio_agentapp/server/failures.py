"""Logs that a server could not start, or has crashed."""

from __future__ import annotations

import logging

from ..errors import AgentAppError
from ..protocol.exception_groups import leaves
from ..protocol.text import describe_exception, safe_text

__all__ = ["log_failure", "one_line"]

log = logging.getLogger("trio_agentapp.server")


def log_failure(what: str, error: BaseException) -> None:
    """Log a failure in one line. The traceback follows, unless the error is of an expected kind."""
    expected = isinstance(_single(error), AgentAppError | OSError)
    log.critical("%s: %s", what, one_line(error), exc_info=None if expected else error)


def one_line(error: BaseException) -> str:
    cause = _single(error)
    return safe_text(cause) if isinstance(cause, AgentAppError) else describe_exception(cause)


def _single(error: BaseException) -> BaseException:
    """Return the only exception in a group; the group itself if it has several."""
    found = list(leaves(error))
    return found[0] if len(found) == 1 else error
