"""How a server reports that it could not start or has crashed."""

from __future__ import annotations

import logging

from ..errors import AgentAppError
from ..protocol.text import describe_exception, safe_text
from ..runs.failures import leaves

__all__ = ["log_failure", "one_line"]

log = logging.getLogger("trio_agentapp.server")


def log_failure(what: str, error: BaseException) -> None:
    """Log one line. Add the traceback unless the error is an expected one, whose message says enough."""
    expected = isinstance(_single(error), AgentAppError | OSError)
    log.critical("%s: %s", what, one_line(error), exc_info=None if expected else error)


def one_line(error: BaseException) -> str:
    cause = _single(error)
    return safe_text(cause) if isinstance(cause, AgentAppError) else describe_exception(cause)


def _single(error: BaseException) -> BaseException:
    """The only exception in a group; the group itself if it holds several."""
    found = list(leaves(error))
    return found[0] if len(found) == 1 else error
