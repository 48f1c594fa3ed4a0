"""Decides which asyncio tasks of AutoGen's agents and teams a stop cancels."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from autogen_core import CancellationToken

from ..abc.frameworks import TaskStop
from .call import current_call

__all__ = ["StopToken", "at_stop", "let_stops_be_no_errors"]

IGNORED = frozenset({"RunContext._run", "Queue.get"})
"""The tasks in which a team delivers messages to its agents, and waits for messages. `run_stream` ends them."""

AWAITED = "BaseGroupChat.run_stream.<locals>.stop_runtime"
"""The task that ends when no agent of a team works any more. `run_stream` waits for it, too."""


def at_stop(task: asyncio.Task[Any]) -> TaskStop:
    """Return what a stop does with a task.

    Tasks of a team's message queue are not cancelled, because the team could not run again afterwards. They end by
    themselves when the agents have ended.
    """
    name = getattr(task.get_coro(), "__qualname__", "")
    if name in IGNORED:
        return "ignore"
    return "wait" if name == AWAITED else "cancel"


class _NoStops(logging.Filter):
    """Drops log records of the CancelledError of a stop, which AutoGen logs as an error of the agent."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        call = current_call.get()
        return not (isinstance(error, asyncio.CancelledError) and call is not None and call.cancelled)


def let_stops_be_no_errors() -> None:
    """Add the filter to AutoGen's logger, unless it was added before."""
    logger = logging.getLogger("autogen_core")
    if not any(isinstance(each, _NoStops) for each in logger.filters):
        logger.addFilter(_NoStops())


class StopToken(CancellationToken):  # type: ignore[misc]  # the framework is not installed where types are checked
    """A token that is cancelled by a stop.

    A stop does not cancel the task in which `run_stream` of a team waits for messages. Otherwise `run_stream` would
    return, and the handler would continue while tools are still being cancelled.
    """

    def __init__(self) -> None:
        super().__init__()
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True
        self.cancel()

    def link_future(self, future: asyncio.Future[Any]) -> asyncio.Future[Any]:
        if isinstance(future, asyncio.Task) and at_stop(future) == "ignore":
            self.add_callback(lambda: self._stopped or future.cancel())
        else:
            super().link_future(future)
        return future
