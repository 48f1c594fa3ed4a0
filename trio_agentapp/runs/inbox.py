"""Fetches messages that clients have sent to other nodes, and puts them into the inbox of their `Run`."""

from __future__ import annotations

import logging

from ..abc import BaseInterruptBackend, Lease, RunInbox
from ..errors import AgentAppError
from ..protocol.message_json import decode_message
from .run import Run
from .run_calls import RunCalls

__all__ = ["InboxFetcher"]

logger = logging.getLogger("trio_agentapp.runs")


class InboxFetcher(RunCalls):
    """Fetches messages for the runs of this node, each time in a task of its own nursery.

    The task is not a child of the run: a stop of the run would cancel a fetch that has taken messages out of the
    backend, and they would be lost.
    """

    def __init__(self, backend: BaseInterruptBackend) -> None:
        super().__init__()
        self._inbox = RunInbox.of(backend)

    def fetch_soon(self, run: Run) -> None:
        """Start to fetch the messages for `run` and put them into its inbox. Does not block.

        Nothing is started if a fetch for this run is in progress, or if the run does not own its session.
        """
        self.call_soon(run, self._fetch)

    async def _fetch(self, run: Run, lease: Lease) -> None:
        try:
            if self._inbox is not None and run.input.has_room:
                for raw in await self._inbox.take_input(lease, run.input.received):
                    if not run.input.give(decode_message(raw)):
                        break
                    run.input.received += 1
        except (AgentAppError, OSError) as exc:
            logger.warning("run %s: input could not be fetched: %s", run.run_id, exc)
